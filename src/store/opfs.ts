import { messageOf, ZoetropeError } from '../errors';
import type { ByteSource } from '../manifest';
import { fillFrom, Shuttle } from './chunks';
import type { Disk, DiskFile } from './disk';

/** The browser's private file system as a {@link Disk}. Only workers can write to it this way. */

/** A file handle as workers know it; TypeScript's library for pages lacks the methods. */
interface WritableHandle extends FileSystemFileHandle {
  createSyncAccessHandle(): Promise<{
    getSize(): number;
    read(buffer: Uint8Array<ArrayBuffer>, options: { at: number }): number;
    write(bytes: Uint8Array<ArrayBuffer>, options: { at: number }): number;
    truncate(sizeBytes: number): void;
    flush(): void;
    close(): void;
  }>;
  move(folder: FileSystemDirectoryHandle, name: string): Promise<void>;
}

/** Waits for a file's last writer: that of a worker that was terminated lets go a moment after the worker's locks. */
async function accessHandle(entry: WritableHandle): ReturnType<WritableHandle['createSyncAccessHandle']> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await entry.createSyncAccessHandle();
    } catch (error) {
      const taken = error instanceof DOMException && error.name === 'NoModificationAllowedError';
      if (!taken || attempt === 20) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** FILE_ERROR_NO_SPACE of Chromium's base/files/file.h. */
const NO_SPACE = -8;

/**
 * Bytes read or written. Chromium 153 throws for a failure in most windows; in those that keep nothing it returns the
 * failure's negative code as an unsigned number: 4294967288 when there is no more room.
 */
function checkCount(count: number, { length }: Uint8Array): number {
  if (count <= length) return count;
  const code = count | 0;
  throw new DOMException(
    `The browser's file failed with code ${code}.`,
    code === NO_SPACE ? 'QuotaExceededError' : 'InvalidStateError',
  );
}

/** Folder of the models; the rest of the origin's files are none of their business. */
export const MODELS_ROOT = 'zoetrope-models';

function unreadable(path: string, error: unknown): ZoetropeError {
  return new ZoetropeError('unreadable-source', `The stored file ${path} cannot be used: ${messageOf(error)}.`, {
    cause: error,
  });
}

/**
 * Opens a folder of folders in the private file system of this origin. Throws `storage-unavailable` where the browser
 * has none: outside https and localhost, and in the private windows of some browsers.
 * @param root name of the folder; it is made when something is first written.
 */
export async function openOpfs(storage: StorageManager | undefined, root: string): Promise<Disk> {
  let origin: FileSystemDirectoryHandle;
  try {
    if (!storage?.getDirectory) throw new TypeError('navigator.storage.getDirectory is missing');
    origin = await storage.getDirectory();
  } catch (cause) {
    throw new ZoetropeError(
      'storage-unavailable',
      `This browser stores no files for this page (${messageOf(cause)}). Open it over https or from localhost, in a window that is not private.`,
      { cause },
    );
  }
  /**
   * The folder and the name of a path; folders are made when `create` is set, else a missing one throws NotFoundError.
   */
  const locate = async (folder: string, path: string, create: boolean) => {
    const names = [root, folder, ...path.split('/')];
    let directory = origin;
    for (const name of names.slice(0, -1)) directory = await directory.getDirectoryHandle(name, { create });
    return { directory, name: names.at(-1)! };
  };
  const file = async (folder: string, path: string): Promise<File> => {
    const { directory, name } = await locate(folder, path, false);
    return (await directory.getFileHandle(name)).getFile();
  };
  const shuttles: Shuttle[] = [];
  const fill = async (folder: string, path: string, begin: number, buffer: Uint8Array): Promise<void> => {
    const end = begin + buffer.length;
    const shuttle = shuttles.pop() ?? new Shuttle();
    try {
      // Anew for each read: a `File` is no longer readable once its file has been written to, as repairs do.
      const part = (await file(folder, path)).slice(begin, end);
      if (part.size < buffer.length) throw new Error(`it ends before byte ${end}`);
      const { filled } = await fillFrom(part.stream(), buffer, shuttle);
      if (filled < buffer.length) throw new Error(`it broke off at byte ${begin + filled}`);
    } catch (error) {
      throw unreadable(path, error);
    } finally {
      shuttles.push(shuttle);
    }
  };
  return {
    async folders() {
      const names: string[] = [];
      const all = await origin.getDirectoryHandle(root, { create: false }).catch((error: unknown) => {
        if (error instanceof DOMException && error.name === 'NotFoundError') return undefined;
        throw error;
      });
      if (all) for await (const [name, { kind }] of all.entries()) if (kind === 'directory') names.push(name);
      return names.sort();
    },

    // Read through `File`, which needs no lock, so that several tabs can read one model; a sync access handle has the
    // file alone.
    async open(folder, path): Promise<ByteSource> {
      try {
        const { size } = await file(folder, path);
        return {
          sizeBytes: size,
          async read(begin, end) {
            const bytes = new Uint8Array(end - begin);
            await fill(folder, path, begin, bytes);
            return bytes;
          },
          readInto: (begin, buffer) => fill(folder, path, begin, buffer),
        };
      } catch (error) {
        throw unreadable(path, error);
      }
    },

    async edit(folder, path): Promise<DiskFile> {
      const { directory, name } = await locate(folder, path, true);
      const entry = (await directory.getFileHandle(name, { create: true })) as WritableHandle;
      const handle = await accessHandle(entry);
      return {
        sizeBytes: () => handle.getSize(),
        read: (at, buffer) => checkCount(handle.read(buffer as Uint8Array<ArrayBuffer>, { at }), buffer),
        write: (at, bytes) => checkCount(handle.write(bytes as Uint8Array<ArrayBuffer>, { at }), bytes),
        clear: () => handle.truncate(0),
        flush: () => handle.flush(),
        close: () => handle.close(),
      };
    },

    async move(folder, path, to) {
      const from = await locate(folder, path, false);
      const { directory, name } = await locate(to, path, true);
      await ((await from.directory.getFileHandle(from.name)) as WritableHandle).move(directory, name);
    },

    async remove(folder) {
      const all = await origin.getDirectoryHandle(root, { create: true });
      await all.removeEntry(folder, { recursive: true });
    },

    async removeFile(folder, path) {
      try {
        const { directory, name } = await locate(folder, path, false);
        await directory.removeEntry(name);
      } catch (error) {
        if (!(error instanceof DOMException && error.name === 'NotFoundError')) throw error;
      }
    },

    async room() {
      const { usage = 0, quota = 0 } = await storage.estimate();
      return { usedBytes: usage, quotaBytes: quota };
    },
  };
}
