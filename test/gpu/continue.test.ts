import { resolve } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { diskFolder } from '../../src/cli/files';
import { planEvaluations } from '../../src/diffusion/cache';
import type { SamplerState } from '../../src/diffusion/sampler';
import { schedule } from '../../src/diffusion/schedule';
import { unipc } from '../../src/diffusion/unipc';
import { residentModel } from '../../src/model';
import { generate, type Host } from '../../src/pipeline';
import { resolveRequest } from '../../src/request';
import { openModel } from '../../src/store/verified';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { fakeCodec } from '../harness/fake-codec';
import { smallSizes } from '../harness/small-sizes';

/** A job goes on with the budget of the day, on a device that computes nothing: which steps run is what counts. */

const AVAILABLE = { film: false, rife: false, promptExpansion: false, safetyChecker: false };
const UNGUIDED = { guidance_scale: 1, guidance_scale_2: 1 };
const STEPS = 12;
const LATENTS = 16 * 5 * 2 * 2;

let test: TestGpu;
let model: ReturnType<typeof residentModel>;

beforeAll(async () => {
  test = await openTestGpu({}, 'null');
  const verified = await openModel(diskFolder(resolve(import.meta.dirname, '../../public/models/demo')));
  model = residentModel(test.gpu, { ...verified, manifest: { ...verified.manifest, sizes: smallSizes(16) } });
});
afterAll(async () => {
  model?.[Symbol.dispose]();
  await test?.close();
});

/** Goes on behind `stepsDone` steps; gives the steps that reuse residuals. */
async function skippedFrom(stepsDone: number): Promise<number[]> {
  const settings = { num_frames: 17, num_inference_steps: STEPS, acceleration: 'regular', ...UNGUIDED } as const;
  const request = { prompt: 'a', ...settings };
  const resolved = resolveRequest(request, AVAILABLE, () => 7);
  const saved: SamplerState = {
    stepsDone,
    latents: new Map(unipc.state.map((name) => [name, new Float32Array(LATENTS)])),
  };
  const none = async () => undefined;
  const host: Host = {
    ...test,
    model,
    video: fakeCodec(),
    available: AVAILABLE,
    safety: [],
    openPictures: () => Promise.reject(new Error('not asked for')),
    expansion: [],
    checkpoint: {
      decided: { request: resolved, prompt: 'a' },
      decide: none,
      load: async () => saved,
      save: none,
    },
    budgetBytes: Infinity,
    now: () => performance.now(),
    randomSeed: () => 7,
    signal: new AbortController().signal,
  };
  const report = { progress: () => undefined, preview: () => undefined, log: () => undefined };
  const { timings } = await generate(request, { previews: false, rgb24: false }, host, report);
  return timings.evaluations.skipped.conditional;
}

it('reuses no residual that an earlier run, which had no room for any, has not kept', async () => {
  const { boundary, acceleration } = model.manifest;
  const table = schedule({ solver: 'unipc', steps: STEPS, shift: 5, boundary });
  const { steps } = planEvaluations(table, UNGUIDED, 'regular', acceleration);
  const skipped = [...steps.keys()].filter((index) => steps[index]!.conditional === 'skip');
  const last = skipped.findLast((index) => !skipped.includes(index - 1))!; // few steps are left then
  expect(await skippedFrom(last - 1)).toEqual(skipped);
  expect(await skippedFrom(last)).toEqual([]); // the step that would have kept it is done
});
