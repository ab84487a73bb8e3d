import { QUANT_BLOCK } from '../manifest';
import type { QuantizedRows } from './quantize';

/**
 * The block layouts of GGUF that Wan and UMT5 files use, decoded to f32 (ggml `src/ggml-common.h`, `ggml-quants.c`).
 * Numbers inside a block are little-endian; a block never crosses a row.
 */

/** One storage type of GGUF. */
export interface GgufType {
  name: string;
  /** Values of a block. */
  values: number;
  /** Bytes of a block. */
  bytes: number;
  /**
   * Decodes one block at byte `at` into `out` from `to` on; absent for the plain floats, which `decodeFloats` reads.
   */
  decode?: (b: Uint8Array, at: number, out: Float32Array, to: number) => void;
}

/** Two to the power of an f16's exponent field less 25, the weight of its last mantissa bit; field 0 is subnormal. */
const F16_STEP = Float64Array.from({ length: 31 }, (_, field) => 2 ** (Math.max(field, 1) - 25));

/** The f16 at byte `at`, exact; subnormals, infinities and NaN included. */
function half(b: Uint8Array, at: number): number {
  const word = b[at]! | (b[at + 1]! << 8);
  const field = (word >> 10) & 31;
  const mantissa = word & 0x3ff;
  const sign = word & 0x8000 ? -1 : 1;
  if (field === 31) return mantissa === 0 ? sign * Infinity : NaN;
  return sign * (field === 0 ? mantissa : mantissa | 0x400) * F16_STEP[field]!;
}

function int8(byte: number): number {
  return (byte << 24) >> 24;
}

/** Nibbles of Q4_0 and Q4_1 to whole numbers: the low ones are the first 16 values, the high ones the last. */
function nibbles(b: Uint8Array, qs: number, out: Float32Array, to: number): void {
  for (let j = 0; j < 16; j++) {
    const byte = b[qs + j]!;
    out[to + j] = byte & 15;
    out[to + 16 + j] = byte >> 4;
  }
}

/** Q5_0 and Q5_1: as above with a fifth bit of each value in a 32-bit word in front. */
function fiveBits(b: Uint8Array, qh: number, out: Float32Array, to: number): void {
  const qs = qh + 4;
  for (let j = 0; j < 16; j++) {
    const byte = b[qs + j]!;
    const low = (b[qh + (j >> 3)]! >> (j & 7)) & 1;
    const high = (b[qh + 2 + (j >> 3)]! >> (j & 7)) & 1;
    out[to + j] = (byte & 15) | (low << 4);
    out[to + 16 + j] = (byte >> 4) | (high << 4);
  }
}

/** (q - zero) * scale: a product, so that zeros have the sign that the reference gives them. */
function centre(out: Float32Array, to: number, zero: number, scale: number): void {
  for (let j = to; j < to + 32; j++) out[j] = (out[j]! - zero) * scale;
}

/** q * scale + minimum. */
function raise(out: Float32Array, to: number, scale: number, minimum: number): void {
  for (let j = to; j < to + 32; j++) out[j] = out[j]! * scale + minimum;
}

/** Six-bit scale and minimum of sub-block j of Q4_K and Q5_K, packed in the 12 bytes from `s` on. */
function scaleOf(b: Uint8Array, s: number, j: number): number {
  return j < 4 ? b[s + j]! & 63 : (b[s + j + 4]! & 15) | ((b[s + j - 4]! >> 6) << 4);
}
function minimumOf(b: Uint8Array, s: number, j: number): number {
  return j < 4 ? b[s + j + 4]! & 63 : (b[s + j + 4]! >> 4) | ((b[s + j]! >> 6) << 4);
}

function decodeQ2K(b: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = half(b, at + 80);
  const dmin = half(b, at + 82);
  for (let group = 0; group < 16; group++) {
    const h = group >> 3;
    const k = (group >> 1) & 3;
    const l = (group & 1) * 16;
    const t = b[at + group]!;
    const scale = d * (t & 15);
    const minimum = dmin * (t >> 4);
    const qs = at + 16 + 32 * h + l;
    const y = to + 16 * group;
    for (let i = 0; i < 16; i++) out[y + i] = scale * ((b[qs + i]! >> (2 * k)) & 3) - minimum;
  }
}

function decodeQ3K(b: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = half(b, at + 108);
  const s = at + 96;
  for (let j = 0; j < 16; j++) {
    const low = j < 8 ? b[s + j]! & 15 : b[s + j - 8]! >> 4;
    const high = (b[s + 8 + (j & 3)]! >> (2 * (j >> 2))) & 3;
    const scale = d * ((low | (high << 4)) - 32);
    const h = j >> 3;
    const k = (j >> 1) & 3;
    const l = (j & 1) * 16;
    const qs = at + 32 + 32 * h + l;
    const y = to + 16 * j;
    for (let i = 0; i < 16; i++) {
      const bit = (b[at + l + i]! >> (4 * h + k)) & 1;
      out[y + i] = scale * (((b[qs + i]! >> (2 * k)) & 3) - (bit ? 0 : 4));
    }
  }
}

function decodeQ4K(b: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = half(b, at);
  const dmin = half(b, at + 2);
  for (let j = 0; j < 8; j++) {
    const scale = d * scaleOf(b, at + 4, j);
    const minimum = dmin * minimumOf(b, at + 4, j);
    const qs = at + 16 + 32 * (j >> 1);
    const shift = 4 * (j & 1);
    for (let l = 0; l < 32; l++) out[to + 32 * j + l] = scale * ((b[qs + l]! >> shift) & 15) - minimum;
  }
}

function decodeQ5K(b: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = half(b, at);
  const dmin = half(b, at + 2);
  for (let j = 0; j < 8; j++) {
    const scale = d * scaleOf(b, at + 4, j);
    const minimum = dmin * minimumOf(b, at + 4, j);
    const qs = at + 48 + 32 * (j >> 1);
    const shift = 4 * (j & 1);
    for (let l = 0; l < 32; l++) {
      const q = ((b[qs + l]! >> shift) & 15) | (((b[at + 16 + l]! >> j) & 1) << 4);
      out[to + 32 * j + l] = scale * q - minimum;
    }
  }
}

function decodeQ6K(b: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = half(b, at + 208);
  for (let group = 0; group < 16; group++) {
    const h = group >> 3;
    const k = (group >> 1) & 3;
    const l = (group & 1) * 16;
    const scale = d * int8(b[at + 192 + group]!);
    const ql = at + 64 * h + 32 * (k & 1) + l;
    const qh = at + 128 + 32 * h + l;
    const y = to + 16 * group;
    for (let i = 0; i < 16; i++) {
      const q = ((b[ql + i]! >> (4 * (k >> 1))) & 15) | (((b[qh + i]! >> (2 * k)) & 3) << 4);
      out[y + i] = scale * (q - 32);
    }
  }
}

/** The sixteen levels of IQ4_NL and IQ4_XS: `kvalues_iq4nl` of ggml. */
const IQ4_LEVELS = Int8Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

function levels(b: Uint8Array, qs: number, out: Float32Array, to: number, scale: number): void {
  for (let j = 0; j < 16; j++) {
    out[to + j] = scale * IQ4_LEVELS[b[qs + j]! & 15]!;
    out[to + 16 + j] = scale * IQ4_LEVELS[b[qs + j]! >> 4]!;
  }
}

function decodeIQ4XS(b: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = half(b, at);
  const high = b[at + 2]! | (b[at + 3]! << 8);
  for (let k = 0; k < 8; k++) {
    const low = (b[at + 4 + (k >> 1)]! >> (4 * (k & 1))) & 15;
    const scale = d * ((low | (((high >> (2 * k)) & 3) << 4)) - 32);
    levels(b, at + 8 + 16 * k, out, to + 32 * k, scale);
  }
}

/** Types by their number in the file: `ggml_type` of ggml's `include/ggml.h`. Numbers that are missing are refused. */
export const GGUF_TYPES: ReadonlyMap<number, GgufType> = new Map<number, GgufType>([
  [0, { name: 'F32', values: 1, bytes: 4 }],
  [1, { name: 'F16', values: 1, bytes: 2 }],
  [
    2,
    {
      name: 'Q4_0',
      values: 32,
      bytes: 18,
      decode: (b, at, out, to) => {
        nibbles(b, at + 2, out, to);
        centre(out, to, 8, half(b, at));
      },
    },
  ],
  [
    3,
    {
      name: 'Q4_1',
      values: 32,
      bytes: 20,
      decode: (b, at, out, to) => {
        nibbles(b, at + 4, out, to);
        raise(out, to, half(b, at), half(b, at + 2));
      },
    },
  ],
  [
    6,
    {
      name: 'Q5_0',
      values: 32,
      bytes: 22,
      decode: (b, at, out, to) => {
        fiveBits(b, at + 2, out, to);
        centre(out, to, 16, half(b, at));
      },
    },
  ],
  [
    7,
    {
      name: 'Q5_1',
      values: 32,
      bytes: 24,
      decode: (b, at, out, to) => {
        fiveBits(b, at + 4, out, to);
        raise(out, to, half(b, at), half(b, at + 2));
      },
    },
  ],
  [
    8,
    {
      name: 'Q8_0',
      values: 32,
      bytes: 34,
      decode: (b, at, out, to) => {
        const d = half(b, at);
        for (let j = 0; j < 32; j++) out[to + j] = int8(b[at + 2 + j]!) * d;
      },
    },
  ],
  [10, { name: 'Q2_K', values: 256, bytes: 84, decode: decodeQ2K }],
  [11, { name: 'Q3_K', values: 256, bytes: 110, decode: decodeQ3K }],
  [12, { name: 'Q4_K', values: 256, bytes: 144, decode: decodeQ4K }],
  [13, { name: 'Q5_K', values: 256, bytes: 176, decode: decodeQ5K }],
  [14, { name: 'Q6_K', values: 256, bytes: 210, decode: decodeQ6K }],
  [
    20,
    {
      name: 'IQ4_NL',
      values: 32,
      bytes: 18,
      decode: (b, at, out, to) => levels(b, at + 2, out, to, half(b, at)),
    },
  ],
  [23, { name: 'IQ4_XS', values: 256, bytes: 136, decode: decodeIQ4XS }],
  [30, { name: 'BF16', values: 1, bytes: 2 }],
]);

/** Whole blocks of a quantised type to f32. */
export function decodeBlocks(type: GgufType, bytes: Uint8Array): Float32Array {
  const blocks = bytes.length / type.bytes;
  const out = new Float32Array(blocks * type.values);
  for (let block = 0; block < blocks; block++) type.decode!(bytes, block * type.bytes, out, block * type.values);
  return out;
}

/**
 * Blocks of Q8_0 or Q4_0 in our layout of `bits` bits, without a change to any value: the scale is the block's own f16,
 * and the stored integers are only moved (Q4_0 in 8 bits is q - 8 + 128 at the same scale). Q8_0 in 4 bits does not
 * exist.
 */
export function repackBlocks(type: GgufType, bytes: Uint8Array, bits: 4 | 8): QuantizedRows {
  const blocks = bytes.length / type.bytes;
  const packed = new Uint8Array((blocks * QUANT_BLOCK * bits) / 8);
  const scales = new Float32Array(blocks);
  for (let block = 0; block < blocks; block++) {
    const at = block * type.bytes;
    const qs = at + 2;
    scales[block] = half(bytes, at);
    if (type.name === 'Q8_0') {
      const to = block * 32;
      for (let j = 0; j < 32; j++) packed[to + j] = bytes[qs + j]! ^ 0x80; // two's complement to round 128
    } else if (bits === 8) {
      const to = block * 32;
      for (let j = 0; j < 16; j++) {
        packed[to + j] = (bytes[qs + j]! & 15) + 120;
        packed[to + 16 + j] = (bytes[qs + j]! >> 4) + 120;
      }
    } else {
      // There value j and j + 16 share a byte, here value 2i and 2i + 1.
      const to = block * 16;
      for (let i = 0; i < 8; i++) {
        const a = bytes[qs + 2 * i]!;
        const b = bytes[qs + 2 * i + 1]!;
        packed[to + i] = (a & 15) | ((b & 15) << 4);
        packed[to + 8 + i] = (a >> 4) | (b & 0xf0);
      }
    }
  }
  return { packed, scales, zeroPoints: new Uint8Array(blocks).fill(bits === 8 ? 128 : 8) };
}
