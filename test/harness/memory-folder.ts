import type { ResumableFolder } from '../../src/checkpoint/journal';
import { ZoetropeError } from '../../src/errors';
import { type FileSink, hashPiece } from '../../src/manifest';

/** A folder in memory, readable and writable. Files hold whatever was written, in any order, zeros between. */
export interface MemoryFolder extends ResumableFolder {
  readonly files: Map<string, Uint8Array>;
  /** Bytes that went through each `read`, in order. */
  readonly reads: { path: string; begin: number; end: number }[];
  /** Paths in the order in which they were created. */
  readonly created: string[];
}

export function memoryFolder(files: Iterable<[path: string, bytes: Uint8Array]> = []): MemoryFolder {
  const sinkOf = (path: string): FileSink => ({
    async write(position, bytes) {
      const content = folder.files.get(path)!;
      if (position + bytes.length <= content.length) return content.set(bytes, position);
      const longer = new Uint8Array(position + bytes.length);
      longer.set(content);
      longer.set(bytes, position);
      folder.files.set(path, longer);
    },
    close: async () => undefined,
  });
  const folder: MemoryFolder = {
    files: new Map(files),
    reads: [],
    created: [],
    async open(path) {
      const bytes = folder.files.get(path);
      if (!bytes) throw new ZoetropeError('unreadable-source', `${path} is not in the folder.`);
      return {
        sizeBytes: bytes.length,
        async read(begin, end) {
          folder.reads.push({ path, begin, end });
          if (end > bytes.length) throw new ZoetropeError('unreadable-source', `${path} ends before byte ${end}.`);
          return bytes.slice(begin, end);
        },
      };
    },
    async create(path) {
      folder.created.push(path);
      folder.files.set(path, new Uint8Array(0));
      return sinkOf(path);
    },
    async reopen(path) {
      if (!folder.files.has(path)) throw new ZoetropeError('unreadable-source', `${path} is not in the folder.`);
      return sinkOf(path);
    },
    async remove(path) {
      folder.files.delete(path);
    },
  };
  return folder;
}

/** Files as hashes, which a failing comparison can print. */
export async function hashes(files: ReadonlyMap<string, Uint8Array>): Promise<[string, string][]> {
  return Promise.all(
    Array.from(files, async ([path, bytes]): Promise<[string, string]> => [path, await hashPiece(bytes)]),
  );
}
