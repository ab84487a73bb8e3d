import type { Stats } from 'node:fs';
import { mkdir, open, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { ResumableFolder } from '../checkpoint/journal';
import { messageOf, ZoetropeError } from '../errors';
import type { ByteSource, FileSink, Folder, FolderSink } from '../manifest';

function unreadable(path: string, error: unknown): ZoetropeError {
  return new ZoetropeError('unreadable-source', `${path} cannot be used: ${messageOf(error)}.`, { cause: error });
}

/** A file on disk. It is opened for each read, so nothing has to be closed and a long import holds no handles. */
class DiskFile implements ByteSource {
  readonly sizeBytes: number;

  /** @param opened the file as it was opened, where another version of it is refused. */
  constructor(
    private readonly path: string,
    { size }: Stats,
    private readonly opened: Stats | undefined,
  ) {
    this.sizeBytes = size;
  }

  async read(begin: number, end: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(end - begin);
    let filled = 0;
    try {
      const file = await open(this.path, 'r');
      try {
        if (this.opened) this.#refuseChange(this.opened, await file.stat());
        while (filled < bytes.length) {
          const { bytesRead } = await file.read(bytes, filled, bytes.length - filled, begin + filled);
          if (bytesRead === 0) break;
          filled += bytesRead;
        }
      } finally {
        await file.close();
      }
    } catch (error) {
      throw error instanceof ZoetropeError ? error : unreadable(this.path, error);
    }
    if (filled < bytes.length) {
      throw new ZoetropeError(
        'unreadable-source',
        `${this.path} ended ${bytes.length - filled} bytes before byte ${end}; it was cut while being read.`,
      );
    }
    return bytes;
  }

  #refuseChange(opened: Stats, now: Stats): void {
    if (now.size === opened.size && now.mtimeMs === opened.mtimeMs) return;
    throw new ZoetropeError('unreadable-source', `${this.path} was changed while it was read. Start again.`);
  }
}

/**
 * A folder on disk, for reading.
 * @param options.unchanged refuse a file that is changed or replaced between two reads: for files that no hash vouches
 * for. Default false.
 */
export function diskFolder(root: string, { unchanged = false } = {}): Folder {
  return {
    async open(path) {
      const full = join(root, path);
      let status: Stats;
      try {
        status = await stat(full);
      } catch (error) {
        throw unreadable(full, error);
      }
      if (!status.isFile()) throw new ZoetropeError('unreadable-source', `${full} is not a file.`);
      return new DiskFile(full, status, unchanged ? status : undefined);
    },
  };
}

/** Opens a file for writing at any position. */
async function openSink(full: string, flags: 'w' | 'r+'): Promise<FileSink> {
  try {
    await mkdir(dirname(full), { recursive: true });
    const file = await open(full, flags);
    return {
      async write(position, bytes) {
        try {
          for (let done = 0; done < bytes.length; ) {
            const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
            done += bytesWritten;
          }
        } catch (error) {
          throw unreadable(full, error);
        }
      },
      // Some file systems tell only now that there was no room.
      close: () => file.close().catch((error) => Promise.reject(unreadable(full, error))),
    };
  } catch (error) {
    throw unreadable(full, error);
  }
}

/** A folder on disk, for writing; it is made when it is not there. */
export function diskSink(root: string): FolderSink {
  return {
    create: (path) => openSink(join(root, path), 'w'),
    async remove(path) {
      const full = join(root, path);
      try {
        await rm(full, { force: true });
      } catch (error) {
        throw unreadable(full, error);
      }
    },
  };
}

/** A folder on disk in which an import can be continued. */
export function diskTarget(root: string): ResumableFolder {
  return { ...diskSink(root), ...diskFolder(root), reopen: (path) => openSink(join(root, path), 'r+') };
}
