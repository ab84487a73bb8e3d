import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { residualApply } from '../../kernels/residual-apply';
import { residualStore } from '../../kernels/residual-store';
import type { DitConfig } from '../../src/config';
import type { DitPlan } from '../../src/diffusion/activations';
import { Residuals } from '../../src/diffusion/residuals';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, seededFloats, type Tolerance } from '../harness/near';
import { residualApplyReference } from '../reference/residual-apply';
import { residualStoreReference } from '../reference/residual-store';

/**
 * Half floats round by up to 2^-11 of an element, 4.9e-4, on average by about a third of it; relative to the largest
 * element.
 */
const HALVES: Tolerance = { relativeL2: 3e-4, maxAbs: 4.9e-4 };
/** Two f32 roundings of values up to 10. */
const F32: Tolerance = { relativeL2: 2e-7, maxAbs: 2e-6 };

/** Numbers behind the end that a launch must leave alone, and what they hold. */
const GUARDS = 8;
const GUARD = 0x5a5a5a5a;

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

async function store(tokens: number, dim: number, x: Float32Array, embedded: Float32Array) {
  const { gpu } = test;
  const words = (tokens * dim) / 2;
  using xs = gpu.memory.upload('x', 'float32', [tokens, dim], x);
  using es = gpu.memory.upload('embedded', 'float32', [tokens, dim], embedded);
  using packed = gpu.memory.upload('packed', 'uint32', [words + GUARDS], new Uint32Array(words + GUARDS).fill(GUARD));
  const guards = new Float32Array(2 * tokens + GUARDS).fill(777);
  using sizes = gpu.memory.upload('sizes', 'float32', [2 * tokens + GUARDS], guards);
  await residualStore.run(gpu, { tokens, dim }, { x: xs, embedded: es, packed, sizes });
  const stored = new Uint32Array((await gpu.memory.read(packed)).buffer);
  const sizeValues = await gpu.memory.readFloats(sizes);
  gpu.check();
  expect([...stored.slice(words)]).toEqual(Array(GUARDS).fill(GUARD));
  expect([...sizeValues.slice(2 * tokens)]).toEqual(Array(GUARDS).fill(777));
  return { packed: stored.slice(0, words), sizes: sizeValues.slice(0, 2 * tokens) };
}

async function apply(tokens: number, dim: number, x: Float32Array, packed: Uint32Array, sizes: Float32Array) {
  const { gpu } = test;
  const guarded = new Float32Array(tokens * dim + GUARDS).fill(777);
  guarded.set(x);
  using xs = gpu.memory.upload('x', 'float32', [tokens * dim + GUARDS], guarded);
  using ps = gpu.memory.upload('packed', 'uint32', [packed.length], packed);
  using ss = gpu.memory.upload('sizes', 'float32', [sizes.length], sizes);
  await residualApply.run(gpu, { tokens, dim }, { x: xs, packed: ps, sizes: ss });
  const values = await gpu.memory.readFloats(xs);
  gpu.check();
  expect([...values.slice(tokens * dim)]).toEqual(Array(GUARDS).fill(777));
  return values.slice(0, tokens * dim);
}

describe('residuals', () => {
  it.each([
    [1, 4],
    [3, 256],
    [80, 260],
    [17, 5120],
    [70_001, 4], // more tokens than an axis has workgroups
  ])('of %i tokens of %i channels come back as they were kept', async (tokens, dim) => {
    const x = seededFloats(1, tokens * dim, 3);
    const embedded = seededFloats(2, tokens * dim);
    const { residual, norms } = residualStoreReference(x, embedded, dim);
    const { packed, sizes } = await store(tokens, dim, x, embedded);
    expectNear(
      sizes.filter((_, i) => i % 2 === 1),
      norms,
      { relativeL2: 1e-6, maxAbs: 1e-3 },
      'norms, seeds 1, 2',
    );
    const zero = await apply(tokens, dim, new Float32Array(tokens * dim), packed, sizes);
    const peak = residual.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    expectNear(
      zero.map((value) => value / peak),
      residual.map((value) => value / peak),
      HALVES,
      'residual, seeds 1, 2',
    );
    const onto = await apply(tokens, dim, embedded, packed, sizes);
    expectNear(onto, residualApplyReference(embedded, new Uint16Array(packed.buffer), sizes, dim), F32, 'sum, seed 2');
  });

  it('keep their precision at any magnitude, each token by itself', async () => {
    const dim = 128;
    const scales = [0, 1e-36, 1e-20, 1e-4, 1, 7e4, 1e6, 1e20];
    const unit = seededFloats(3, dim);
    const x = Float32Array.from(scales.flatMap((scale) => [...unit].map((value) => scale * value)));
    const { packed, sizes } = await store(scales.length, dim, x, new Float32Array(x.length));
    const values = await apply(scales.length, dim, new Float32Array(x.length), packed, sizes);
    for (const [token, scale] of scales.entries()) {
      const row = values.subarray(token * dim, (token + 1) * dim);
      // Of the smallest the reciprocal of the scale would be infinite.
      if (scale < 1e-30) expect(row.every((value) => value === 0)).toBe(true);
      else
        expectNear(
          row.map((value) => value / scale),
          unit,
          { relativeL2: 3e-4, maxAbs: 3e-3 },
          `scale ${scale}, seed 3`,
        );
    }
  });

  it('tell the norm of each token, branch by branch, over the chunks of the sequence', async () => {
    const { gpu } = test;
    const [tokens, dim] = [5, 128];
    const chunks = [
      { index: 0, begin: 0, tokens: 3 },
      { index: 1, begin: 3, tokens: 2 },
    ];
    const plan = { chunks, tokens } as unknown as DitPlan;
    using residuals = new Residuals(gpu, { dim } as DitConfig, plan, 2);
    for (const branch of [0, 1]) {
      const x = seededFloats(4 + branch, tokens * dim, 3);
      for (const chunk of chunks) {
        const shape = [chunk.tokens, dim];
        const part = x.slice(chunk.begin * dim, (chunk.begin + chunk.tokens) * dim);
        using xs = gpu.memory.upload('x', 'float32', shape, part);
        using zeros = gpu.memory.tensor('embedded', 'float32', shape);
        await residuals.keep(branch, chunk, xs, zeros);
      }
    }
    for (const branch of [0, 1]) {
      const x = seededFloats(4 + branch, tokens * dim, 3);
      const { norms } = residualStoreReference(x, new Float32Array(tokens * dim), dim);
      expectNear(await residuals.norms(branch), norms, { relativeL2: 1e-6, maxAbs: 1e-3 }, `branch ${branch}`);
    }
  });

  it('refuse shapes that are none', () => {
    for (const kernel of [residualStore, residualApply]) {
      for (const shape of [
        { tokens: 0, dim: 4 },
        { tokens: 1, dim: 6 },
        { tokens: 1.5, dim: 4 },
      ]) {
        expect(() => kernel.plan(shape), `${kernel.name} ${JSON.stringify(shape)}`).toThrow(
          'takes tokens of 4 channels',
        );
      }
    }
  });
});
