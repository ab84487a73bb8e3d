import { ZoetropeError } from '../errors';
import { hashPiece, MANIFEST_FILE, type Manifest } from '../manifest';
import type { StoredModel, Verification } from '../protocol';
import { freeBuffer } from './chunks';
import {
  changeLock,
  type Disk,
  type DiskFile,
  JOURNAL_FILE,
  presentPieces,
  readSmall,
  SOURCE_FILE,
  type StoreHost,
  storedFolder,
  useLock,
} from './disk';
import { downloadModel, folderUrl } from './download';
import { parseManifest } from './manifest-reader';
import { isComplete, listPieces, modelPath, type PieceList, storedBytes } from './pieces';
import { Reporting } from './reporting';
import { holding, type StoreWork, stopped } from './work';

/** The models in the store: what there is, whether it is whole, and how it goes. */

/** How long a deletion waits for tabs that are just closing. */
const PATIENCE_MS = 2000;

/** A model's folder as it lies on the disk. */
interface Found {
  id: string;
  url: string | null;
  /** Undefined when the manifest is gone, or is not the one that the id stands for. */
  model: { manifest: Manifest; list: PieceList; journal: Uint8Array } | undefined;
}

async function find(disk: Disk, id: string): Promise<Found> {
  const [source, bytes] = await Promise.all([readSmall(disk, id, SOURCE_FILE), readSmall(disk, id, MANIFEST_FILE)]);
  const { url } = readOrigin(source);
  const manifest = bytes && (await hashPiece(bytes)) === id ? usable(bytes) : undefined;
  if (!manifest) return { id, url, model: undefined };
  const list = listPieces(manifest);
  const { journal } = await presentPieces(disk, id, list);
  return { id, url, model: { manifest, list, journal } };
}

/** The manifest, unless this version of the library refuses what another has stored. */
function usable(bytes: Uint8Array): Manifest | undefined {
  try {
    return parseManifest(bytes);
  } catch {
    return undefined;
  }
}

/** Where a model came from: a folder's URL, an import's id, or both; null for what is not known. */
interface Origin {
  url: string | null;
  imported: string | null;
}

function readOrigin(bytes: Uint8Array | undefined): Origin {
  try {
    const { url, imported } = JSON.parse(new TextDecoder().decode(bytes)) as { url?: unknown; imported?: unknown };
    return {
      url: typeof url === 'string' ? folderUrl(url) : null,
      imported: typeof imported === 'string' ? imported : null,
    };
  } catch {
    return { url: null, imported: null }; // Written when the tab was closed. The next download writes it anew.
  }
}

/** Folders of the store that are models. Others are imports under way and optional parts. */
async function modelIds(disk: Disk): Promise<string[]> {
  return (await disk.folders()).filter((name) => /^[0-9a-f]{64}$/.test(name));
}

/** Id of the complete model that an import became; undefined when there is none. */
export async function importedModel(disk: Disk, imported: string): Promise<string | undefined> {
  for (const id of await modelIds(disk)) {
    if (readOrigin(await readSmall(disk, id, SOURCE_FILE)).imported !== imported) continue;
    const { model } = await find(disk, id);
    if (model && isComplete(model.list, model.journal)) return id;
  }
  return undefined;
}

/** Every model of the store, by name. */
export async function listModels({ disk, locks }: Pick<StoreHost, 'disk' | 'locks'>): Promise<StoredModel[]> {
  const { held = [] } = await locks.query();
  const busy = new Set(held.map(({ name }) => name));
  const models = await Promise.all((await modelIds(disk)).map((id) => find(disk, id)));
  return models
    .map((found) => describe(found, busy.has(changeLock(found.id))))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function describe({ id, url, model }: Found, busy: boolean): StoredModel {
  if (!model) {
    const unknown = { name: id, license: '', quantization: '', sizeBytes: 0, storedBytes: 0 };
    return { id, url, ...unknown, state: 'damaged', busy };
  }
  const { list, journal } = model;
  const { name, license, quantization } = model.manifest;
  const state = isComplete(list, journal) ? 'complete' : 'partial';
  const bytes = { sizeBytes: list.sizeBytes, storedBytes: storedBytes(list, journal) };
  return { id, url, name, license, quantization, ...bytes, state, busy };
}

async function existing(disk: Disk, id: string): Promise<Found> {
  if ((await disk.folders()).includes(id)) return find(disk, id);
  throw new ZoetropeError(
    'unreadable-source',
    `No model with the id ${JSON.stringify(id)} is stored. List the models.`,
  );
}

/**
 * Reads every piece that is marked as there and compares its hash. What is not as stated is marked as missing, so that
 * the next download or repair fetches it and nothing else. Waits for a download that is under way.
 */
export async function verifyModel(
  host: StoreHost,
  id: string,
  { signal, onProgress }: StoreWork,
): Promise<Verification> {
  await existing(host.disk, id);
  return holding(host, id, signal, async () => {
    const { model } = await existing(host.disk, id);
    if (!model) return { complete: false, broken: [{ path: MANIFEST_FILE, begin: 0, end: 0 }], verifiedBytes: 0 };
    const { manifest, list, journal: done } = model;
    const marked = list.pieces.filter(({ index }) => done[index]);
    const totalBytes = storedBytes(list, done);
    const broken: Verification['broken'] = [];
    let doneBytes = 0;
    const reporting = new Reporting(host.now, { id, name: manifest.name, totalBytes }, onProgress);
    const report = () => reporting.tell('verifying', doneBytes);
    const buffer = new Uint8Array(list.largestBytes);
    const journal = await host.disk.edit(id, JOURNAL_FILE);
    const files = new Map<number, DiskFile>();
    try {
      report();
      for (const { index, file, begin, end, sha256 } of marked) {
        if (signal.aborted) throw stopped();
        const { path } = list.files[file]!;
        const opened = files.get(file) ?? (await host.disk.edit(id, modelPath(path)));
        files.set(file, opened);
        const bytes = buffer.subarray(0, end - begin);
        const whole = opened.read(begin, bytes) === bytes.length;
        if (!whole || (await hashPiece(bytes)) !== sha256) {
          broken.push({ path, begin, end });
          done[index] = 0;
          journal.write(index, Uint8Array.of(0));
          journal.flush();
        }
        doneBytes += end - begin;
        report();
      }
    } finally {
      for (const opened of [journal, ...files.values()]) opened.close();
      freeBuffer(buffer);
    }
    return { complete: isComplete(list, done), broken, verifiedBytes: storedBytes(list, done) };
  });
}

/**
 * Verifies a model and fetches what is broken or missing from where it came. Gives what the verification found. Throws
 * `unreadable-source` when there is something to fetch and no address to fetch it from, as of models that were imported
 * here.
 */
export async function repairModel(host: StoreHost, id: string, work: StoreWork): Promise<Verification> {
  const { url } = await existing(host.disk, id);
  const found = await verifyModel(host, id, work);
  if (found.complete) return found;
  if (url !== null) {
    await downloadModel(host, url, { ...work, id });
    return found;
  }
  throw new ZoetropeError(
    'unreadable-source',
    'No address is known from which what is broken or missing could be fetched. Import the same sources again, or download the model again.',
  );
}

/**
 * Holds both locks of a folder while `work` runs. Throws `model-in-use` while it is open or being changed, here or in
 * another tab.
 */
export async function exclusively<T>(host: StoreHost, id: string, work: () => Promise<T>): Promise<T> {
  const take = async (name: string, inner: () => Promise<T>): Promise<T> => {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    let taken = false;
    const whole = () => {
      taken = true;
      return inner();
    };
    try {
      return await host.locks.request(name, { signal }, whole);
    } catch (error) {
      if (taken) throw error;
      const why = 'This model or part is open or being changed. Close it, in other tabs too, and try again then.';
      throw new ZoetropeError('model-in-use', why, { cause: error });
    }
  };
  return take(changeLock(id), () => take(useLock(id), work));
}

/** Deletes a model, an unfinished import or an optional part. Throws as {@link exclusively} does. */
export async function deleteModel(host: StoreHost, id: string): Promise<void> {
  await existing(host.disk, id);
  await exclusively(host, id, () => host.disk.remove(id));
}

/** A complete model of the store, taken into use. */
export interface StoredCopy {
  id: string;
  folder: ReturnType<typeof storedFolder>;
  /** Lets it be deleted again. */
  release(): void;
}

/**
 * The complete stored model of an id, or that a manifest is of, or without a manifest, one that came from a URL.
 * Undefined when there is none.
 */
export async function useStored(
  host: Pick<StoreHost, 'disk' | 'locks'>,
  wanted: { id: string } | { manifest: Uint8Array } | { url: string },
): Promise<StoredCopy | undefined> {
  const ids = await modelIds(host.disk);
  if (ids.length === 0) return undefined;
  if (!('url' in wanted)) {
    const id = 'id' in wanted ? wanted.id : await hashPiece(wanted.manifest);
    return ids.includes(id) ? takeIntoUse(host, id) : undefined;
  }
  const url = folderUrl(wanted.url);
  for (const id of ids) {
    const came = readOrigin(await readSmall(host.disk, id, SOURCE_FILE)).url === url;
    const copy = came ? await takeIntoUse(host, id) : undefined;
    if (copy) return copy;
  }
  return undefined;
}

/** Holds the lock that keeps a folder of the store from being changed or deleted. Gives what ends it. */
export async function holdInUse({ locks }: Pick<StoreHost, 'locks'>, id: string): Promise<() => void> {
  let release: () => void = () => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  await new Promise<void>((resolve, reject) => {
    const hold = () => {
      resolve();
      return released;
    };
    locks.request(useLock(id), { mode: 'shared' }, hold).catch(reject);
  });
  return release;
}

/** A model with the lock that keeps it from being deleted; undefined when it is not complete. */
async function takeIntoUse(host: Pick<StoreHost, 'disk' | 'locks'>, id: string): Promise<StoredCopy | undefined> {
  const release = await holdInUse(host, id);
  const { model } = await find(host.disk, id);
  if (model && isComplete(model.list, model.journal)) return { id, folder: storedFolder(host.disk, id), release };
  release();
  return undefined;
}
