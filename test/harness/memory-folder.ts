import { ZoetropeError } from '../../src/errors';
import type { Folder, FolderSink } from '../../src/manifest';

/** A folder in memory, readable and writable. Files hold whatever was written, in any order, zeros between. */
export interface MemoryFolder extends Folder, FolderSink {
  readonly files: Map<string, Uint8Array>;
  /** Bytes that went through each `read`, in order. */
  readonly reads: { path: string; begin: number; end: number }[];
  /** Paths in the order in which they were created. */
  readonly created: string[];
}

export function memoryFolder(files: Iterable<[path: string, bytes: Uint8Array]> = []): MemoryFolder {
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
      let content = new Uint8Array(0);
      folder.files.set(path, content);
      return {
        async write(position, bytes) {
          if (position + bytes.length > content.length) {
            const longer = new Uint8Array(position + bytes.length);
            longer.set(content);
            content = longer;
            folder.files.set(path, content);
          }
          content.set(bytes, position);
        },
        close: async () => undefined,
      };
    },
    async remove(path) {
      folder.files.delete(path);
    },
  };
  return folder;
}
