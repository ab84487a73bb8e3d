import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type DitConfig, ditShapes, type Shapes, type Umt5Config, umt5Shapes } from '../../src/config';
import { Activations, type DitPlan } from '../../src/diffusion/activations';
import { DitSessions } from '../../src/diffusion/block-graphs';
import { predictVelocity } from '../../src/diffusion/dit';
import { encodeTextKeys, type TextEmbedding } from '../../src/diffusion/text-keys';
import { Scope } from '../../src/gpu/memory';
import { residentBlocks, Weights } from '../../src/gpu/weights';
import { planDit } from '../../src/plan';
import { EMBEDDING, encodeText } from '../../src/text/umt5';
import { fill, filledSource } from '../fixtures/case';
import { openTestGpu, type TestGpu } from '../harness/dawn';

/**
 * Values of the reference implementations (Wan2.2 42bf4cfaa384, transformers 5.18.0; f32 on CPU) for small models whose
 * weights follow the fill rule: what the fixtures check in full, few enough numbers to stand here. Six printed digits,
 * hence the tolerance.
 */
const DIGITS = 2e-5;

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

/** Tensors of `shapes`, filled by the first rule whose pattern is in their name. */
function filled(shapes: Shapes, rules: [RegExp, scale: number, offset: number][]) {
  const tensors = [...shapes].map(([name, shape]) => {
    const [, scale, offset] = rules.find(([pattern]) => pattern.test(name))!;
    return { name, shape, scale, offset };
  });
  return filledSource({ fill_prefix: '', tensors });
}

function statistics(values: Float32Array) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return [mean, Math.sqrt(variance), values.reduce((peak, value) => Math.max(peak, Math.abs(value)), 0)];
}

function expectValues(actual: ArrayLike<number>, expected: number[]): void {
  expected.forEach((value, i) => {
    expect(Math.abs(actual[i]! - value), `value ${i}: ${actual[i]} for ${value}`).toBeLessThan(
      DIGITS * Math.max(1, Math.abs(value)),
    );
  });
}

describe('transformer', () => {
  const config: DitConfig = {
    dim: 256,
    ffnDim: 320,
    numHeads: 2,
    numLayers: 2,
    inChannels: 16,
    outChannels: 16,
    freqDim: 256,
    textDim: 64,
    textLen: 512,
    eps: 1e-6,
  };
  const source = filled(ditShapes(config), [
    [/norm.*weight$/, 0.5, 1],
    [/norm.*bias$/, 0.25, 0],
    [/modulation/, 0.5, 0],
    [/./, 0.25, 0],
  ]);
  const shape = [16, 3, 6, 8];

  /** Two prompts of different length: the reference's, and another. */
  const CAT = { rows: 7, values: fill('context', 2, 0, 7 * 64) };
  const DOG = { rows: 20, values: fill('other', 2, 0, 20 * 64) };

  /** Velocities of a branch for each prompt, with the sequence and the heads cut as `cut` says. */
  async function velocities(
    texts: TextEmbedding[],
    cut: (plan: DitPlan) => DitPlan = (plan) => plan,
    maxBindingBytes = 2 ** 27,
  ): Promise<Float32Array[]> {
    const { gpu, ort } = test;
    const limits = { maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 2 ** 27, f16: false, cpu: true };
    const plan = cut(planDit(config, { tokens: 36, latentFrames: 3, latentHeight: 6, latentWidth: 8 }, limits));
    const sessions = new DitSessions(config, ort);
    using scope = new Scope();
    try {
      const weights = scope.own(await Weights.upload(gpu, source, { maxBindingBytes }));
      const activations = scope.own(new Activations(gpu, config, plan, texts.length));
      const expert = residentBlocks(weights, 'blocks.');
      const keys = await encodeTextKeys(gpu, sessions, expert, texts, plan);
      for (const prompt of keys) scope.own(prompt);
      const x = scope.own(gpu.memory.upload('x', 'float32', shape, fill('x', 4, 0, 16 * 3 * 6 * 8)));
      const out = texts.map(() => scope.own(gpu.memory.tensor('v', 'float32', shape)));
      const host = { gpu, sessions, plan, activations };
      await predictVelocity(host, expert, x, 937, keys, out);
      return await Promise.all(out.map((tensor) => gpu.memory.readFloats(tensor)));
    } finally {
      await sessions.release();
    }
  }

  /** What an uncut pass gives for both prompts. */
  let whole: Float32Array[] | undefined;

  it('gives the official velocity, and leaves no buffer behind', async () => {
    const before = test.gpu.memory.liveBytes;
    const [velocity] = await velocities([CAT]);
    expectValues(velocity!, [-1.04209, 2.07747, -1.42767, 1.38116, 2.07634, 1.69759, -0.502097, 0.918113]);
    expectValues(velocity!.subarray(-4), [-2.36419, -0.619419, -0.97858, 1.50103]);
    expectValues(statistics(velocity!), [-0.08553133, 1.553615, 5.100963]);
    expect(test.gpu.memory.liveBytes).toBe(before);
  });

  it('gives each branch the bits that its prompt gives alone, though block 0 attends once for both', async () => {
    const [cat] = await velocities([CAT]);
    const [dog] = await velocities([DOG]);
    expect(dog).not.toEqual(cat);
    expect(await velocities([CAT, DOG])).toEqual([cat, dog]);
    expect(await velocities([DOG, CAT])).toEqual([dog, cat]);
  });

  const chunks = (...lengths: number[]) => {
    let begin = 0;
    return lengths.map((tokens, index) => {
      begin += tokens;
      return { index, begin: begin - tokens, tokens };
    });
  };
  const heads = [0, 1].map((index) => ({ index, begin: index, heads: 1 }));
  it.each<[string, Partial<DitPlan>]>([
    ['chunks of 17', { chunks: chunks(17, 17, 2), maxMacPerDispatch: 1000 }],
    ['chunks of 5, a head at a time', { chunks: chunks(5, 5, 5, 5, 5, 5, 5, 1), headGroups: heads, groupsPerSweep: 2 }],
    ['a sweep for each head', { chunks: chunks(17, 17, 2), headGroups: heads, groupsPerSweep: 1 }],
    ['one branch after the other', { branchOrder: 'branch-major' }],
    ['text keys made in each block', { textKeys: 'each-block' }],
    [
      'the least memory',
      {
        chunks: chunks(16, 16, 4),
        headGroups: heads,
        groupsPerSweep: 1,
        branchOrder: 'branch-major',
        textKeys: 'each-block',
      },
    ],
  ])('gives the same bits with %s', async (_, cut) => {
    const level = test.gpu.memory.liveBytes;
    whole ??= await velocities([CAT, DOG]);
    expect(await velocities([CAT, DOG], (plan) => ({ ...plan, ...cut }))).toEqual(whole);
    expect(test.gpu.memory.liveBytes).toBe(level);
  });

  it('gives the official velocity with matrices split by rows', async () => {
    // 256×256 float32 take 262,144 bytes, the patch embedding 65,536.
    const [velocity] = await velocities([CAT], (plan) => plan, 100_000);
    expectValues(velocity!, [-1.04209, 2.07747, -1.42767, 1.38116, 2.07634, 1.69759, -0.502097, 0.918113]);
    expectValues(statistics(velocity!), [-0.08553133, 1.553615, 5.100963]);
  });
});

describe('text encoder', () => {
  const config: Umt5Config = {
    vocabSize: 100,
    dModel: 64,
    dKv: 16,
    numHeads: 4,
    dFf: 96,
    numLayers: 3,
    relativeBuckets: 32,
    relativeMaxDistance: 128,
    eps: 1e-6,
  };
  const source = filled(umt5Shapes(config), [
    [/norm/, 0.5, 1],
    [/relative|shared/, 4, 0],
    [/./, 0.5, 0],
  ]);
  const ids = [...Array.from({ length: 39 }, (_, i) => ((7 * i * i + 3 * i + 5) % 97) + 2), 1];

  async function encode(tokens: number[], from = source, onLayer?: (layer: number, x: Float32Array) => void) {
    const { gpu, ort } = test;
    const names = [...from.entries.keys()].filter((name) => name !== EMBEDDING);
    using weights = await Weights.upload(gpu, from, { names });
    const blocks = residentBlocks(weights, 'encoder.block.');
    const host = { gpu, ort, config, weights: blocks, source: from, ...(onLayer && { onLayer }) };
    return (await encodeText(host, tokens)).values;
  }

  it('gives the reference embedding', async () => {
    const values = await encode(ids);
    const row = (i: number) => values.subarray(i * 64, i * 64 + 6);
    expectValues(row(0), [0.763937, 1.4678, 0.102851, -0.738569, 1.85905, -0.0521496]);
    expectValues(row(20), [0.557791, -0.589048, 0.192093, 0.0662243, -1.11165, -2.28023]);
    expectValues(row(39), [1.32204, 0.464037, 2.16226, 1.93491, 0.613394, 0.513131]);
    expectValues(statistics(values), [0.06147861, 1.008274, 3.657761]);
  });

  it('takes one token and 512', async () => {
    expect(await encode([1])).toHaveLength(64);
    const long = await encode(Array.from({ length: 512 }, (_, i) => (i * 7) % 100));
    expect(long).toHaveLength(512 * 64);
    expect(long.every(Number.isFinite)).toBe(true);
  });

  it('bears a residual stream and a gated product that no half float holds, as the full-size encoder has them', async () => {
    const peaks: number[] = [];
    const grown = (scale: number) => {
      const tensors = filled(umt5Shapes(config), [
        [/norm/, 0.5, 1],
        [/relative|shared/, 4, 0],
        [/wi_/, 2 ** 9, 0],
        [/wo/, scale, 0],
        [/./, 0.5, 0],
      ]);
      return encode(ids, tensors, (_, x) => peaks.push(statistics(x)[2]!));
    };
    // Beside such a product what else is in the stream does not count, so that the last norm takes any factor away.
    const [large, larger] = [await grown(2 ** 9), await grown(2 ** 15)];
    expect(Math.min(...peaks)).toBeGreaterThan(65_504);
    expect(statistics(large)[1]).toBeGreaterThan(0.5);
    expectValues(larger, [...large]);
  });

  it('refuses an id outside the table', async () => {
    await expect(encode([100, 1])).rejects.toMatchObject({ code: 'bad-checkpoint' });
  });
});
