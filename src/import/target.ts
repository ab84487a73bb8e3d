import type { ResumableFolder } from '../checkpoint/journal';
import { messageOf, ZoetropeError } from '../errors';
import { type FileSink, MANIFEST_FILE } from '../manifest';
import { type Disk, type DiskFile, isFull, storageFull, storedFolder } from '../store/disk';
import { modelPath } from '../store/pieces';

/** Folders of the store as targets of imports. */

/**
 * Runs work that writes. A full disk throws `storage-full` with the bytes that are missing, everything else that the
 * disk throws is `storage-unavailable`.
 */
export async function writing<T>(disk: Disk, missingBytes: () => number, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof ZoetropeError) throw cause;
    if (isFull(cause)) throw storageFull(Math.max(0, missingBytes()), await disk.room());
    throw new ZoetropeError('storage-unavailable', `The browser's storage failed: ${messageOf(cause)}.`, { cause });
  }
}

/**
 * A folder of the store as an import writes it: a model's or part's layout, with the import's journal among its files.
 * Every write is on the disk when it resolves. Throws as {@link writing} does.
 * @param neededBytes what the import writes at most.
 */
export function storeTarget(disk: Disk, folder: string, neededBytes: number): ResumableFolder {
  const pathOf = (path: string) => (path === MANIFEST_FILE ? path : modelPath(path));
  const sizes = new Map<string, number>();
  const writtenBytes = () => [...sizes.values()].reduce((sum, size) => sum + size, 0);

  const write = <T>(work: () => T | Promise<T>) => writing(disk, () => neededBytes - writtenBytes(), work);
  const sinkOf = (path: string, file: DiskFile): FileSink => ({
    write: (position, bytes) =>
      write(() => {
        if (file.write(position, bytes) < bytes.length) {
          throw new DOMException('The disk took too few bytes.', 'QuotaExceededError');
        }
        file.flush();
        sizes.set(path, Math.max(sizes.get(path) ?? 0, position + bytes.length));
      }),
    close: async () => file.close(),
  });
  const stored = storedFolder(disk, folder);

  return {
    open: (path) => stored.open(path),
    create: (path) =>
      write(async () => {
        const file = await disk.edit(folder, pathOf(path));
        file.clear();
        sizes.delete(path);
        return sinkOf(path, file);
      }),
    async reopen(path) {
      const { sizeBytes } = await stored.open(path);
      sizes.set(path, sizeBytes);
      return write(async () => sinkOf(path, await disk.edit(folder, pathOf(path))));
    },
    remove: (path) =>
      write(async () => {
        await disk.removeFile(folder, pathOf(path));
        sizes.delete(path);
      }),
  };
}
