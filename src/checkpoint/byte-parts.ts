import type { ByteSource } from '../manifest';

/**
 * Parts of bytes as one file, in their order. They are held as they are, not joined; a read copies what was asked for.
 */
export function partsAsSource(parts: Iterable<Uint8Array>): ByteSource {
  const list: { begin: number; bytes: Uint8Array }[] = [];
  let sizeBytes = 0;
  for (const bytes of parts) {
    list.push({ begin: sizeBytes, bytes });
    sizeBytes += bytes.length;
  }
  return {
    sizeBytes,
    async read(begin, end) {
      const out = new Uint8Array(end - begin);
      for (const part of list) {
        const from = Math.max(begin, part.begin);
        const to = Math.min(end, part.begin + part.bytes.length);
        if (from < to) out.set(part.bytes.subarray(from - part.begin, to - part.begin), from - begin);
      }
      return out;
    },
  };
}
