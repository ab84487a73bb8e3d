import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { diskFolder } from '../../src/cli/files';
import { countEvaluations } from '../../src/diffusion/cache';
import { denoise } from '../../src/diffusion/denoise';
import type { TextEmbedding } from '../../src/diffusion/text-keys';
import { residentModel } from '../../src/model';
import { planVideo } from '../../src/plan';
import { resolveRequest } from '../../src/request';
import { openModel, type VerifiedModel } from '../../src/store/verified';
import { encodeTexts } from '../../src/text/umt5';
import { loadVae } from '../../src/vae/decoder';
import { decodeAll } from '../fixtures/pipeline';
import { openTestGpu, type TestGpu } from '../harness/dawn';

/** `acceleration` on the shipped demo model. `ZOETROPE_STEPS=27`: at the endpoint's default, in twice the time. */

const PROMPT = 'a red circle moving right';
const STEPS = Number(process.env.ZOETROPE_STEPS ?? 14);
/**
 * Decibels of `regular`'s frames against `none`'s. Measured with f32 attention: 37.0 at 14 steps, where 20 of 28
 * evaluations are computed, and 44.8 at 27 with 34 of 54.
 */
const MIN_PSNR_DB = STEPS < 27 ? 33 : 40;
/** Twice so many steps on a CPU driver; on a busy machine they take several minutes. */
const SLOW = { timeout: 1_800_000 };

let test: TestGpu;
let verified: VerifiedModel;
let texts: TextEmbedding[];
const signal = new AbortController().signal;
const load = { signal, onProgress: () => undefined };

beforeAll(async () => {
  test = await openTestGpu();
  const { gpu, ort } = test;
  verified = await openModel(diskFolder(resolve(import.meta.dirname, '../../public/models/demo')));
  using model = residentModel(gpu, verified);
  const tokenizer = await model.tokenizer(load);
  const { weights, source } = await model.textEncoder(load);
  const prompts = [PROMPT, ''].map((prompt) => tokenizer.encode(prompt));
  texts = await encodeTexts({ gpu, ort, config: verified.manifest.umt5, weights, source }, prompts);
});
afterAll(() => test.close());

/** The latents after each step, the frames as bytes, and what the plan evaluated. */
async function run(acceleration: 'none' | 'regular') {
  const { gpu, ort } = test;
  const { manifest } = verified;
  const { maxBufferSize, maxStorageBufferBindingSize } = gpu.device.limits;
  const limits = { maxBufferSize, maxStorageBufferBindingSize, f16: gpu.f16, cpu: true, budgetBytes: Infinity };
  const wanted = { prompt: PROMPT, aspect_ratio: '1:1', num_frames: 17, shift: 5, acceleration } as const;
  const parts = { film: false, rife: false, promptExpansion: false, safetyChecker: false };
  const request = resolveRequest({ ...wanted, num_inference_steps: STEPS }, parts, () => 7);
  const plan = planVideo(request, manifest, limits);
  using model = residentModel(gpu, verified);
  const host = { gpu, ort, config: manifest.dit, expert: (stage: 'high' | 'low') => model.expert(stage, load) };
  const samples: Float32Array[] = [];
  const began = performance.now();
  using latents = await denoise(plan.denoise, texts[0]!, texts[1]!, host, async ({ sample }) => {
    samples.push(await gpu.memory.readFloats(sample));
  });
  const seconds = (performance.now() - began) / 1000;
  using vae = await loadVae(gpu, manifest.vae, verified.component('vae'));
  const { values } = await decodeAll(test, vae, latents);
  const bytes = values.map((value) => Math.round(((Math.max(-1, Math.min(1, value)) + 1) / 2) * 255));
  return { samples, bytes, seconds, evaluations: countEvaluations(plan.evaluations.steps) };
}

describe('acceleration of the demo model', () => {
  it('leaves out steps, and the frames stay near those of every step', SLOW, async () => {
    const none = await run('none');
    const regular = await run('regular');
    expect(none.evaluations).toEqual({
      total: 2 * STEPS,
      computed: 2 * STEPS,
      skipped: { conditional: [], unconditional: [] },
    });
    const { conditional, unconditional } = regular.evaluations.skipped;
    const times = regular.evaluations.total / regular.evaluations.computed;
    expect(times).toBeGreaterThanOrEqual(1.4);
    const squares = none.bytes.reduce((sum, value, i) => sum + (value - regular.bytes[i]!) ** 2, 0);
    const psnr = 10 * Math.log10((255 ** 2 * none.bytes.length) / squares);
    console.log(
      `acceleration: ${times.toFixed(2)} times fewer evaluations, ${none.seconds.toFixed(1)} s against ${regular.seconds.toFixed(1)} s, ` +
        `frames ${psnr.toFixed(1)} dB`,
    );
    expect(psnr).toBeGreaterThan(MIN_PSNR_DB);
    // Up to the first step that is left out both are one run, to the bit.
    const first = Math.min(...conditional, ...unconditional);
    expect(regular.samples.slice(0, first)).toEqual(none.samples.slice(0, first));
    expect(regular.samples[first]).not.toEqual(none.samples[first]);
  });
});
