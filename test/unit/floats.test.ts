import { describe, expect, it } from 'vitest';
import { decodeF16, decodeFloats, encodeF16, floatBytes, refuseNonFinite } from '../../src/floats';
import { seededUniform } from '../harness/near';

/** f16 bits to a number by the definition, for every pattern that is not infinite or NaN. */
function f16Value(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  const magnitude = exponent === 0 ? mantissa * 2 ** -24 : (1 + mantissa / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -magnitude : magnitude;
}

const finite = Uint16Array.from({ length: 65536 }, (_, bits) => bits).filter((bits) => (bits & 0x7c00) !== 0x7c00);

describe('half floats', () => {
  it('are decoded exactly, all 63,488 finite ones', () => {
    const floats = decodeF16(finite);
    for (let i = 0; i < finite.length; i++) {
      if (!Object.is(floats[i], f16Value(finite[i]!))) throw new Error(`${finite[i]} became ${floats[i]}`);
    }
  });

  it('come back from f32 unchanged', () => {
    expect(encodeF16(decodeF16(finite))).toEqual(finite);
  });

  it('keep infinities and NaN', () => {
    expect([...decodeF16(Uint16Array.of(0x7c00, 0xfc00, 0x7e01, 0xfc01))]).toEqual([Infinity, -Infinity, NaN, NaN]);
    expect([...encodeF16(Float32Array.of(Infinity, -Infinity, NaN))]).toEqual([0x7c00, 0xfc00, 0x7e00]);
  });

  it('are the nearest, ties to even, between any two neighbours', () => {
    const uniform = seededUniform(1);
    for (let bits = 0; bits < 0x7bff; bits++) {
      const low = f16Value(bits);
      const high = f16Value(bits + 1);
      const tie = (low + high) / 2; // 12 significant bits: exact in f32
      const below = Math.fround(tie - (tie - low) * (0.001 + 0.9 * uniform()));
      const above = Math.fround(tie + (high - tie) * (0.001 + 0.9 * uniform()));
      const even = bits % 2 === 0 ? bits : bits + 1;
      const words = encodeF16(Float32Array.of(tie, below, above, -tie));
      if (words[0] !== even || words[1] !== bits || words[2] !== bits + 1 || words[3] !== (even | 0x8000)) {
        throw new Error(`round ${low} and ${high}: ${words}`);
      }
    }
  });

  it('overflow from 65520 on and vanish up to 2^-25', () => {
    const nextBelow = Math.fround(65520 - 2 ** -8);
    const nextAbove = Math.fround(2 ** -25 * (1 + 2 ** -23));
    const values = Float32Array.of(nextBelow, 65520, 65536, 3e38, 2 ** -25, nextAbove, 2 ** -149, -0);
    expect([...encodeF16(values)]).toEqual([0x7bff, 0x7c00, 0x7c00, 0x7c00, 0, 1, 0, 0x8000]);
  });
});

describe('decodeFloats', () => {
  const values = Float32Array.of(1, -2.5, 0.15625, 3.0e38);

  it.each([0, 1, 2, 3])('reads F32 and BF16 at any alignment (%i)', (offset) => {
    const place = (bytes: Uint8Array) => {
      const buffer = new Uint8Array(offset + bytes.length);
      buffer.set(bytes, offset);
      return buffer.subarray(offset);
    };
    expect(decodeFloats(place(floatBytes(values)), 'F32')).toEqual(values);
    // 1, -2.5, 0.15625 have few bits; BF16 is the upper half of an f32.
    const upper = Uint16Array.from(new Uint32Array(values.slice(0, 3).buffer), (bits) => bits >>> 16);
    expect(decodeFloats(place(floatBytes(upper)), 'BF16')).toEqual(values.slice(0, 3));
    expect(decodeFloats(place(floatBytes(encodeF16(values.slice(0, 3)))), 'F16')).toEqual(values.slice(0, 3));
  });
});

it.each([NaN, Infinity, -Infinity])('refuses %d with its place', (value) => {
  expect(() => refuseNonFinite(Float32Array.of(1, value), 'a.weight', 10)).toThrow(
    `"a.weight" holds ${value} at element 11`,
  );
  expect(() => refuseNonFinite(Float32Array.of(1, 3.4e38, -0), 'a.weight', 0)).not.toThrow();
});
