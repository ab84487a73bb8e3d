import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AttentionShape, attention, attentionLaunches } from '../../kernels/attention';
import { decodeF16, encodeF16 } from '../../src/floats';
import { defineKernel } from '../../src/gpu/kernel';
import type { GpuTensor } from '../../src/gpu/memory';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, seededFloats, type Tolerance } from '../harness/near';
import { attentionReference } from '../reference/attention';

/**
 * Sums of 128 products, of exponentials and of weighted values in f32, operands of standard deviation 1. Measured up to
 * 4.7e-7 and 5.0e-7 for 1 to 2048 keys (SwiftShader); four times that. Half floats are exact in f32 and the reference
 * gets the rounded inputs, so the f16 variant has no tolerance of its own.
 */
const F32: Tolerance = { relativeL2: 2e-6, maxAbs: 2e-6 };
/**
 * A logit of 1000 is known to 6e-5 in f32, and so is the logarithm of its weight. Measured up to 6.1e-6 and 1.5e-4 with
 * operands of standard deviation 16; four times that.
 */
const F32_SHARP: Tolerance = { relativeL2: 2.5e-5, maxAbs: 6e-4 };

/**
 * Hundreds of equal terms round to one side, so their sum drifts. Measured up to 9.3e-7 and 7.3e-6, the latter on
 * values near 4, with 492 equal keys; four times that.
 */
const F32_EQUAL: Tolerance = { relativeL2: 4e-6, maxAbs: 3e-5 };

const DIM = 128;
/** Floats before and behind `out` in its buffer; 256 bytes are the step of binding offsets. */
const GUARD = 256;
/** What out and its guards hold at first. */
const SENTINEL = 777.25;

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

const whole = { type: 'f32', heads: 1, qHeads: 1, headOffset: 0, lastKeyBias: 0 } as const;

/** A shape that answers all queries. */
function shapeOf(shape: Partial<AttentionShape> & { queries: number; keys: number }): AttentionShape {
  return { ...whole, queryBegin: 0, queryCount: shape.queries, ...shape };
}

/** q, k, v as the kernel gets them: rounded to the type that it reads. */
function inputs({ type, queries, keys, heads, qHeads }: AttentionShape, seed: number, scale = 1) {
  const round = (values: Float32Array) => (type === 'f16' ? decodeF16(encodeF16(values)) : values);
  return {
    q: round(seededFloats(seed, qHeads * queries * DIM, scale)),
    k: round(seededFloats(seed + 1, heads * keys * DIM, scale)),
    v: round(seededFloats(seed + 2, heads * keys * DIM)),
  };
}
type Inputs = ReturnType<typeof inputs>;

/** A tensor of the kernel's type with NaN behind it, which spreads if it is read. */
function upload(type: 'f16' | 'f32', label: string, values: Float32Array): GpuTensor {
  const padded = new Float32Array(values.length + DIM * 4).fill(Number.NaN);
  padded.set(values);
  if (type === 'f32') return test.gpu.memory.upload(label, 'float32', [padded.length], padded);
  return test.gpu.memory.upload(label, 'float16', [padded.length], encodeF16(padded));
}

/** Contents of out, and of what lies before and behind it, after launches on a buffer full of sentinels. */
async function run(launches: readonly AttentionShape[], { q, k, v }: Inputs, kernel = attention) {
  const { gpu } = test;
  const [first] = launches;
  const size = first!.queries * first!.qHeads * DIM;
  const total = size + 2 * GUARD;
  using out = gpu.memory.upload('out', 'float32', [total], new Float32Array(total).fill(SENTINEL));
  using queries = upload(first!.type, 'q', q);
  using keys = upload(first!.type, 'k', k);
  using values = upload(first!.type, 'v', v);
  // The guard behind is bound too, or WebGPU itself would catch what is written there.
  const bound = { tensor: out, offsetBytes: GUARD * 4, sizeBytes: (size + GUARD) * 4 };
  for (const launch of launches) await kernel.run(gpu, launch, { q: queries, k: keys, v: values, out: bound });
  const all = await gpu.memory.readFloats(out);
  gpu.check();
  return { out: all.subarray(GUARD, GUARD + size), guards: [...all.subarray(0, GUARD), ...all.subarray(GUARD + size)] };
}

/** Runs launches, compares every element with the reference, and the ones that nobody answers with the sentinel. */
async function check(
  launches: readonly AttentionShape[],
  data: Inputs,
  tolerance: Tolerance,
  label: string,
  kernel = attention,
) {
  const { out, guards } = await run(launches, data, kernel);
  let expected = new Float64Array(out.length).fill(SENTINEL);
  for (const launch of launches)
    expected = Float64Array.from(attentionReference(data.q, data.k, data.v, launch, expected));
  const answered: number[] = [];
  expected.forEach((value, i) => {
    if (value !== SENTINEL) answered.push(i);
    else if (out[i] !== SENTINEL) throw new Error(`${label}: element ${i} is not to be written, got ${out[i]}`);
  });
  const pick = (values: ArrayLike<number>) => answered.map((i) => values[i]!);
  expectNear(pick(out), pick(expected), tolerance, label);
  expect(
    guards.every((value) => value === SENTINEL),
    `${label}: guards`,
  ).toBe(true);
  return out;
}

describe('attention', () => {
  const sizes = [1, 2, 63, 64, 65, 70, 330].flatMap((queries) =>
    [1, 2, 33, 64, 65, 131, 512].map((keys) => [queries, keys] as const),
  );
  // Heads and offsets change from case to case, so that all of 1..3 heads at offsets 0..2 meet odd sizes.
  it.each(sizes)('answers %i queries from %i keys', async (queries, keys) => {
    const seed = queries * 1000 + keys;
    const heads = 1 + (seed % 3);
    const headOffset = Math.floor(seed / 3) % 3;
    const shape = shapeOf({ queries, keys, heads, headOffset, qHeads: headOffset + heads + (seed % 2) });
    await check([shape], inputs(shape, seed), F32, `${JSON.stringify(shape)} seed ${seed}`);
  });

  it.each([
    [0, 1],
    [0, 32],
    [1, 31],
    [31, 2],
    [33, 37],
    [69, 1],
    [8, 24],
  ])('leaves all but queries %i to +%i as they are', async (queryBegin, queryCount) => {
    const shape = shapeOf({ queries: 70, keys: 65, heads: 2, qHeads: 4, headOffset: 1, queryBegin, queryCount });
    await check([shape], inputs(shape, 11), F32, `queries ${queryBegin} + ${queryCount}`);
  });

  it('gives the same bits in one launch and in many', async () => {
    const shape = shapeOf({ queries: 330, keys: 131, heads: 2, qHeads: 2 });
    const data = inputs(shape, 12);
    const launches = attentionLaunches(shape, 64 * 131 * 2 * 256);
    expect(launches.map((launch) => launch.queryCount)).toEqual([64, 64, 64, 64, 64, 10]);
    const split = await check(launches, data, F32, 'launches of 64 queries');
    expect(
      Buffer.compare(Buffer.from(split.slice().buffer), Buffer.from((await run([shape], data)).out.slice().buffer)),
    ).toBe(0);
  });

  it('fills heads group by group', async () => {
    const groups = [0, 2, 3].map((headOffset, i) =>
      shapeOf({ queries: 33, keys: 64, heads: [2, 1, 2][i]!, qHeads: 5, headOffset }),
    );
    const q = seededFloats(20, 5 * 33 * DIM);
    const outs: Float32Array[] = [];
    for (const shape of groups)
      outs.push(await check([shape], { ...inputs(shape, 21), q }, F32, `heads from ${shape.headOffset}`));
    const answers = outs[0]!.map((_, i) => outs.filter((out) => out[i] !== SENTINEL).length);
    expect(answers.every((count) => count === 1)).toBe(true);
  });

  it.each([1, 20, 63, 64, 500])('takes the last of %i + 1 keys for all the padding of a prompt', async (words) => {
    const copies = 512 - words;
    const short = shapeOf({ queries: 70, keys: words + 1, heads: 2, qHeads: 2, lastKeyBias: Math.log(copies) });
    const long = shapeOf({ queries: 70, keys: 512, heads: 2, qHeads: 2 });
    const data = inputs(short, 30 + words);
    const repeated = (rows: Float32Array) => {
      const all = new Float32Array(2 * 512 * DIM);
      for (let row = 0; row < 2 * 512; row++) {
        const from = Math.floor(row / 512) * (words + 1) + Math.min(row % 512, words);
        all.set(rows.subarray(from * DIM, (from + 1) * DIM), row * DIM);
      }
      return all;
    };
    const collapsed = await check([short], data, F32, `${words} + 1 keys`);
    const explicit = await check(
      [long],
      { q: data.q, k: repeated(data.k), v: repeated(data.v) },
      F32_EQUAL,
      '512 keys',
    );
    expectNear(collapsed, explicit, F32_EQUAL, `${words} + 1 keys against 512`);
  });

  it.each([16, -16])('bears logits of hundreds, keys times %i', async (scale) => {
    const shape = shapeOf({ queries: 330, keys: 512 });
    const data = inputs(shape, 40, 16);
    // Every query meets itself among the keys: a logit near ±16² · sqrt(128), far from all others.
    data.k.set(data.q.subarray(0, 300 * DIM).map((value) => (value * scale) / 16));
    await check([shape], data, F32_SHARP, `keys times ${scale}`);
  });

  it('bears equal logits far below zero', async () => {
    const shape = shapeOf({ queries: 3, keys: 131 });
    const data = inputs(shape, 41);
    data.q.fill(30);
    data.k.fill(-30);
    const mean = new Float64Array(DIM);
    data.v.forEach((value, i) => {
      mean[i % DIM]! += value / 131;
    });
    const out = await check([shape], data, F32, 'equal logits');
    expectNear(out.subarray(0, DIM), mean, F32, 'mean of the values');
  });

  // The variant of half floats, here with f32 so that it runs on every adapter.
  it.each([
    [1, 1],
    [63, 65],
    [70, 131],
  ])('answers %i queries from %i keys in workgroup memory', async (queries, keys) => {
    const plan = (launch: AttentionShape) => {
      const planned = attention.plan(launch);
      expect(planned.prelude.SHARE_KEYS).toBe(false);
      return { ...planned, prelude: { ...planned.prelude, SHARE_KEYS: true } };
    };
    const { name, source, bindings } = attention;
    const sharing = defineKernel({ name, source, bindings, plan }) as typeof attention;
    const shape = shapeOf({ queries, keys, heads: 2, qHeads: 3, headOffset: 1 });
    await check([shape], inputs(shape, 60), F32, `shared keys, ${queries} × ${keys}`, sharing);
  });

  it('reads half floats and keeps f32 inside', async ({ skip }) => {
    skip(!test.gpu.f16, 'this adapter has no shader-f16');
    for (const [queries, keys] of [
      [1, 1],
      [63, 65],
      [330, 512],
    ] as const) {
      const shape = shapeOf({ type: 'f16', queries, keys, heads: 2, qHeads: 3, headOffset: 1 });
      await check([shape], inputs(shape, 50), F32, `f16 ${queries} × ${keys}`);
    }
    const sharp = shapeOf({ type: 'f16', queries: 70, keys: 131 });
    await check([sharp], inputs(sharp, 51, 16), F32_SHARP, 'f16, logits of hundreds');
  });
});
