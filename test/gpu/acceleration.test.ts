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

/** `acceleration` on the shipped demo model at the endpoint's default of 27 steps. */

const PROMPT = 'a red circle moving right';
/** What MagCache's rule leaves out by the demo's measured ratios (`zoetrope.json`), of either branch. */
const SKIPPED = [2, 3, 5, 7, 9, 16, 18, 20, 22, 24];
/** Decibels of `regular`'s frames against `none`'s. Measured: 44.8 with f32 attention. */
const MIN_PSNR_DB = 40;
/** 27 steps on a CPU driver, twice; on a busy machine they take several minutes. */
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
  const request = resolveRequest({ ...wanted, num_inference_steps: 27 }, parts, () => 7);
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
  it('leaves out the documented steps, and the frames stay near those of every step', SLOW, async () => {
    const none = await run('none');
    const regular = await run('regular');
    expect(none.evaluations).toEqual({ total: 54, computed: 54, skipped: { conditional: [], unconditional: [] } });
    expect(regular.evaluations).toEqual({
      total: 54,
      computed: 34,
      skipped: { conditional: SKIPPED, unconditional: SKIPPED },
    });
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
    expect(regular.samples.slice(0, SKIPPED[0])).toEqual(none.samples.slice(0, SKIPPED[0]));
    expect(regular.samples[SKIPPED[0]!]).not.toEqual(none.samples[SKIPPED[0]!]);
  });
});
