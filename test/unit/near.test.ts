import { describe, expect, it } from 'vitest';
import { distance, expectNear, seededFloats } from '../harness/near';

describe('expectNear', () => {
  const limits = { relativeL2: 0.1, maxAbs: 0.5 };

  it('accepts values at their limits and refuses what is just beyond', () => {
    expectNear([3, 4.5], [3, 4], limits, 'near');
    expect(() => expectNear([3, 4.51], [3, 4], limits, 'far')).toThrow(/far: relative L2 1.02e-1 \(limit 0.1\)/);
    expect(() => expectNear([100, 1, 0], [100, 0, 0], limits, 'one')).toThrow(
      /1 of 3 elements \(33.3 %\) out of bounds; worst at 1: got 1, expected 0/,
    );
  });

  it('refuses a small error in many elements by the L2 limit alone', () => {
    expect(() => expectNear([0.2, 0.2], [0.1, 0.1], limits, 'drift')).toThrow(/0 of 2 elements/);
  });

  it.each([
    [NaN, 1],
    [1, NaN],
    [Infinity, 1],
    [Infinity, Infinity],
    [NaN, NaN],
  ])('refuses %s for %s', (actual, expected) => {
    const everything = { relativeL2: 1e9, maxAbs: 1e9 };
    expect(() => expectNear([1, actual], [1, expected], everything, 'broken')).toThrow(/worst at 1/);
  });

  it('refuses lists of other lengths, and empty ones, which would prove nothing', () => {
    expect(() => distance([1], [1, 2], 0)).toThrow(/1 values with 2/);
    expect(() => distance([], [], 0)).toThrow(/0 values/);
  });

  it('measures no error against zeros as zero, any error as infinite', () => {
    expect(distance([0, 0], [0, 0], 0).relativeL2).toBe(0);
    expect(distance([0, 1e-9], [0, 0], 1)).toEqual({ relativeL2: Infinity, maxAbs: 1e-9, worst: 1, outside: 0 });
  });
});

describe('seededFloats', () => {
  it('is one sequence a seed, normal with the scale asked for', () => {
    expect(seededFloats(7, 5)).toEqual(seededFloats(7, 6).slice(0, 5));
    expect(seededFloats(7, 5)).not.toEqual(seededFloats(8, 5));
    const values = seededFloats(1, 20_000, 3);
    const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
    const deviation = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
    expect(Math.abs(mean)).toBeLessThan(0.1);
    expect(Math.abs(deviation - 3)).toBeLessThan(0.1);
    expect(values.every(Number.isFinite)).toBe(true);
  });
});
