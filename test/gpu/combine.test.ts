import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { combine } from '../../kernels/combine';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, seededFloats, type Tolerance } from '../harness/near';
import { combineReference } from '../reference/combine';

/**
 * Coefficients rounded to f32, up to seven f32 operations on values up to 10. Measured 3e-8..6e-8 and 2e-7..8e-7; four
 * times that.
 */
const F32_SUM: Tolerance = { relativeL2: 2.5e-7, maxAbs: 3.5e-6 };

const COEFFICIENTS = [1.5, -0.7312345678, 2 / 3, -0.0123];

/** Elements behind `count` that a launch must leave alone, and what they hold. */
const GUARDS = 9;
const GUARD = 777;

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

/** Sums the tensors; an input without one holds NaN, which any read of it would spread. */
async function sum(count: number, tensors: Float32Array[], coefficients: number[]): Promise<Float32Array> {
  const { gpu } = test;
  const nothing = new Float32Array(count).fill(Number.NaN);
  const bind = (i: number) => gpu.memory.upload('term', 'float32', [count], tensors[i] ?? nothing);
  using a = bind(0);
  using b = bind(1);
  using c = bind(2);
  using d = bind(3);
  const guards = new Float32Array(count + GUARDS).fill(GUARD);
  using out = gpu.memory.upload('out', 'float32', [count + GUARDS], guards);
  await combine.run(gpu, { count, coefficients }, { a, b, c, d, out });
  const values = await gpu.memory.readFloats(out);
  gpu.check();
  expect([...values.slice(count)]).toEqual(new Array(GUARDS).fill(GUARD));
  return values.slice(0, count);
}

describe.each([1, 2, 3, 4])('combine of %i', (terms) => {
  it.each([1, 2, 3, 4, 5, 255, 256, 257, 5120, 100_003])('over %i elements', async (count) => {
    const tensors = Array.from({ length: terms }, (_, i) => seededFloats(100 * terms + i, count));
    const coefficients = COEFFICIENTS.slice(0, terms);
    const expected = combineReference(tensors, coefficients);
    expectNear(await sum(count, tensors, coefficients), expected, F32_SUM, `seeds from ${100 * terms}`);
  });
});

describe('combine', () => {
  it('reads one tensor through several bindings', async () => {
    const { gpu } = test;
    const x = seededFloats(1, 64);
    using a = gpu.memory.upload('a', 'float32', [64], x);
    using out = gpu.memory.tensor('out', 'float32', [64]);
    await combine.run(gpu, { count: 64, coefficients: [2, -1] }, { a, b: a, c: a, d: a, out });
    expectNear(await gpu.memory.readFloats(out), x, F32_SUM, 'x');
  });

  it('folds more elements than a grid has workgroups along an axis', async () => {
    const { gpu } = test;
    const count = 4 * 64 * 65_535 + 3;
    const x = new Float32Array(count).map((_, i) => i % 4099);
    using a = gpu.memory.upload('a', 'float32', [count], x);
    using out = gpu.memory.tensor('out', 'float32', [count]);
    await combine.run(gpu, { count, coefficients: [-2] }, { a, b: a, c: a, d: a, out });
    const values = await gpu.memory.readFloats(out);
    expect(values.findIndex((value, i) => value !== -2 * x[i]!)).toBe(-1);
  });
});
