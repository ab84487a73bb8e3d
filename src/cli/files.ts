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
  constructor(
    private readonly path: string,
    readonly sizeBytes: number,
  ) {}

  async read(begin: number, end: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(end - begin);
    let filled = 0;
    try {
      const file = await open(this.path, 'r');
      try {
        while (filled < bytes.length) {
          const { bytesRead } = await file.read(bytes, filled, bytes.length - filled, begin + filled);
          if (bytesRead === 0) break;
          filled += bytesRead;
        }
      } finally {
        await file.close();
      }
    } catch (error) {
      throw unreadable(this.path, error);
    }
    if (filled < bytes.length) {
      throw new ZoetropeError(
        'unreadable-source',
        `${this.path} ended ${bytes.length - filled} bytes before byte ${end}; it was cut while being read.`,
      );
    }
    return bytes;
  }
}

/** A folder on disk, for reading. */
export function diskFolder(root: string): Folder {
  return {
    async open(path) {
      const full = join(root, path);
      let isFile = false;
      let sizeBytes = 0;
      try {
        const status = await stat(full);
        isFile = status.isFile();
        sizeBytes = status.size;
      } catch (error) {
        throw unreadable(full, error);
      }
      if (!isFile) throw new ZoetropeError('unreadable-source', `${full} is not a file.`);
      return new DiskFile(full, sizeBytes);
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
      close: () => file.close(),
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
      await rm(join(root, path), { force: true });
    },
  };
}

/** A folder on disk in which an import can be continued. */
export function diskTarget(root: string): ResumableFolder {
  return { ...diskSink(root), ...diskFolder(root), reopen: (path) => openSink(join(root, path), 'r+') };
}
