import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { diskFolder } from '../../src/cli/files';
import { denoise } from '../../src/diffusion/denoise';
import { residentModel } from '../../src/model';
import { RIFE_46 } from '../../src/part/rife';
import { planVideo } from '../../src/plan';
import type { WeightResidency } from '../../src/plan/residency';
import { resolveRequest } from '../../src/request';
import { openModel, openPart, type VerifiedModel } from '../../src/store/verified';
import { encodeTexts } from '../../src/text/umt5';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { rifeFolder } from '../harness/rife';

/** The shipped demo model under the three residencies: the same bits, in less and less memory. */

const REQUEST = { prompt: 'a red circle', aspect_ratio: '1:1', num_frames: 17, num_inference_steps: 2 } as const;
const NONE = { film: false, rife: false, promptExpansion: false, safetyChecker: false };

let test: TestGpu;
let verified: VerifiedModel;
beforeAll(async () => {
  test = await openTestGpu();
  verified = await openModel(diskFolder(resolve(import.meta.dirname, '../../public/models/demo')));
});
afterAll(() => test.close());

/** Text and two steps, one of each expert; gives the latents and the most bytes that were live. */
async function run(residency: WeightResidency): Promise<{ latents: Float32Array; peakBytes: number }> {
  const { gpu, ort } = test;
  const { manifest } = verified;
  const signal = new AbortController().signal;
  const load = { signal, onProgress: () => undefined };
  const { maxBufferSize, maxStorageBufferBindingSize } = gpu.device.limits;
  const limits = { maxBufferSize, maxStorageBufferBindingSize, f16: false, cpu: true, budgetBytes: Infinity };
  const plan = planVideo(
    resolveRequest(REQUEST, NONE, () => 7),
    manifest,
    limits,
  );
  using model = residentModel(gpu, verified);
  model.arrange({ residency, slots: 3, textSlots: residency === 'streamed' ? 3 : null });
  const before = gpu.memory.liveBytes;
  gpu.memory.resetPeak();
  const tokenizer = await model.tokenizer(load);
  const { weights, source } = await model.textEncoder(load);
  const prompts = [REQUEST.prompt, ''].map((prompt) => tokenizer.encode(prompt));
  const [positive, negative] = await encodeTexts({ gpu, ort, config: manifest.umt5, weights, source }, prompts);
  const expert = (stage: 'high' | 'low') => model.expert(stage, load);
  const onNextExpert = (stage: 'high' | 'low', stepsBefore: number) => model.prefetchExpert(stage, stepsBefore, load);
  const host = { gpu, ort, config: manifest.dit, expert, onNextExpert };
  using latents = await denoise(plan.denoise, positive!, negative!, host);
  return { latents: await gpu.memory.readFloats(latents), peakBytes: gpu.memory.peakBytes - before };
}

it('tells a plan which interpolators lie beside a model', async () => {
  const rife = await openPart(diskFolder(rifeFolder), 'rife');
  using model = residentModel(test.gpu, verified, { rife });
  expect(model.networks).toEqual({ film: undefined, rife: RIFE_46 });
});

describe('residencies of the demo model', () => {
  it('give the same bits in less and less memory, and leave nothing behind', async () => {
    const before = test.gpu.memory.liveBytes;
    const all = await run('all');
    const one = await run('one');
    const streamed = await run('streamed');
    expect(one.latents).toEqual(all.latents);
    expect(streamed.latents).toEqual(all.latents);
    expect(one.peakBytes).toBeLessThan(0.7 * all.peakBytes);
    expect(streamed.peakBytes).toBeLessThan(one.peakBytes);
    await expect.poll(() => test.gpu.memory.liveBytes).toBe(before);
  });
});
