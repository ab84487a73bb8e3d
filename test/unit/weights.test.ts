import { describe, expect, it } from 'vitest';
import { splitRows } from '../../src/gpu/weights';

describe('splitRows', () => {
  it('leaves what fits in one part', () => {
    expect(splitRows(5120, 2 ** 27, 2 ** 27)).toEqual([5120]);
    expect(splitRows(1, 16, 2 ** 27)).toEqual([1]);
  });

  it("splits A14B's largest matrices for WebGPU's guaranteed 128 MiB", () => {
    // time_projection.1 in 8 bits, ffn.0 in float32.
    expect(splitRows(30_720, 30_720 * 5120, 2 ** 27)).toEqual([15_360, 15_360]);
    expect(splitRows(13_824, 13_824 * 5120 * 4, 2 ** 27)).toEqual([4608, 4608, 4608]);
  });

  it('covers every row once, no part above the limit', () => {
    for (const [rows, rowBytes, limit] of [
      [7, 10, 25],
      [100, 3, 10],
      [13, 1, 1],
    ] as const) {
      const parts = splitRows(rows, rows * rowBytes, limit);
      expect(parts.reduce((sum, part) => sum + part, 0)).toBe(rows);
      for (const part of parts) expect(part * rowBytes).toBeLessThanOrEqual(limit);
    }
  });
});
