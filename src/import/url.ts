import type { ImportSource } from '../checkpoint/sources';
import { ZoetropeError } from '../errors';
import { NO_ANSWER } from '../manifest';
import type { StoreHost } from '../store/disk';
import { type Fetch, httpFile, httpFolder } from '../store/http';
import { Patience, sleep } from '../store/patience';
import { requestHeld } from '../store/transfer';

/** Whether a path is an address on the web. */
export function isUrl(path: string): boolean {
  return /^https?:\/\//i.test(path);
}

/** What reading from the web takes; for tests, all but the signal has a default. */
export interface UrlOptions extends Partial<Pick<StoreHost, 'fetch' | 'now' | 'sleep' | 'random'>> {
  signal?: AbortSignal | undefined;
  /** See `TransferOptions.stallMs`. */
  stallMs?: number | undefined;
}

/**
 * `fetch` for ranges that asks again for what breaks off, falls silent or is put off, as downloads do
 * (`store/retry.ts`).
 */
export function patientFetch(options: UrlOptions): Fetch {
  const { signal = new AbortController().signal, stallMs } = options;
  const { fetch = (url, init) => globalThis.fetch(url, init), now = Date.now, random = Math.random } = options;
  const patience = new Patience({ now, random, sleep: options.sleep ?? sleep }, signal, () => undefined);
  let answered = false;
  const noting: Fetch = async (url, init) => {
    const response = await fetch(url, init);
    answered = true;
    return response;
  };
  return (url, init) => {
    const what = url.replace(/\?.*$/s, '');
    const range = new Headers(init.headers).get('Range')!;
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(range)!.map(Number) as [number, number, number];
    const bytes = last - first + 1;
    return patience.run(what, async () => {
      const answer = await requestHeld(url, init, what, bytes, { fetch: noting, now, signal, stallMs });
      if (answered || answer instanceof Response) return answer;
      // Of an address that nobody has answered at yet, the first failure is told: it may be a slip of the pen.
      throw new ZoetropeError('unreadable-source', `${what} ${answer.why}.`, { cause: NO_ANSWER });
    });
  };
}

/**
 * A source on a web server. A path that ends with a slash, or with neither an ending nor a query, is a folder;
 * everything else is a file. A query, such as `?download=true` or a signature, is sent with every request; the source's
 * path, which messages show and whose words tell the expert, is without it. What a server breaks off or puts off is
 * asked for again, seven times in all. Throws `bad-request` for other addresses and `unreadable-source` for a file that
 * is not there.
 */
export async function urlSource(url: string, options: UrlOptions = {}): Promise<ImportSource> {
  if (!isUrl(url) || !URL.canParse(url)) {
    throw new ZoetropeError(
      'bad-request',
      `A source on the web has an http or https address, got ${JSON.stringify(url)}.`,
    );
  }
  const { origin, pathname, search } = new URL(url);
  const path = origin + pathname;
  const isFolder = pathname.endsWith('/') || (search === '' && !/\.[a-z0-9]+$/i.test(pathname));
  // A checkpoint has no hashes, so half of one file and half of another must not become a model.
  const reading = { unchanged: true, fetch: patientFetch(options), signal: options.signal };
  return isFolder
    ? { path, folder: httpFolder(path + search, reading) }
    : { path, file: await httpFile(path + search, reading) };
}
