import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { diskFolder } from '../../src/cli/files';
import { type DenoisePlan, denoise, finishedLatents } from '../../src/diffusion/denoise';
import { torchRandn } from '../../src/diffusion/noise';
import { sinusoid } from '../../src/diffusion/rope';
import type { SamplerState } from '../../src/diffusion/sampler';
import type { Slot } from '../../src/diffusion/solver';
import { unipc } from '../../src/diffusion/unipc';
import { residentModel } from '../../src/model';
import { planVideo } from '../../src/plan';
import { resolveRequest } from '../../src/request';
import { openModel } from '../../src/store/verified';
import { encodeTexts } from '../../src/text/umt5';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, type Tolerance } from '../harness/near';
import { smallSizes } from '../harness/small-sizes';
import { applyStep } from '../reference/solver';

/** A run that starts from a state that another one has saved gives the other's bits, from whichever step. */

const STEPS = 4;
const REQUEST = { prompt: 'a red circle', num_frames: 17, num_inference_steps: STEPS, aspect_ratio: '1:1' } as const;
const NONE = { film: false, rife: false, promptExpansion: false, safetyChecker: false };

/** Four steps of sums of up to four f32 against float64; latents are of size 4. */
const F32_STEPS: Tolerance = { relativeL2: 1e-6, maxAbs: 2e-5 };

let test: TestGpu;
let model: ReturnType<typeof residentModel>;
let plan: DenoisePlan;
let sample: (from?: SamplerState) => Promise<Sampled>;

interface Sampled {
  latents: Float32Array;
  states: SamplerState[];
  stages: ('high' | 'low')[];
  /** With the prompt, and with the negative one. */
  velocities: [Float32Array, Float32Array][];
}

beforeAll(async () => {
  test = await openTestGpu();
  const { gpu, ort } = test;
  const verified = await openModel(diskFolder(resolve(import.meta.dirname, '../../public/models/demo')));
  const manifest = { ...verified.manifest, sizes: smallSizes(32) };
  const { maxBufferSize, maxStorageBufferBindingSize } = gpu.device.limits;
  const limits = { maxBufferSize, maxStorageBufferBindingSize, f16: false, cpu: true, budgetBytes: Infinity };
  const resolved = resolveRequest(REQUEST, NONE, () => 7);
  plan = planVideo(resolved, manifest, limits).denoise;
  model = residentModel(gpu, verified);
  const load = { signal: new AbortController().signal, onProgress: () => undefined };
  const { weights, source } = await model.textEncoder(load);
  const tokenizer = await model.tokenizer(load);
  const prompts = [REQUEST.prompt, ''].map((prompt) => tokenizer.encode(prompt));
  const [positive, negative] = await encodeTexts({ gpu, ort, config: manifest.umt5, weights, source }, prompts);
  const host = { gpu, ort, config: manifest.dit, expert: (stage: 'high' | 'low') => model.expert(stage, load) };
  sample = async (from) => {
    const states: SamplerState[] = [];
    const stages: ('high' | 'low')[] = [];
    const velocities: [Float32Array, Float32Array][] = [];
    using latents = await denoise(
      plan,
      positive!,
      negative!,
      host,
      async ({ stage, resumable, save, velocities: { conditional, unconditional } }) => {
        expect(resumable).toBe(true);
        velocities.push([await gpu.memory.readFloats(conditional), await gpu.memory.readFloats(unconditional!)]);
        stages.push(stage);
        states.push(await save());
      },
      from,
    );
    return { latents: await gpu.memory.readFloats(latents), states, stages, velocities };
  };
});
afterAll(async () => {
  model?.[Symbol.dispose]();
  await test?.close();
});

let whole: Sampled;
/** Vectors that told the network the time in that run. */
let times: Float32Array[];
beforeAll(async () => {
  const write = vi.spyOn(test.gpu.memory, 'write');
  whole = await sample();
  times = write.mock.calls.flatMap(([{ shape }, values]) => (shape.join() === '1,256' ? [values as Float32Array] : []));
  write.mockRestore();
});

describe('a run', () => {
  it('takes each step with its expert’s guidance, and the history of both experts across the switch', () => {
    const noise = torchRandn(7, whole.latents.length);
    const tensors = new Map<Slot, Float64Array>(unipc.latents.map((name) => [name, new Float64Array(noise.length)]));
    tensors.get('sample')!.set(noise);
    for (const [index, [conditional, unconditional]] of whole.velocities.entries()) {
      tensors.set('conditional', Float64Array.from(conditional));
      tensors.set('unconditional', Float64Array.from(unconditional));
      const scale = whole.stages[index] === 'high' ? 3.5 : 4; // the endpoint's defaults
      applyStep(unipc.step(plan.schedule, index, scale), tensors);
    }
    expectNear(whole.latents, tensors.get('sample')!, F32_STEPS, 'latents');
  });

  it('tells the network whole timesteps', () => {
    const steps = [...plan.schedule.sigmas.subarray(0, STEPS)].map((sigma) => sinusoid(Math.trunc(1000 * sigma)));
    expect(times).toEqual(steps);
  });
});

describe('a saved state', () => {
  it('gives the bits of the undisturbed run from every step, across the expert switch', async () => {
    expect(new Set(whole.stages)).toEqual(new Set(['high', 'low']));
    expect(whole.states.map(({ stepsDone }) => stepsDone)).toEqual([1, 2, 3, 4]);
    for (const state of whole.states.slice(0, -1)) {
      const rest = await sample(state);
      expect(rest.stages).toEqual(whole.stages.slice(state.stepsDone));
      expect(rest.latents).toEqual(whole.latents);
    }
    const last = whole.states.at(-1)!;
    expect([...last.latents.keys()]).toEqual(['sample']);
    using finished = finishedLatents(plan, last, test.gpu);
    expect(await test.gpu.memory.readFloats(finished)).toEqual(whole.latents);
  });

  it('is refused where it does not belong to the run', async () => {
    const before = test.gpu.memory.liveBytes;
    const [, second] = whole.states as [SamplerState, SamplerState];
    const without = new Map([...second.latents].filter(([name]) => name !== 'lastSample'));
    const short = new Map([...second.latents].map(([name, values]) => [name, values.subarray(1)]));
    for (const wrong of [
      { stepsDone: 2, latents: without },
      { stepsDone: 2, latents: short },
      { stepsDone: STEPS, latents: second.latents },
      { stepsDone: -1, latents: second.latents },
    ]) {
      await expect(sample(wrong)).rejects.toMatchObject({ code: 'corrupt-data' });
    }
    expect(() => finishedLatents(plan, { stepsDone: STEPS, latents: new Map() }, test.gpu)).toThrow('Discard');
    expect(test.gpu.memory.liveBytes).toBe(before);
  });
});
