import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MODEL_NAMES, namedModel } from '../../src/cli/named-models';
import { ZoetropeError } from '../../src/errors';
import { type DeviceBudget, type Plan, type PlannedModel, planVideo, type Refusal } from '../../src/plan';

import { GUARANTEED_LIMITS } from '../../src/plan/device';
import { type Request, type ResolvedRequest, resolveRequest } from '../../src/request';

/**
 * Every plan keeps every limit, over random devices, budgets, requests and models; every refusal names what does fit.
 */

const CASES = 100_000;
const SEED = 20_260_401;

const demo: PlannedModel = JSON.parse(
  readFileSync(resolve(import.meta.dirname, '../../public/models/demo/zoetrope.json'), 'utf8'),
);
const MODELS = new Map<string, PlannedModel>([
  ['demo', demo],
  ...MODEL_NAMES.map((name): [string, PlannedModel] => [name, namedModel(name)]),
]);

const ALL_PARTS = { film: true, rife: true, promptExpansion: true, safetyChecker: true };

/** Uniform numbers from 0 to 1 of a seed: mulberry32. */
function randoms(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function resolved(request: Partial<Request>): ResolvedRequest {
  return resolveRequest({ prompt: '', ...request }, ALL_PARTS, () => 7);
}

/** What a plan breaks, as sentences. */
function violations(plan: Plan, model: PlannedModel, limits: DeviceBudget): string[] {
  const problems: string[] = [];
  const binding = Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);
  for (const { name, largestBytes, bytes, count } of plan.buffers) {
    if (!(largestBytes <= binding)) problems.push(`${name}: ${largestBytes} bytes in a binding of ${binding}`);
    if (!(bytes >= 0 && count > 0)) problems.push(`${name}: ${bytes} bytes in ${count} buffers`);
  }
  if (!(plan.peakBytes <= limits.budgetBytes)) problems.push(`peak ${plan.peakBytes} of ${limits.budgetBytes}`);
  const { chunks, headGroups, tokens } = plan.denoise.dit;
  if (chunks.reduce((sum, chunk) => sum + chunk.tokens, 0) !== tokens) problems.push('chunks are not the sequence');
  const heads = headGroups.reduce((sum, group) => sum + group.heads, 0);
  if (heads !== model.dit.numHeads) problems.push(`${heads} heads`);
  return problems;
}

function tryPlan(request: ResolvedRequest, model: PlannedModel, limits: DeviceBudget): Plan | Refusal {
  try {
    return planVideo(request, model, limits);
  } catch (error) {
    if (!(error instanceof ZoetropeError) || error.code !== 'out-of-memory') throw error;
    return error.detail[0]!.ctx as unknown as Refusal;
  }
}

describe('planning', () => {
  it(`keeps every limit, or names what fits, in ${CASES} random cases`, () => {
    const random = randoms(SEED);
    const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)]!;
    /** Between two numbers, every order of magnitude alike. */
    const spread = (low: number, high: number) => low * (high / low) ** random();
    const models = [...MODELS.values()];
    let refused = 0;
    const problems: string[] = [];
    for (let i = 0; i < CASES && problems.length === 0; i++) {
      const model = pick(models);
      const maxStorageBufferBindingSize = Math.floor(spread(2 ** 27, 2 ** 32) / 4) * 4;
      const maxBufferSize = Math.floor(spread(2 ** 28, 2 ** 32));
      const f16 = random() < 0.5;
      const cpu = random() < 0.1;
      const flops = spread(1e11, 1e14);
      const pace = { products: flops, attention: flops / 2, convolutions: flops / 4, upload: spread(1e8, 2e10) };
      const limits: DeviceBudget = {
        maxStorageBufferBindingSize,
        maxBufferSize,
        f16,
        cpu,
        budgetBytes: Math.floor(spread(3e9, 96e9)),
        ...(random() < 0.5 && { pace }),
      };
      const request = resolved({
        num_frames: 17 + Math.floor(random() * 105),
        resolution: pick(['480p', '580p', '720p']),
        aspect_ratio: pick(['16:9', '9:16', '1:1']),
        num_inference_steps: 2 + Math.floor(random() * 39),
        guidance_scale: random() < 0.2 ? 1 : 1 + 9 * random(),
        guidance_scale_2: random() < 0.2 ? 1 : 1 + 9 * random(),
        shift: 1 + 9 * random(),
        interpolator_model: pick(['none', 'film', 'rife']),
        num_interpolated_frames: Math.floor(random() * 5),
      });
      const planned = tryPlan(request, model, limits);
      if ('buffers' in planned) {
        problems.push(...violations(planned, model, limits));
        continue;
      }
      refused++;
      const { nearest, needsBytes } = planned;
      if (needsBytes !== null && needsBytes <= limits.budgetBytes) problems.push('refused what fits');
      if (nearest) {
        const again = tryPlan({ ...request, ...nearest }, model, limits);
        problems.push(
          ...('buffers' in again ? violations(again, model, limits) : ['the nearest request does not fit']),
        );
      }
      if (needsBytes !== null) {
        const enough = tryPlan(request, model, { ...limits, budgetBytes: needsBytes });
        if (!('buffers' in enough)) problems.push(`${needsBytes} bytes are not enough`);
      }
      if (problems.length > 0) problems.push(`case ${i}: ${JSON.stringify({ request, limits })}`);
    }
    expect(problems).toEqual([]);
    console.log(`${refused} of ${CASES} refused`);
  }, 180_000);

  it('holds every size and length of the released models in 8 GB, on devices of the guaranteed limits', () => {
    const peaks = [0, 0];
    for (const [name, model] of MODELS) {
      for (const resolution of ['480p', '580p', '720p'] as const) {
        for (const aspect_ratio of ['16:9', '9:16', '1:1'] as const) {
          for (const interpolator_model of ['none', 'film', 'rife'] as const) {
            for (const num_frames of [17, 81, 121]) {
              for (const f16 of [true, false]) {
                const request = resolved({
                  resolution,
                  aspect_ratio,
                  interpolator_model,
                  num_frames,
                  num_interpolated_frames: 4,
                });
                const limits = { ...GUARANTEED_LIMITS, f16, cpu: false, budgetBytes: 8e9 };
                const plan = planVideo(request, model, limits); // throws where it does not fit
                expect(violations(plan, model, limits), name).toEqual([]);
                peaks[Number(f16)] = Math.max(peaks[Number(f16)]!, plan.peakBytes);
              }
            }
          }
        }
      }
    }
    console.log(`at most ${peaks.map((bytes) => (bytes / 1e9).toFixed(2))} GB with f32 and f16`);
  }, 60_000);
});
