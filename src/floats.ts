import { ZoetropeError } from './errors';
import type { FileDtype } from './manifest';

/** Element types that {@link decodeFloats} reads. */
export type FloatDtype = 'F32' | 'F16' | 'BF16';

/** Smallest normal f16: below it the spacing stays 2^-24 and some GPUs flush to zero. */
export const F16_MIN_NORMAL = 2 ** -14;
/**
 * Bits of the infinite f16: the exponent all ones. Rounding to nearest gives it from 65520 on, half a step above the
 * largest f16.
 */
export const F16_INFINITY = 0x7c00;

/** Moves the exponent bias of f16 bits that were put into an f32's place from 127 to 15; exact, subnormals included. */
const F16_REBIAS = 2 ** 112;

/** Narrows a dtype of a file to those that hold plain floats. */
export function isFloatDtype(dtype: FileDtype): dtype is FloatDtype {
  return dtype === 'F32' || dtype === 'F16' || dtype === 'BF16';
}

/** The bytes as 16-bit words, copied only when they are not aligned. */
function words16(bytes: Uint8Array): Uint16Array {
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
  return new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.length >> 1);
}

/** f16 bits to f32, every value exact, infinities and NaN included. */
export function decodeF16(words: Uint16Array): Float32Array {
  const floats = new Float32Array(words.length);
  const bits = new Uint32Array(floats.buffer);
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if ((word & F16_INFINITY) === F16_INFINITY) {
      bits[i] = ((word & 0x8000) << 16) | 0x7f800000 | ((word & 0x03ff) << 13);
    } else {
      bits[i] = ((word & 0x8000) << 16) | ((word & 0x7fff) << 13);
      floats[i] = floats[i]! * F16_REBIAS;
    }
  }
  return floats;
}

/** Little-endian bytes of floats to f32; every value exact. */
export function decodeFloats(bytes: Uint8Array, dtype: FloatDtype): Float32Array {
  if (dtype === 'F32') {
    const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
    return new Float32Array(aligned.buffer, aligned.byteOffset, aligned.length >> 2);
  }
  const words = words16(bytes);
  if (dtype === 'F16') return decodeF16(words);
  const bits = new Uint32Array(words.length);
  for (let i = 0; i < words.length; i++) bits[i] = words[i]! << 16;
  return new Float32Array(bits.buffer);
}

/** f32 to f16 bits, to nearest with ties to even; beyond the range to infinity, below 2^-25 to zero. */
export function encodeF16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const words = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const sign = (bits[i]! >>> 16) & 0x8000;
    const magnitude = bits[i]! & 0x7fffffff;
    let word: number;
    if (magnitude >= 0x47800000) {
      word = magnitude > 0x7f800000 ? 0x7e00 : F16_INFINITY; // NaN; 65536 and more
    } else if (magnitude >= 0x38800000) {
      // Half a step less one, plus one when the kept part is odd: ties go to even, and 65520 carries into infinity.
      word = (magnitude - 0x38000000 + 0x0fff + ((magnitude >>> 13) & 1)) >>> 13;
    } else {
      // Subnormal: steps of 2^-24. The shift is at least 14; from 25 on only a value above half a step counts.
      const shift = 126 - (magnitude >>> 23);
      const mantissa = (magnitude & 0x007fffff) | 0x00800000;
      if (shift > 24) {
        word = 0;
      } else {
        const kept = mantissa >>> shift;
        const rest = mantissa & ((1 << shift) - 1);
        const half = 1 << (shift - 1);
        word = kept + (rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0);
      }
    }
    words[i] = sign | word;
  }
  return words;
}

/** Values of a typed array as the little-endian bytes of a file. */
export function floatBytes(values: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** Refuses NaN and infinities, which no intact checkpoint holds and which would spread through every product. */
export function refuseNonFinite(values: Float32Array, name: string, first: number): void {
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (value - value !== 0) {
      throw new ZoetropeError(
        'bad-checkpoint',
        `Tensor "${name}" holds ${value} at element ${first + i}. Download the checkpoint again.`,
      );
    }
  }
}
