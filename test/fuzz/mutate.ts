import { latin1, mutateJson } from './json-text';
import type { Random } from './random';

/** Changes inputs of parsers: bytes, and in JSON whole values and members. */

/** How an input is built, so that changes keep the rest of it whole. */
export type Layout =
  /** Any bytes. */
  | 'binary'
  /** The whole input is JSON. */
  | 'json'
  /** A length of eight bytes, JSON of that length, data. */
  | 'safetensors';

/** What an input becomes when parts of others are put into it. */
export interface Material {
  layout: Layout;
  /** Texts that the parser looks for. */
  words: readonly string[];
  /** Other inputs. */
  corpus: readonly Uint8Array[];
  /** Longer inputs are cut. */
  maxBytes: number;
}

/** Lengths and counts at the edges of the types that hold them. */
const EXTREMES = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  2n ** 32n,
  2n ** 40n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n,
];
/**
 * Not UTF-8: a lone continuation, an overlong form, a surrogate, a code point beyond the last, a cut sequence, byte
 * order marks.
 */
const NOT_UTF8 = [
  '\x80',
  '\xc0\x80',
  '\xed\xa0\x80',
  '\xf4\x90\x80\x80',
  '\xe2\x96',
  '\xff',
  '\xef\xbb\xbf',
  '\xfe\xff',
];

/** `bytes` with `count` of them from `at` on replaced by `put`. */
export function spliced(bytes: Uint8Array, at: number, count: number, put: Uint8Array): Uint8Array {
  const out = new Uint8Array(bytes.length - count + put.length);
  out.set(bytes.subarray(0, at));
  out.set(put, at);
  out.set(bytes.subarray(at + count), at + put.length);
  return out;
}

function extreme(random: Random): Uint8Array {
  const bytes = new Uint8Array(random.pick([1, 2, 4, 8]));
  let value = random.pick(EXTREMES);
  for (let i = 0; i < bytes.length; i++, value >>= 8n) bytes[i] = Number(value & 255n);
  return bytes;
}

function varint(random: Random): Uint8Array {
  return Uint8Array.from({ length: 1 + random.below(11) }, (_, i) => (i === 0 ? random.below(256) : 0xff));
}

/** One change of bytes. */
function mutateBytes(bytes: Uint8Array, random: Random, { words, corpus }: Material): Uint8Array {
  const at = random.below(bytes.length + 1);
  const rest = bytes.length - at;
  const some = Math.min(rest, random.length(8));
  switch (random.below(12)) {
    case 0:
    case 1: {
      if (rest === 0) return bytes.slice(0, -1);
      const out = bytes.slice();
      out[at]! ^= 1 << random.below(8);
      return out;
    }
    case 2:
      return spliced(bytes, at, Math.min(rest, 1), Uint8Array.of(random.below(256)));
    case 3: {
      const put = extreme(random);
      return spliced(bytes, at, Math.min(rest, put.length), put);
    }
    case 4:
      return bytes.slice(0, at);
    case 5:
      return spliced(
        bytes,
        at,
        0,
        Uint8Array.from({ length: 1 + random.length(6) }, () => random.below(256)),
      );
    case 6:
      return spliced(bytes, at, some, new Uint8Array(0));
    case 7:
      return spliced(bytes, at, 0, bytes.slice(at, at + some));
    case 8: {
      const other = random.pick(corpus);
      const from = random.below(other.length + 1);
      return spliced(bytes, at, random.chance(0.5) ? some : 0, other.slice(from, from + random.length(8)));
    }
    case 9:
      return spliced(bytes, at, 0, latin1(random.pick(NOT_UTF8)));
    case 10: {
      const put = varint(random);
      return spliced(bytes, at, Math.min(rest, random.below(put.length + 1)), put);
    }
    default:
      return words.length === 0 ? bytes.slice(0, at) : spliced(bytes, at, 0, latin1(random.pick(words)));
  }
}

/** Length field and JSON of a safetensors file, as far as they make sense. */
function jsonRange(bytes: Uint8Array): [begin: number, end: number] {
  if (bytes.length < 8) return [0, bytes.length];
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  return [8, Number(length > BigInt(bytes.length - 8) ? bytes.length : 8n + length)];
}

function mutateFramed(bytes: Uint8Array, random: Random, words: readonly string[]): Uint8Array {
  const [begin, end] = jsonRange(bytes);
  const text = mutateJson(bytes.subarray(begin, end), random, words);
  const out = spliced(bytes, begin, end - begin, text);
  if (begin === 8) new DataView(out.buffer).setBigUint64(0, BigInt(text.length), true);
  return out;
}

/** An input with one to four changes. */
export function mutate(input: Uint8Array, random: Random, material: Material): Uint8Array {
  let bytes = input;
  for (let left = 1 + random.length(2); left > 0; left--) {
    const structured = material.layout !== 'binary' && random.chance(0.7);
    if (!structured) bytes = mutateBytes(bytes, random, material);
    else if (material.layout === 'json') bytes = mutateJson(bytes, random, material.words);
    else bytes = mutateFramed(bytes, random, material.words);
    if (bytes.length > material.maxBytes) bytes = bytes.slice(0, material.maxBytes);
  }
  return bytes;
}
