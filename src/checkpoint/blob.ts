import { messageOf, ZoetropeError } from '../errors';
import type { ByteSource } from '../manifest';

/**
 * A file that a person chose in a browser, or any other Blob; `path` names it in errors. Reading throws
 * `unreadable-source`, e.g. when the file was changed or removed since it was chosen.
 */
export function blobSource(blob: Blob, path: string): ByteSource {
  return {
    sizeBytes: blob.size,
    async read(begin, end) {
      let bytes: Uint8Array;
      try {
        bytes = new Uint8Array(await blob.slice(begin, end).arrayBuffer());
      } catch (error) {
        const why = `${path} cannot be read: ${messageOf(error)}. Choose the file again.`;
        throw new ZoetropeError('unreadable-source', why, { cause: error });
      }
      if (bytes.length === end - begin) return bytes;
      throw new ZoetropeError('unreadable-source', `${path} ended before byte ${end}. Choose the file again.`);
    },
  };
}
