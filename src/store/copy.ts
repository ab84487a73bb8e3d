import { ZoetropeError } from '../errors';
import { type Folder, MANIFEST_FILE } from '../manifest';
import type { StoreHost } from './disk';
import { useStored } from './library';
import { readManifest } from './verified';

/** A model folder to read from, wherever it lies. */
export interface ModelCopy {
  folder: Folder;
  /** Id of the stored copy that the folder is of; absent when it is the one at the URL. */
  storedId?: string;
  /** Ends the use of a stored copy, which may be deleted then. */
  release(): void;
}

/**
 * The model at a URL: its stored copy when the very same manifest is stored whole, or when the URL cannot be read and a
 * copy came from there; else the folder at the URL.
 * @param storage undefined where the browser has none.
 */
export async function openCopy(
  storage: Pick<StoreHost, 'disk' | 'locks'> | undefined,
  url: string,
  remote: Folder,
): Promise<ModelCopy> {
  const atUrl = { folder: remote, release: () => undefined };
  if (!storage || (await storage.disk.folders()).length === 0) return atUrl;
  let manifest: Uint8Array;
  try {
    manifest = await readManifest(remote);
  } catch (error) {
    const gone = error instanceof ZoetropeError && error.code === 'unreadable-source';
    const stored = gone ? await useStored(storage, { url }) : undefined;
    if (!stored) throw error;
    return { folder: stored.folder, storedId: stored.id, release: stored.release };
  }
  const stored = await useStored(storage, { manifest });
  if (stored) return { folder: stored.folder, storedId: stored.id, release: stored.release };
  return { ...atUrl, folder: withManifest(remote, manifest) };
}

/** A folder whose manifest has been read, so that it is not asked for twice. */
function withManifest(folder: Folder, manifest: Uint8Array): Folder {
  const source = { sizeBytes: manifest.length, read: async (begin: number, end: number) => manifest.slice(begin, end) };
  return { open: async (path) => (path === MANIFEST_FILE ? source : folder.open(path)) };
}

/** Scheme of addresses of stored models: `stored:<id>`. */
const STORED = 'stored:';

/** The id in the address of a stored model; undefined for other addresses. */
export function storedId(url: string): string | undefined {
  return url.startsWith(STORED) ? url.slice(STORED.length) : undefined;
}

/** The stored model of an id, whole or not at all. Throws `unreadable-source`. */
export async function openStored(
  storage: Pick<StoreHost, 'disk' | 'locks'> | undefined,
  id: string,
): Promise<ModelCopy> {
  const stored = storage && (await useStored(storage, { id }));
  if (stored) return { folder: stored.folder, storedId: stored.id, release: stored.release };
  const why = `This browser stores no complete model ${JSON.stringify(id)}. Download or import it again.`;
  throw new ZoetropeError('unreadable-source', why);
}
