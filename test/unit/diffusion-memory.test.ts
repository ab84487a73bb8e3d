import { describe, expect, it } from 'vitest';
import { UMT5_XXL, WAN_14B } from '../../src/checkpoint/released';
import { ditShapes } from '../../src/config';
import { activationBytes, type DitPlan } from '../../src/diffusion/activations';
import { type DiffusionTask, diffusionBytes, passScratchBytes, textKeyBytes } from '../../src/diffusion/memory';
import { planDit } from '../../src/plan';
import { textEncoderBytes } from '../../src/text/memory';

const GB = 1e9;

/** 1280 × 720, 121 frames, on a device of WebGPU's guaranteed limits. */
const LARGEST = { tokens: 111_600, latentFrames: 31, latentHeight: 90, latentWidth: 160 };
const limits = (f16: boolean) => ({ maxStorageBufferBindingSize: 2 ** 27, maxBufferSize: 2 ** 28, f16, cpu: false });

/** The arrangement that takes least; one sweep holds the given share of the heads. */
function frugal(f16: boolean, sweeps: number): DitPlan {
  const plan = planDit(WAN_14B, LARGEST, limits(f16));
  const groupsPerSweep = Math.ceil(plan.headGroups.length / sweeps);
  return { ...plan, groupsPerSweep, branchOrder: 'branch-major', textKeys: 'each-block' };
}

/** Two prompts of 512 tokens, the longest there are. */
const task = (plan: DitPlan): DiffusionTask => ({
  plan,
  promptRows: [512, 512],
  solver: 'unipc',
  latentShape: [16, 31, 90, 160],
});

/** Bytes of a 4-bit expert with scales in float32, `slots` of its blocks. */
function streamedBytes(slots: number): number {
  let [outside, block] = [0, 0];
  for (const [name, shape] of ditShapes({ ...WAN_14B, numLayers: 1 })) {
    const values = shape.reduce((product, size) => product * size, 1);
    const bytes = shape.length === 2 && name.endsWith('.weight') ? values * (0.5 + 4 / 32) : values * 4;
    if (name.startsWith('blocks.')) block += bytes;
    else outside += bytes;
  }
  expect(block).toBeCloseTo(0.22 * GB, -8);
  return outside + slots * block;
}

describe('WAN_14B at 1280 × 720 with 121 frames in 8 GB and default limits', () => {
  it.each([
    ['f16', 2, 1],
    ['f16', 3, 1],
    ['f32', 2, 4],
    ['f32', 3, 4],
  ] as const)('fits with %s operands, %i slots and %i sweeps over the heads', (type, slots, sweeps) => {
    const plan = frugal(type === 'f16', sweeps);
    const bytes = diffusionBytes(WAN_14B, task(plan)) + streamedBytes(slots);
    expect(bytes).toBeLessThan(8 * GB);
    expect(bytes).toBeGreaterThan(5.5 * GB); // the residual stream is 2.3 GB, keys and values or half of them as much again
  });

  it('does not fit as it runs fastest', () => {
    const plan = planDit(WAN_14B, LARGEST, limits(true));
    expect(diffusionBytes(WAN_14B, task(plan)) + streamedBytes(3)).toBeGreaterThan(8 * GB);
  });

  it('encodes two prompts of 512 tokens in less', () => {
    expect(textEncoderBytes(UMT5_XXL, [512, 512])).toBeLessThan(0.4 * GB);
  });
});

describe('what each measure saves', () => {
  const plan = planDit(WAN_14B, LARGEST, limits(true));
  const stream = 4 * LARGEST.tokens * WAN_14B.dim;

  it('branch-major: a residual stream', () => {
    const one = activationBytes(WAN_14B, { ...plan, branchOrder: 'branch-major' }, 2);
    expect(activationBytes(WAN_14B, plan, 2) - one).toBe(stream);
    expect(activationBytes(WAN_14B, plan, 1)).toBe(one);
  });

  it('sweeps: keys and values of the other heads, for what attention gives', () => {
    const f32 = planDit(WAN_14B, LARGEST, limits(false));
    const quarter = { ...f32, groupsPerSweep: Math.ceil(f32.headGroups.length / 4) };
    const saved = activationBytes(WAN_14B, f32, 1) - activationBytes(WAN_14B, quarter, 1);
    expect(saved / stream).toBeCloseTo(2 * 0.75 - 1, 1);
  });

  it('text keys in each block: those of 39 blocks', () => {
    const kept = textKeyBytes(WAN_14B, plan, [512, 512]).making;
    expect(kept).toBeGreaterThan(0.8 * GB);
    expect(textKeyBytes(WAN_14B, { ...plan, textKeys: 'each-block' }, [512, 512]).making).toBeLessThan(0.1 * GB);
  });

  it('shorter chunks: scratch in proportion', () => {
    const scratch = (tokens: number) => {
      const chunks = [{ index: 0, begin: 0, tokens }];
      return passScratchBytes(WAN_14B, { ...plan, chunks, grid: [1, 2, 2] }, [1]);
    };
    expect(scratch(1024) / scratch(512)).toBeCloseTo(2, 1);
  });
});
