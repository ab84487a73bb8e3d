import { describe, expect, it } from 'vitest';
import { publishedAcceleration } from '../../src/checkpoint/ratios';
import { UMT5_XXL, WAN_14B, WAN_VAE } from '../../src/checkpoint/released';
import { residualBytes } from '../../src/diffusion/residuals';
import type { Manifest } from '../../src/manifest';
import { type DeviceBudget, planDit, planVideo } from '../../src/plan';
import { accelerationMessage } from '../../src/plan/acceleration';
import { type Request, type ResolvedRequest, resolveRequest } from '../../src/request';

const MODEL: Pick<Manifest, 'sizes' | 'dit' | 'umt5' | 'vae' | 'boundary' | 'components'> = {
  components: {},
  dit: WAN_14B,
  vae: WAN_VAE,
  umt5: UMT5_XXL,
  boundary: 0.875,
  sizes: {
    '480p': { '16:9': [832, 480], '9:16': [480, 832], '1:1': [640, 640] },
    '580p': { '16:9': [1024, 576], '9:16': [576, 1024], '1:1': [768, 768] },
    '720p': { '16:9': [1280, 720], '9:16': [720, 1280], '1:1': [960, 960] },
  },
};

/** What WebGPU guarantees. */
const DEFAULTS: DeviceBudget = {
  maxStorageBufferBindingSize: 2 ** 27,
  maxBufferSize: 2 ** 28,
  f16: false,
  cpu: false,
  budgetBytes: Number.POSITIVE_INFINITY,
};

const none = { film: false, rife: false, promptExpansion: false, safetyChecker: false };
const resolved = (request: Partial<Request>): ResolvedRequest =>
  resolveRequest({ prompt: '', ...request }, none, () => 7);

describe('cutting the sequence', () => {
  const sizes = [
    [80, 5, 8, 8],
    [32_760, 21, 60, 104],
    [75_600, 21, 90, 160],
    [111_600, 31, 90, 160],
    [65, 1, 10, 26],
  ] as const;

  it.each(sizes)(
    '%i tokens: every binding fits the guaranteed limits, and nothing is left out',
    (tokens, frames, h, w) => {
      for (const f16 of [false, true]) {
        const plan = planDit(
          WAN_14B,
          { tokens, latentFrames: frames, latentHeight: h, latentWidth: w },
          { ...DEFAULTS, f16 },
        );
        let next = 0;
        for (const [index, chunk] of plan.chunks.entries()) {
          expect(chunk).toMatchObject({ index, begin: next });
          expect(chunk.tokens * WAN_14B.ffnDim * 4).toBeLessThanOrEqual(DEFAULTS.maxStorageBufferBindingSize);
          expect(chunk.tokens).toBeLessThanOrEqual(plan.chunks[0]!.tokens);
          expect(chunk.tokens).toBeGreaterThan(0);
          next += chunk.tokens;
        }
        expect(next).toBe(tokens);
        let head = 0;
        for (const group of plan.headGroups) {
          expect(group.begin).toBe(head);
          expect(group.heads * tokens * 128 * (f16 ? 2 : 4)).toBeLessThanOrEqual(DEFAULTS.maxStorageBufferBindingSize);
          head += group.heads;
        }
        expect(head).toBe(WAN_14B.numHeads);
      }
    },
  );

  it('takes one chunk and one group where they fit', () => {
    const plan = planDit(
      { ...WAN_14B, dim: 256, ffnDim: 512, numHeads: 2 },
      { tokens: 80, latentFrames: 5, latentHeight: 8, latentWidth: 8 },
      DEFAULTS,
    );
    expect(plan.chunks).toEqual([{ index: 0, begin: 0, tokens: 80 }]);
    expect(plan.headGroups).toEqual([{ index: 0, begin: 0, heads: 2 }]);
    expect(plan.grid).toEqual([5, 4, 4]);
    expect(plan.type).toBe('f32');
  });

  it('refuses a device on which a single head does not fit', () => {
    const tiny = { ...DEFAULTS, maxStorageBufferBindingSize: 2 ** 22 };
    const shape = { tokens: 75_600, latentFrames: 21, latentHeight: 90, latentWidth: 160 };
    expect(() => planDit(WAN_14B, shape, tiny)).toThrowError(expect.objectContaining({ code: 'out-of-memory' }));
  });

  it('keeps dispatches small on CPU drivers', () => {
    const shape = { tokens: 80, latentFrames: 5, latentHeight: 8, latentWidth: 8 };
    const on = (cpu: boolean) => planDit(WAN_14B, shape, { ...DEFAULTS, cpu }).maxMacPerDispatch;
    expect(on(true)).toBeLessThan(on(false));
  });
});

describe('planning a request', () => {
  it('follows the endpoint: 720p, 81 frames, 27 steps of which 12 run the high-noise expert', () => {
    const plan = planVideo(resolved({}), MODEL, DEFAULTS);
    expect(plan.shape).toMatchObject({ width: 1280, height: 720, frames: 81, tokens: 75_600 });
    expect(plan.denoise.latentShape).toEqual([16, 21, 90, 160]);
    expect(plan.denoise.schedule).toMatchObject({ solver: 'unipc', highSteps: 12 });
    expect(plan.denoise.seed).toBe(7);
    expect(plan.work.steps).toHaveLength(27);
    // wan-perf's table: 6.5 PFLOP a pass, two passes a step; 0.64 PFLOP for the decode.
    expect(plan.work.steps[0]! / 2 / 1e15).toBeCloseTo(6.5, 1);
    expect(plan.work.decode / 1e15).toBeCloseTo(0.62, 1);
    expect(plan.negativePrompt).toBe(true);
    expect(plan.format).toEqual({
      width: 1280,
      height: 720,
      framesPerSecond: 16,
      quality: 'high',
      writeMode: 'balanced',
    });
  });

  it('leaves the negative prompt out where no stage is guided, and counts single passes', () => {
    const plan = planVideo(
      resolved({ guidance_scale: 1, guidance_scale_2: 1, num_inference_steps: 2 }),
      MODEL,
      DEFAULTS,
    );
    expect(plan.negativePrompt).toBe(false);
    expect(plan.work.steps[0]! / 1e15).toBeCloseTo(6.5, 1);
    const half = planVideo(resolved({ guidance_scale: 1 }), MODEL, DEFAULTS);
    expect(half.negativePrompt).toBe(true);
    expect(half.work.steps[26]! / half.work.steps[0]!).toBeCloseTo(2);
  });

  it('refuses what exceeds the budget even when weights are streamed', () => {
    const small = { ...DEFAULTS, budgetBytes: 2e9 };
    expect(() => planVideo(resolved({}), MODEL, small)).toThrowError(
      expect.objectContaining({ code: 'out-of-memory' }),
    );
    expect(planVideo(resolved({}), MODEL, DEFAULTS).weights.residency).toBe('all');
  });

  it('refuses a decoder whose pictures or frames would be others than those it plans', () => {
    for (const other of [
      { dimMult: [1, 2, 4], temporalUpsample: [true, true] },
      { dimMult: [1, 2, 4, 4, 4], temporalUpsample: [true, true, false, false] },
      { temporalUpsample: [true, false, false] },
    ]) {
      const model = { ...MODEL, vae: { ...WAN_VAE, ...other } };
      const refused = expect.objectContaining({
        code: 'bad-checkpoint',
        message: expect.stringContaining('8 × 8 and 4'),
      });
      expect(() => planVideo(resolved({}), model, DEFAULTS)).toThrowError(refused);
    }
    const turned = { ...MODEL, vae: { ...WAN_VAE, temporalUpsample: [false, true, true] } };
    expect(planVideo(resolved({}), turned, DEFAULTS).shape.width).toBe(1280);
  });

  it('decodes in tiles only where whole frames do not fit', () => {
    expect(planVideo(resolved({}), MODEL, DEFAULTS).vaeTile).toBe(54);
    const roomy = { ...DEFAULTS, maxStorageBufferBindingSize: 2 ** 33, maxBufferSize: 2 ** 33 };
    expect(planVideo(resolved({}), MODEL, roomy).vaeTile).toBeNull();
  });

  it('counts the residuals of what is left out, and computes every step where they do not fit', () => {
    // A narrow decoder, so that sampling is what needs most.
    const model = { ...MODEL, vae: { ...WAN_VAE, baseDim: 8 }, acceleration: publishedAcceleration('a14b')! };
    const request = resolved({ acceleration: 'regular' });
    const fits = (budgetBytes: number, acceleration: 'none' | 'regular' = 'none') => {
      try {
        return planVideo(resolved({ acceleration }), model, { ...DEFAULTS, budgetBytes });
      } catch {
        return undefined;
      }
    };
    let [too, enough] = [1e9, 1e12];
    while (enough - too > 1) {
      const middle = Math.floor((too + enough) / 2);
      if (fits(middle)) enough = middle;
      else too = middle;
    }
    const { denoise } = planVideo(request, model, DEFAULTS);
    // 75,600 tokens of 5120 half floats, and a scale and a norm of each, in two branches.
    const bytes = residualBytes(model.dit, denoise.dit, 2);
    expect(bytes / (2 * 75_600 * (5120 * 2 + 8))).toBeCloseTo(1, 5);
    const tight = planVideo(request, model, { ...DEFAULTS, budgetBytes: enough + bytes - 1 });
    expect(tight.evaluations.computesAll).toBe('memory');
    expect(tight.denoise.evaluations!.every(({ conditional }) => conditional === 'compute')).toBe(true);
    expect(accelerationMessage(tight.evaluations)).toContain('memory budget');
    const roomy = planVideo(request, model, { ...DEFAULTS, budgetBytes: enough + bytes });
    expect(roomy.evaluations.computesAll).toBeNull();
    expect(roomy.denoise.evaluations![2]).toEqual({ conditional: 'skip', unconditional: 'skip' });
    expect(accelerationMessage(roomy.evaluations)).toBe(
      'acceleration "regular" reuses results of earlier steps at steps 3, 4, 6, 7, 9, 10, 12, 17, 19, 21, 23 of 27.',
    );
    expect(roomy.work.steps[2]! / roomy.work.steps[1]!).toBeLessThan(1e-3);
    expect(
      accelerationMessage(planVideo(resolved({ acceleration: 'none' }), model, DEFAULTS).evaluations),
    ).toBeUndefined();
    expect(accelerationMessage(planVideo(request, MODEL, DEFAULTS).evaluations)).toContain('zoetrope calibrate');
  });
});
