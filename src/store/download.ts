import { ZoetropeError } from '../errors';
import { hashPiece, MANIFEST_FILE } from '../manifest';
import type { StoreProgress } from '../protocol';
import { changeLock, type StoreHost } from './disk';
import { Download } from './lanes';
import { MAX_MANIFEST_BYTES, parseManifest } from './manifest-reader';
import { Patience } from './patience';
import { requestSmall } from './transfer';
import { type DownloadOptions, holding, stoppable } from './work';

export type { DownloadOptions } from './work';

/**
 * URL of a model folder with its final slash, also from the URL of its manifest. Throws `unreadable-source` for what is
 * none.
 */
export function folderUrl(url: string): string {
  const plain = url.replace(/[?#].*$/s, '').replace(/\/?(zoetrope\.json)?$/, '/');
  if (/^https?:\/\/./i.test(plain) && URL.canParse(plain)) return plain;
  throw new ZoetropeError('unreadable-source', `A model has an http or https address, got ${JSON.stringify(url)}.`);
}

/**
 * Downloads a model folder into the store, or continues to, and gives its id. Each piece is written to the model only
 * after its hash matched, and marked as there only after it was written; what has come of the others is kept beside the
 * model. It can be interrupted anywhere, at the cost of one piece at most. Where another tab downloads the same model,
 * waits for it and reports its progress.
 *
 * Throws `storage-full` before the first byte when the model does not fit, `unreadable-source`, `bad-checkpoint` or
 * `corrupt-data` for what the server sends, `aborted` at the signal.
 */
export async function downloadModel(host: StoreHost, address: string, options: DownloadOptions): Promise<string> {
  const { signal, onProgress } = options;
  const url = folderUrl(address);
  const bytes = await stoppable(signal, (inner) =>
    new Patience(host, inner, () => undefined).run(url + MANIFEST_FILE, () =>
      requestSmall(url + MANIFEST_FILE, MAX_MANIFEST_BYTES, {
        fetch: host.fetch,
        now: host.now,
        signal: inner,
        stallMs: options.stallMs,
      }),
    ),
  );
  const manifest = parseManifest(bytes);
  const id = await hashPiece(bytes);
  if (options.id !== undefined && options.id !== id) {
    throw new ZoetropeError(
      'corrupt-data',
      `${url} holds another model by now ("${manifest.name}"), so the stored one cannot be completed from there. Download it as a new one and delete the old.`,
    );
  }
  const channel = host.channel(changeLock(id));
  try {
    channel.onmessage = ({ data }) => {
      const note = 'Another tab of this page downloads this model.';
      onProgress({ ...(data as StoreProgress), state: 'waiting', note });
    };
    await holding(host, id, signal, async () => {
      channel.onmessage = null;
      await stoppable(signal, (inner) =>
        new Download(host, { id, url, bytes, manifest }, channel, options, inner).run(),
      );
    });
  } finally {
    channel.close();
  }
  return id;
}
