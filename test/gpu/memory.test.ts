import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type DitConfig, ditShapes, type Shapes, type Umt5Config, umt5Shapes } from '../../src/config';
import type { DitPlan } from '../../src/diffusion/activations';
import { denoise } from '../../src/diffusion/denoise';
import { diffusionBytes } from '../../src/diffusion/memory';
import { schedule } from '../../src/diffusion/schedule';
import { gpuMatrixStorage, residentBlocks, Weights } from '../../src/gpu/weights';
import { planDit } from '../../src/plan';
import { textEncoderBytes } from '../../src/text/memory';
import { EMBEDDING, encodeTexts } from '../../src/text/umt5';
import { filledSource } from '../fixtures/case';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { seededFloats } from '../harness/near';

/** Predicted bytes against the ledger, to the byte; and what ONNX Runtime makes on its own, which is nearly nothing. */

const DIT: DitConfig = {
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

const UMT5: Umt5Config = {
  vocabSize: 100,
  dModel: 64,
  dKv: 16,
  numHeads: 4,
  dFf: 96,
  numLayers: 2,
  relativeBuckets: 32,
  relativeMaxDistance: 128,
  eps: 1e-6,
};

/**
 * Uniforms of ONNX Runtime's programs and parameters of kernels: 16 KiB of ours, some dozens of bytes for each program.
 */
const RUNTIME_BYTES = 32 * 1024;

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

const source = (shapes: Shapes) => {
  const tensors = [...shapes].map(([name, shape]) => ({ name, shape, scale: 0.25, offset: 0 }));
  return filledSource({ fill_prefix: '', tensors });
};

const expert = source(ditShapes(DIT));
const LATENTS = [16, 3, 6, 8];
const PROMPTS = [7, 20].map((rows) => ({ rows, values: seededFloats(rows, rows * DIT.textDim) }));
const heads = [0, 1].map((index) => ({ index, begin: index, heads: 1 }));

/** A step of each expert; gives the most bytes beside weights. */
async function sample(cut: Partial<DitPlan>, maxBindingBytes: number) {
  const { gpu, ort } = test;
  const limits = { maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 2 ** 27, f16: false, cpu: true };
  const dit = { ...planDit(DIT, { tokens: 36, latentFrames: 3, latentHeight: 6, latentWidth: 8 }, limits), ...cut };
  const steps = schedule({ solver: 'unipc', steps: 2, shift: 5, boundary: 0.875 });
  expect(steps.highSteps).toBe(1);
  const guidance = { guidance_scale: 3, guidance_scale_2: 4 };
  const plan = { dit, schedule: steps, guidance, seed: 1, latentShape: LATENTS };
  using weights = await Weights.upload(gpu, expert, { maxBindingBytes });
  const blocks = async () => residentBlocks(weights, 'blocks.');
  const before = gpu.memory.liveBytes;
  gpu.memory.resetPeak();
  const shares: number[][] = [[], []];
  const onProgress = (step: number, share: number) => shares[step]!.push(share);
  const host = { gpu, ort, config: DIT, expert: blocks, onProgress };
  using latents = await denoise(plan, PROMPTS[0]!, PROMPTS[1]!, host);
  const { peakBytes, devicePeakBytes } = gpu.memory;
  const storage = (prefix: string) => (name: string) =>
    gpuMatrixStorage(expert.entries, prefix + name, maxBindingBytes);
  const predicted = diffusionBytes(DIT, {
    plan: dit,
    promptRows: PROMPTS.map(({ rows }) => rows),
    solver: 'unipc',
    latentShape: LATENTS,
    storage: { outer: storage(''), block: storage('blocks.0.') },
  });
  expect((await gpu.memory.readFloats(latents)).every(Number.isFinite)).toBe(true);
  for (const step of shares) {
    expect(step.at(-1)).toBe(1); // what is counted adds up to what was foretold
    expect(step.slice(0, -1).every((share) => share < 1)).toBe(true);
    if (cut.maxMacPerDispatch) expect(step.length).toBeGreaterThan(5);
  }
  return { held: peakBytes - before, predicted, beside: devicePeakBytes - peakBytes };
}

const CUTS: [string, Partial<DitPlan>, number][] = [
  ['as it runs fastest', {}, 2 ** 27],
  ['with matrices split by rows', {}, 100_000],
  [
    'with the least memory',
    {
      chunks: [0, 1, 2].map((index) => ({ index, begin: 16 * index, tokens: index < 2 ? 16 : 4 })),
      headGroups: heads,
      groupsPerSweep: 1,
      branchOrder: 'branch-major',
      textKeys: 'each-block',
      maxMacPerDispatch: 2e6,
    },
    2 ** 27,
  ],
];

describe('bytes on the GPU', () => {
  it.each(CUTS)('of sampling %s are those predicted', async (_, cut, maxBindingBytes) => {
    const level = test.gpu.memory.liveBytes;
    const { held, predicted, beside } = await sample(cut, maxBindingBytes);
    expect(held).toBe(predicted);
    expect(beside).toBeLessThan(RUNTIME_BYTES);
    expect(test.gpu.memory.liveBytes).toBe(level);
  });

  it('of the text encoder are those predicted', async () => {
    const { gpu, ort } = test;
    const text = source(umt5Shapes(UMT5));
    const names = [...text.entries.keys()].filter((name) => name !== EMBEDDING);
    using weights = await Weights.upload(gpu, text, { names });
    const before = gpu.memory.liveBytes;
    gpu.memory.resetPeak();
    const prompts = [5, 33].map((count) => Array.from({ length: count }, (_, i) => (i * 7) % 100));
    const blocks = residentBlocks(weights, 'encoder.block.');
    await encodeTexts({ gpu, ort, config: UMT5, weights: blocks, source: text }, prompts);
    expect(gpu.memory.peakBytes - before).toBe(textEncoderBytes(UMT5, [5, 33]));
    expect(gpu.memory.liveBytes).toBe(before);
  });

  it('count buffers that others make, by what they are for', async () => {
    const { device, memory } = test.gpu;
    const { runtimeBytes, stagingBytes, liveBytes } = memory;
    const plain = device.createBuffer({ size: 4096, usage: GPUBufferUsage.STORAGE });
    const mapped = device.createBuffer({ size: 512, usage: GPUBufferUsage.COPY_SRC, mappedAtCreation: true });
    expect(memory.runtimeBytes - runtimeBytes).toBe(4096);
    expect(memory.stagingBytes - stagingBytes).toBe(512);
    memory.resetPeak();
    expect(memory.devicePeakBytes).toBe(liveBytes + runtimeBytes + stagingBytes + 4608);
    for (const buffer of [plain, mapped, mapped]) buffer.destroy(); // twice counts once
    expect([memory.runtimeBytes, memory.stagingBytes]).toEqual([runtimeBytes, stagingBytes]);
    expect(memory.liveBytes).toBe(liveBytes);
  });
});
