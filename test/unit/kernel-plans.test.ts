import { describe, expect, it } from 'vitest';
import { combine } from '../../kernels/combine';
import { i420, i420Bytes } from '../../kernels/i420';
import { type QkNormRopeShape, qkNormRope } from '../../kernels/qk-norm-rope';
import { ZoetropeError } from '../../src/errors';

/** A misfit would read or write past a buffer, where WebGPU clamps silently: plans refuse it. */
function expectRefusal(call: () => unknown, words: string): void {
  expect(call).toThrow(words);
  expect(call).toThrow(ZoetropeError);
}

describe('the plan of qk-norm-rope', () => {
  const fits: QkNormRopeShape = {
    type: 'f32',
    tokens: 4,
    dim: 512,
    heads: 2,
    headOffset: 2,
    norm: true,
    rope: true,
    outTokens: 10,
    storeOffset: 6,
    ropeOffset: 8,
    grid: [1, 3, 4],
    eps: 1e-6,
  };

  it('takes the last heads, rows and positions', () => {
    const { prelude, params, groups } = qkNormRope.plan(fits);
    expect(prelude).toEqual({ T: 'f32', DIM: 512, NORM: true, ROPE: true });
    expect(params).toEqual([4, 2, 2, 10, 6, 8, 1, 3, 4, { f32: 1e-6 }]);
    expect(groups).toEqual([4, 1, 1]);
  });

  it.each<[Partial<QkNormRopeShape>, string]>([
    [{ dim: 500 }, 'got 500'],
    [{ dim: 0 }, 'got 0'],
    [{ headOffset: 3 }, 'heads 3..5 of 4'],
    [{ headOffset: -1 }, 'heads -1..1 of 4'],
    [{ heads: 0 }, 'heads 2..2 of 4'],
    [{ storeOffset: 7 }, 'rows 7..11 of 10'],
    [{ storeOffset: -1 }, 'rows -1..3 of 10'],
    [{ tokens: 0 }, 'rows 6..6 of 10'],
    [{ ropeOffset: 9 }, 'tokens 9..13 of a grid [1,3,4]'],
    [{ ropeOffset: -1 }, 'tokens -1..3 of a grid [1,3,4]'],
  ])('refuses %o', (misfit, words) => {
    expectRefusal(() => qkNormRope.plan({ ...fits, ...misfit }), words);
  });

  it('does not look at positions without rotation', () => {
    expect(() => qkNormRope.plan({ ...fits, rope: false, ropeOffset: 99 })).not.toThrow();
  });
});

describe('the plan of combine', () => {
  it('gives four elements to a lane and zero to the missing terms', () => {
    expect(combine.plan({ count: 257, coefficients: [0.5, 2] })).toEqual({
      prelude: { TERMS: 2 },
      overrides: { WORKGROUP: 64 },
      params: [257, { f32: 0.5 }, { f32: 2 }, { f32: 0 }, { f32: 0 }],
      groups: [2, 1, 1],
    });
  });

  it.each<[number, number[], string]>([
    [0, [1], 'got 0'],
    [1.5, [1], 'got 1.5'],
    [4, [], 'got []'],
    [4, [1, 1, 1, 1, 1], 'got [1,1,1,1,1]'],
    [4, [1, Number.NaN], 'got [1,NaN]'],
    [4, [Infinity], 'got [Infinity]'],
  ])('refuses %d elements with %o', (count, coefficients, words) => {
    expectRefusal(() => combine.plan({ count, coefficients }), words);
  });
});

describe('the plan of i420', () => {
  it('makes 8 × 2 pixels in a lane', () => {
    expect(i420Bytes(1280, 720)).toBe(1_382_400);
    expect(i420.plan({ width: 1280, height: 720, frames: 4, frame: 3 })).toEqual({
      prelude: {},
      overrides: { WORKGROUP: 64 },
      params: [4, 3, 720, 1280],
      groups: [900, 1, 1],
    });
  });

  it.each([
    [{ width: 24, height: 16, frames: 1, frame: 0 }, 'got 24×16'],
    [{ width: 16, height: 8, frames: 1, frame: 0 }, 'got 16×8'],
    [{ width: 0, height: 16, frames: 1, frame: 0 }, 'got 0×16'],
    [{ width: 16, height: 16, frames: 2, frame: 2 }, 'from 0 to 1, got 2'],
    [{ width: 16, height: 16, frames: 2, frame: -1 }, 'from 0 to 1, got -1'],
  ])('refuses %o', (shape, words) => {
    expectRefusal(() => i420.plan(shape), words);
  });
});
