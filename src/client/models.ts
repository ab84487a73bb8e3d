import { proxy, type Remote } from 'comlink';
import { ZoetropeError } from '../errors';
import type { ImportOutlook } from '../import/inspect';
import type { ImportSettings, StoredPart, UnfinishedImport } from '../import/protocol';
import type { ModelStore, StorageUse, StoredModel, StoreProgress, Verification } from '../protocol';
import { addressOf } from './address';
import { guard } from './link';
import type { ImportInput, StoreOptions } from './options';
import { connectStore, type StoreLink } from './store-worker';

/** The models in this browser's storage. Every rejection is a {@link ZoetropeError}. */
export interface Models {
  /** By name, partial ones too. */
  list(): Promise<StoredModel[]>;
  storage(): Promise<StorageUse>;
  /**
   * Downloads a model folder, or continues to, and asks the browser to keep it. `load` uses it from then on, without
   * network too.
   * @param url of the folder that holds `zoetrope.json`, or of that file; relative to the page.
   * @returns the model's id.
   */
  download(url: string, options?: StoreOptions): Promise<string>;
  /** Compares every stored piece with its hash; what is wrong counts as missing from then on. */
  verify(id: string, options?: StoreOptions): Promise<Verification>;
  /** Verifies, then fetches what is wrong or missing from where the model came. */
  repair(id: string, options?: StoreOptions): Promise<Verification>;
  /**
   * Deletes a model, an unfinished import or an optional part. Throws `model-in-use` while it is open or being changed.
   */
  delete(id: string): Promise<void>;
  /**
   * Tells what files, folders and addresses hold and what an import would make of them, from their headers alone. Files
   * of one folder (`webkitRelativePath`) count as that folder.
   */
  inspect(inputs: Iterable<ImportInput>): Promise<ImportOutlook>;
  /**
   * Imports a checkpoint as a stored model, which `load({ model: 'stored:<id>' })` opens, or FILM's or RIFE's files as
   * an optional part. The same inputs and settings again continue an import that was stopped, also after a reload. Asks
   * the browser to keep what is stored.
   * @param settings default: 8 bits, the name of the first input, licence "unknown".
   * @returns the model's id, or the part's.
   *
   * Throws `bad-checkpoint` and `unreadable-source` for the inputs, `bad-request` for a name or licence not of 1 to 200
   * characters, `storage-full` before the first byte or in the middle, `aborted`.
   */
  import(inputs: Iterable<ImportInput>, settings?: Partial<ImportSettings>, options?: StoreOptions): Promise<string>;
  /** Imports that were stopped, by name. */
  unfinished(): Promise<UnfinishedImport[]>;
  /**
   * Goes on with an import whose sources are remembered; a handle may make the browser ask the person, so call it at a
   * click. Throws `unreadable-source` when the sources are not known any more or may not be read.
   */
  resume(id: string, options?: StoreOptions): Promise<string>;
  /** Optional parts in the store. */
  parts(): Promise<StoredPart[]>;
}

/** comlink gives proxies of what lies within, which its types do not say. */
function connect(): { store: Remote<ModelStore>; call: StoreLink['call'] } {
  const { worker, call } = connectStore();
  return { store: worker.store as unknown as Remote<ModelStore>, call };
}

type Report = (progress: StoreProgress) => void;

async function work<T>(
  { signal, onProgress }: StoreOptions,
  run: (store: Remote<ModelStore>, job: string, report: Report) => Promise<T>,
): Promise<T> {
  if (signal?.aborted) throw new ZoetropeError('aborted', 'This was stopped before it began.');
  const { store, call } = connect();
  const job = crypto.randomUUID();
  const stop = () => void store.stop(job).catch(() => undefined);
  signal?.addEventListener('abort', stop, { once: true });
  try {
    return await call(run(store, job, proxy(guard(onProgress))));
  } finally {
    signal?.removeEventListener('abort', stop);
  }
}

/** What importing needs beyond the store comes when it is first asked for. */
const imports = () => import('./imports');

/** See {@link Models}. `index.ts` has taught comlink to carry our errors. */
export const models: Models = {
  async list() {
    const { store, call } = connect();
    return call(store.list());
  },
  async storage() {
    const { store, call } = connect();
    return call(store.storage());
  },
  download(url, options = {}) {
    // Only a page may ask, and some browsers ask the person, whose answer the download need not wait for.
    void navigator.storage?.persist?.().catch(() => undefined);
    return work(options, (store, job, report) => store.download(addressOf(url), job, report));
  },
  verify: (id, options = {}) => work(options, (store, job, report) => store.verify(id, job, report)),
  repair: (id, options = {}) => work(options, (store, job, report) => store.repair(id, job, report)),
  async delete(id) {
    const { store, call } = connect();
    await call(store.delete(id));
  },
  inspect: async (inputs) => (await imports()).inspect(inputs),
  async import(inputs, settings = {}, options = {}) {
    const chosen = [...inputs];
    return (await imports()).run(chosen, settings, options);
  },
  unfinished: async () => (await imports()).unfinished(),
  resume: async (id, options = {}) => (await imports()).resume(id, options),
  parts: async () => (await imports()).parts(),
};
