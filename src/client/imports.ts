import { proxy, type Remote } from 'comlink';
import { ZoetropeError } from '../errors';
import type { Importer, ImportSettings, SourceSpec } from '../import/protocol';
import { addressOf } from './address';
import { guard } from './link';
import type { ImportInput, StoreOptions } from './options';
import { connectStore, type StoreLink } from './store-worker';

/** The page's side of importing. */

function connect(): { importer: Remote<Importer>; call: StoreLink['call'] } {
  const { worker, call } = connectStore();
  return { importer: worker.importer as unknown as Remote<Importer>, call };
}

/** A source as it crosses the boundary. */
function specOf(input: ImportInput): SourceSpec {
  if (typeof input === 'string' || input instanceof URL) {
    return { kind: 'url', url: addressOf(input) };
  }
  if (input instanceof File) return { kind: 'file', path: input.webkitRelativePath || input.name, file: input };
  if ('from' in input) return { ...specOf(input.from), role: input.role };
  return { kind: 'handle', handle: input };
}

/** A handle as browsers with a file picker know it; TypeScript's library lacks the methods. */
interface GuardedHandle {
  queryPermission?(descriptor: { mode: 'read' }): Promise<PermissionState>;
  requestPermission?(descriptor: { mode: 'read' }): Promise<PermissionState>;
}

/** Asks the person, where the browser wants that, whether handles of an earlier visit may still be read. */
async function permit(sources: readonly SourceSpec[]): Promise<void> {
  for (const source of sources) {
    if (source.kind !== 'handle') continue;
    const handle = source.handle as GuardedHandle;
    let state = (await handle.queryPermission?.({ mode: 'read' })) ?? 'granted';
    if (state === 'prompt') state = (await handle.requestPermission?.({ mode: 'read' }).catch(() => state)) ?? state;
    if (state === 'granted') continue;
    const why = `Reading ${source.handle.name} was not allowed. Choose it again; the import goes on where it stopped.`;
    throw new ZoetropeError('unreadable-source', why);
  }
}

async function work(
  sources: SourceSpec[],
  settings: Partial<ImportSettings>,
  { signal, onProgress }: StoreOptions,
): Promise<string> {
  if (signal?.aborted) throw new ZoetropeError('aborted', 'This was stopped before it began.');
  // Only a page may ask, and some browsers ask the person, whose answer the import need not wait for.
  void navigator.storage?.persist?.().catch(() => undefined);
  const { importer, call } = connect();
  const job = crypto.randomUUID();
  const stop = () => void importer.stop(job).catch(() => undefined);
  signal?.addEventListener('abort', stop, { once: true });
  try {
    return await call(importer.run(sources, settings, job, proxy(guard(onProgress))));
  } finally {
    signal?.removeEventListener('abort', stop);
  }
}

/** See `Models.inspect`. */
export async function inspect(inputs: Iterable<ImportInput>) {
  const { importer, call } = connect();
  return call(importer.inspect(Array.from(inputs, specOf)));
}

/** See `Models.import`. */
export async function run(inputs: readonly ImportInput[], settings: Partial<ImportSettings>, options: StoreOptions) {
  return work(inputs.map(specOf), settings, options);
}

/** See `Models.unfinished`. */
export async function unfinished() {
  const { importer, call } = connect();
  return call(importer.unfinished());
}

/** See `Models.resume`. */
export async function resume(id: string, options: StoreOptions) {
  const { importer, call } = connect();
  const { sources, settings } = await call(importer.recall(id));
  await permit(sources);
  return work(sources, settings, options);
}

/** See `Models.parts`. */
export async function parts() {
  const { importer, call } = connect();
  return call(importer.parts());
}
