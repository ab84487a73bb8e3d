import { describe, expect, it } from 'vitest';
import { i420Reference } from '../reference/i420';

/** Bytes of a 2×2 picture of one colour, r, g and b in -1..1: [y, u, v]. */
function flat(r: number, g: number, b: number): number[] {
  const rgb = [r, r, r, r, g, g, g, g, b, b, b, b];
  const [y0, y1, y2, y3, u, v] = i420Reference(rgb, 2, 2);
  expect(new Set([y0, y1, y2, y3]).size).toBe(1);
  return [y0!, u!, v!];
}

describe('i420Reference', () => {
  it('gives the code values of BT.709 colour bars', () => {
    // 100 % bars, ITU-R BT.709 with 8-bit narrow range.
    expect(flat(1, 1, 1)).toEqual([235, 128, 128]);
    expect(flat(-1, -1, -1)).toEqual([16, 128, 128]);
    expect(flat(1, -1, -1)).toEqual([63, 102, 240]);
    expect(flat(-1, 1, -1)).toEqual([173, 42, 26]);
    expect(flat(-1, -1, 1)).toEqual([32, 240, 118]);
    expect(flat(1, 1, -1)).toEqual([219, 16, 138]);
    expect(flat(-1, 1, 1)).toEqual([188, 154, 16]);
    expect(flat(0, 0, 0)).toEqual([126, 128, 128]);
  });

  it('clamps before it converts', () => {
    expect(flat(3, -7, -1.5)).toEqual(flat(1, -1, -1));
  });

  it('averages chroma over 2×2 and keeps luma per pixel, plane after plane', () => {
    // 4×2: left cell half red and half blue, right cell black.
    const red = [1, -1, -1, -1, 1, -1, -1, -1];
    const green = [-1, -1, -1, -1, -1, -1, -1, -1];
    const blue = [-1, 1, -1, -1, -1, 1, -1, -1];
    const out = i420Reference([...red, ...green, ...blue], 4, 2);
    expect([...out]).toEqual([63, 32, 16, 16, 63, 32, 16, 16, 171, 128, 179, 128]);
  });

  it('refuses odd sides and wrong lengths', () => {
    expect(() => i420Reference(new Float64Array(9), 3, 1)).toThrowError(RangeError);
    expect(() => i420Reference(new Float64Array(11), 2, 2)).toThrowError(RangeError);
  });
});
