import { type StoreHost, storageFull } from '../store/disk';
import { exclusively } from '../store/library';
import { partId, storedParts } from '../store/parts';
import type { StoreWork } from '../store/work';
import { type PartFiles, writePart } from './part-files';
import type { StoredPart } from './protocol';
import { storeTarget } from './target';

/** Optional parts on their way into the store. */

/** Room for the headers and manifest of a part beside its tensors. */
const OVERHEAD_BYTES = 1024 * 1024;

/**
 * Imports a part from its publisher's files, replacing one that is there. Gives its id. Throws `storage-full` before
 * the first byte when it may not fit, `model-in-use` while the part is open, and what {@link writePart} throws.
 */
export async function importPart(
  host: StoreHost,
  files: PartFiles,
  license: string | undefined,
  { signal }: Pick<StoreWork, 'signal'>,
): Promise<string> {
  const id = partId(files.part);
  const needed = OVERHEAD_BYTES + ('param' in files ? 2 * files.bin.sizeBytes : files.file.sizeBytes);
  const room = await host.disk.room();
  if (needed > Math.max(0, room.quotaBytes - room.usedBytes)) throw storageFull(needed, room);
  await exclusively(host, id, () => writePart(files, { sink: storeTarget(host.disk, id, needed), license, signal }));
  return id;
}

/** The parts of the store as the API lists them. */
export async function listParts(host: Pick<StoreHost, 'disk'>): Promise<StoredPart[]> {
  return (await storedParts(host.disk)).map(({ part, opened: { manifest, sizeBytes } }) => {
    return { id: partId(part), part, name: manifest.name, license: manifest.license, sizeBytes };
  });
}
