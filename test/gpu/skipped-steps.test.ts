import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type DitConfig, ditShapes } from '../../src/config';
import { Activations } from '../../src/diffusion/activations';
import { DitSessions } from '../../src/diffusion/block-graphs';
import type { Evaluation, StepEvaluations } from '../../src/diffusion/cache';
import { denoise, type StepReport } from '../../src/diffusion/denoise';
import { predictVelocity } from '../../src/diffusion/dit';
import { Residuals, residualBytes } from '../../src/diffusion/residuals';
import { schedule } from '../../src/diffusion/schedule';
import { encodeTextKeys } from '../../src/diffusion/text-keys';
import { Scope } from '../../src/gpu/memory';
import { residentBlocks, Weights } from '../../src/gpu/weights';
import { planDit } from '../../src/plan';
import { fill, filledSource } from '../fixtures/case';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, type Tolerance } from '../harness/near';

/** Evaluations that keep and reuse residuals, on a small model with filled weights and a sequence in uneven chunks. */

const CONFIG: DitConfig = {
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
const SHAPE = [16, 3, 6, 8];
const TEXTS = [
  { rows: 7, values: fill('context', 2, 0, 7 * 64) },
  { rows: 20, values: fill('other', 2, 0, 20 * 64) },
];
/**
 * A residual in half floats is off by 2^-11 of an element at most, by about 2e-4 in norm, and the head passes that on.
 */
const HALVES: Tolerance = { relativeL2: 3e-4, maxAbs: 5e-3 };

const LIMITS = { maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 2 ** 27, f16: false, cpu: true };
const PLAN = {
  ...planDit(CONFIG, { tokens: 36, latentFrames: 3, latentHeight: 6, latentWidth: 8 }, LIMITS),
  chunks: [
    { index: 0, begin: 0, tokens: 17 },
    { index: 1, begin: 17, tokens: 17 },
    { index: 2, begin: 34, tokens: 2 },
  ],
};

let test: TestGpu;
let weights: Weights;
/** Blocks that were asked for. */
let asked: number[] = [];

beforeAll(async () => {
  test = await openTestGpu();
  const tensors = [...ditShapes(CONFIG)].map(([name, shape]) => {
    const norm = /norm.*weight$/.test(name);
    return { name, shape, scale: norm ? 0.5 : 0.25, offset: norm ? 1 : 0 };
  });
  weights = await Weights.upload(test.gpu, filledSource({ fill_prefix: '', tensors }));
});
afterAll(() => {
  weights[Symbol.dispose]();
  return test.close();
});

function expert() {
  const blocks = residentBlocks(weights, 'blocks.');
  return {
    outer: blocks.outer,
    block(index: number) {
      asked.push(index);
      return blocks.block(index);
    },
  };
}

/** Velocities of each evaluation after another, all at the same latents and timestep. */
async function velocities(rounds: Evaluation[][]): Promise<Float32Array[][]> {
  const { gpu, ort } = test;
  const sessions = new DitSessions(CONFIG, ort);
  using scope = new Scope();
  try {
    const activations = scope.own(new Activations(gpu, CONFIG, PLAN, 2));
    const residuals = scope.own(new Residuals(gpu, CONFIG, PLAN, 2));
    const keys = await encodeTextKeys(gpu, sessions, expert(), TEXTS, PLAN);
    for (const prompt of keys) scope.own(prompt);
    const x = scope.own(gpu.memory.upload('x', 'float32', SHAPE, fill('x', 4, 0, 16 * 3 * 6 * 8)));
    const out = TEXTS.map(() => scope.own(gpu.memory.tensor('v', 'float32', SHAPE)));
    const host = { gpu, sessions, plan: PLAN, activations, residuals };
    const made: Float32Array[][] = [];
    for (const round of rounds) {
      asked = [];
      await predictVelocity(host, expert(), x, 937, keys, out, round);
      made.push(await Promise.all(out.map((tensor) => gpu.memory.readFloats(tensor))));
    }
    return made;
  } finally {
    await sessions.release();
  }
}

describe('an evaluation', () => {
  it('that keeps its residual gives the bits of one that does not', async () => {
    const [plain, kept] = await velocities([
      ['compute', 'compute'],
      ['keep', 'keep'],
    ]);
    expect(kept).toEqual(plain);
    expect(asked).toEqual([0, 1]);
  });

  it('that reuses it asks for no block, and gives the same velocity but for the residual’s rounding', async () => {
    const [kept, reused] = await velocities([
      ['keep', 'keep'],
      ['skip', 'skip'],
    ]);
    expect(asked).toEqual([]);
    for (const branch of [0, 1]) {
      expectNear(reused![branch]!, kept![branch]!, HALVES, `branch ${branch}`);
      expect(reused![branch]).not.toEqual(kept![branch]);
    }
  });

  it('of one branch alone leaves the other branch its bits', async () => {
    const [kept, first, second] = await velocities([
      ['keep', 'keep'],
      ['skip', 'compute'],
      ['compute', 'skip'],
    ]);
    expect(first![1]).toEqual(kept![1]);
    expect(second![0]).toEqual(kept![0]);
    expectNear(first![0]!, kept![0]!, HALVES, 'conditional');
    expectNear(second![1]!, kept![1]!, HALVES, 'unconditional');
  });
});

describe('a run', () => {
  const steps = schedule({ solver: 'unipc', steps: 4, shift: 5, boundary: null });
  const guidance = { guidance_scale: 3, guidance_scale_2: 3 };
  const plan = { dit: PLAN, schedule: steps, guidance, seed: 3, latentShape: SHAPE };

  async function run(evaluations?: StepEvaluations[]) {
    const { gpu, ort } = test;
    const reports: Pick<StepReport, 'resumable'>[] = [];
    const estimates: Float32Array[] = [];
    const before = gpu.memory.liveBytes;
    gpu.memory.resetPeak();
    const blocks: number[] = [];
    const host = { gpu, ort, config: CONFIG, expert: async () => expert() };
    const latents = await denoise({ ...plan, evaluations }, TEXTS[0]!, TEXTS[1]!, host, async (report) => {
      blocks.push(asked.length);
      asked = [];
      reports.push({ resumable: report.resumable });
      estimates.push(await gpu.memory.readFloats(report.estimate));
    });
    latents[Symbol.dispose]();
    expect(gpu.memory.liveBytes).toBe(before);
    return { reports, estimates, blocks, peakBytes: gpu.memory.peakBytes };
  }

  it('goes its own way from the first step that reuses something, says where it can be taken up, and frees all', async () => {
    const plain = await run();
    const both = (what: 'compute' | 'keep' | 'skip') => ({ conditional: what, unconditional: what });
    const mixed = await run([
      both('compute'),
      both('keep'),
      both('skip'),
      { ...both('skip'), unconditional: 'compute' },
    ]);
    expect(plain.reports.map(({ resumable }) => resumable)).toEqual([true, true, true, true]);
    expect(mixed.reports.map(({ resumable }) => resumable)).toEqual([true, false, false, true]);
    expect(mixed.estimates.slice(0, 2)).toEqual(plain.estimates.slice(0, 2));
    expect(mixed.estimates[2]).not.toEqual(plain.estimates[2]);
    expect(mixed.blocks.slice(1)).toEqual([2, 0, 2]);
    expect(mixed.peakBytes - plain.peakBytes).toBe(residualBytes(CONFIG, PLAN, 2));
  });

  it('does not begin with a step that reuses what nothing has kept', async () => {
    const skip = { conditional: 'skip', unconditional: 'skip' } as const;
    await expect(run([skip, skip, skip, skip])).rejects.toMatchObject({ code: 'internal' });
  });
});
