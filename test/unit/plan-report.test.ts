import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { namedModel } from '../../src/cli/named-models';
import { parseBytes, runPlan } from '../../src/cli/plan';
import { planVideo } from '../../src/plan';
import { estimateBudget, GUARANTEED_LIMITS } from '../../src/plan/device';
import { durationText } from '../../src/plan/explain';
import { nearestRequest } from '../../src/plan/nearest';
import {
  convolutionMac,
  dispatchMac,
  evenPace,
  operations,
  type Pace,
  type StageWork,
  stageSeconds,
} from '../../src/plan/pace';
import { modelBytes } from '../../src/plan/residency';
import { chunkLength } from '../../src/plan/transformer';
import { type Request, type ResolvedRequest, resolveRequest } from '../../src/request';

const parts = { film: true, rife: true, promptExpansion: true, safetyChecker: true };
const resolved = (request: Partial<Request>): ResolvedRequest =>
  resolveRequest({ prompt: '', ...request }, parts, () => 7);

describe('zoetrope plan', () => {
  const request = { prompt: '', interpolator_model: 'none' } as const;

  it('tells memory and time of a released model, as the published arithmetic has them', async () => {
    const everyStep = { ...request, acceleration: 'none' } as const;
    const report = await runPlan(everyStep, { model: 'a14b', budget: '24GiB', tflops: 20 });
    expect(report).toMatchObject({ fits: true, residency: 'one', width: 1280, height: 720, frames: 81 });
    // 352 PFLOP at 720p and 90.6 at 480p, that is 4.9 hours and 75 minutes.
    expect(report.flop! / 1e15).toBeGreaterThan(345);
    expect(report.flop! / 1e15).toBeLessThan(360);
    expect(report.summary).toMatch(
      /^fits: \d+\.\d of 25\.8 GB, about 4\.9 hours at 20 TFLOP\/s; at 480p about 7\d minutes$/,
    );
    expect(report.stages.map(({ name }) => name)).toEqual(['text', 'high', 'low', 'decode']);
    expect(report.peakBytes).toBe(Math.max(...report.stages.map(({ bytes }) => bytes)));
    const seconds = report.stages.reduce((sum, stage) => sum + stage.seconds!, 0);
    expect(report.seconds).toBeCloseTo(seconds);
    expect(report.explanation).toContain('high-noise steps');
    expect(report.explanation.split('\n')[0]).toBe(report.summary);
  });

  it('tells no time where nobody has told the speed', async () => {
    const report = await runPlan({ ...request, resolution: '480p' }, { model: '1.3b' });
    expect(report.seconds).toBeNull();
    expect(report.summary).toMatch(/^fits: \d\.\d of 8\.0 GB$/);
  });

  it('refuses with the nearest request that fits and the least budget that would do', async () => {
    const long = { ...request, num_frames: 121 };
    const { fits, refused, summary } = await runPlan(long, { model: 'a14b', budget: '5GB' });
    expect(fits).toBe(false);
    expect(summary).toBe(refused!.message);
    const { nearest, needsBytes } = refused!;
    expect(nearest).toMatchObject({ num_frames: 121, aspect_ratio: '16:9' });
    expect((await runPlan({ ...long, ...nearest }, { model: 'a14b', budget: '5GB' })).fits).toBe(true);
    expect((await runPlan(long, { model: 'a14b', budget: `${needsBytes}` })).fits).toBe(true);
    expect((await runPlan(long, { model: 'a14b', budget: `${needsBytes! - 1}` })).fits).toBe(false);
  });

  it('reads limits of a device from a file and refuses nonsense in it', async () => {
    const file = join(mkdtempSync(join(tmpdir(), 'limits-')), 'limits.json');
    writeFileSync(file, JSON.stringify({ maxStorageBufferBindingSize: 2 ** 31, maxBufferSize: 2 ** 32, other: 1 }));
    const roomy = await runPlan(request, { model: 'a14b', budget: '24GiB', limits: file });
    expect(roomy.headGroups).toBe(1);
    expect((await runPlan(request, { model: 'a14b', budget: '24GiB' })).headGroups).toBeGreaterThan(1);
    writeFileSync(file, JSON.stringify({ maxBufferSize: '1' }));
    await expect(runPlan(request, { limits: file })).rejects.toMatchObject({ code: 'bad-request' });
    writeFileSync(file, '{}');
    expect((await runPlan(request, { model: 'a14b', budget: '24GiB', limits: file })).headGroups).toBeGreaterThan(1);
    for (const nothing of ['null', '[134217728]', '"default"', '134217728', '{']) {
      writeFileSync(file, nothing);
      await expect(runPlan(request, { limits: file })).rejects.toMatchObject({ code: 'unreadable-source' });
    }
    await expect(runPlan(request, { limits: `${file}.not` })).rejects.toMatchObject({ code: 'unreadable-source' });
  });

  it('reads budgets with units', () => {
    expect(parseBytes('8GiB')).toBe(2 ** 33);
    expect(parseBytes('8 GB')).toBe(8e9);
    expect(parseBytes('1.5MiB')).toBe(1.5 * 2 ** 20);
    expect(parseBytes('8000000000')).toBe(8e9);
    for (const text of ['', '0', '-1', '8 gigs', 'GiB', '1e9', '0.1', '9999999999999GiB']) {
      expect(() => parseBytes(text)).toThrowError(expect.objectContaining({ code: 'bad-request' }));
    }
  });
});

describe('the nearest request', () => {
  const request = resolved({ resolution: '720p', num_frames: 81, interpolator_model: 'film' });
  const nearest = (fits: (each: ResolvedRequest) => boolean) => nearestRequest(request, fits);

  it('has a lower resolution before fewer frames', () => {
    expect(nearest(({ resolution }) => resolution === '480p')).toMatchObject({ resolution: '480p', num_frames: 81 });
    const short = nearest(
      ({ num_frames, resolution }) => num_frames <= 41 || (num_frames <= 50 && resolution !== '720p'),
    );
    expect(short).toMatchObject({ resolution: '580p', num_frames: 49, interpolator_model: 'film' });
    expect(nearest(({ num_frames }) => num_frames <= 41)).toMatchObject({ resolution: '720p', num_frames: 41 });
    expect(nearest(({ num_frames }) => num_frames <= 17)).toMatchObject({ resolution: '720p', num_frames: 17 });
  });

  it('gives up frames in between, then the shape, and tells when nothing is left', () => {
    expect(nearest(({ interpolator_model }) => interpolator_model === 'none')).toMatchObject({
      interpolator_model: 'none',
      resolution: '720p',
    });
    expect(nearest(({ aspect_ratio }) => aspect_ratio === '1:1')).toMatchObject({
      aspect_ratio: '1:1',
      interpolator_model: 'film',
    });
    expect(nearest(() => false)).toBeUndefined();
  });
});

describe('time', () => {
  const work: StageWork = { products: 4e12, attention: 2e12, convolutions: 1e12, uploadBytes: 5e9, overlapped: false };

  it('adds up what each rate makes of its operations', () => {
    const pace = { products: 2e12, attention: 1e12, convolutions: 1e12, upload: 1e9 };
    expect(operations(work)).toBe(7e12);
    expect(stageSeconds(work, pace)).toBe(2 + 2 + 1 + 5);
    expect(stageSeconds({ ...work, overlapped: true }, pace)).toBe(5);
    expect(stageSeconds({ ...work, overlapped: true, uploadBytes: 9e9 }, pace)).toBe(9);
  });

  it('is that of the weights’ way to the GPU where that takes longest', () => {
    const model = namedModel('a14b');
    const limits = { ...GUARANTEED_LIMITS, f16: true, cpu: false };
    const at = (budgetBytes: number, pace: Partial<Pace>, wanted: Partial<Request> = {}) => {
      const fast = { products: 1e20, attention: 1e20, convolutions: 1e20, upload: 1e20, ...pace };
      const request = resolved({ acceleration: 'none', interpolator_model: 'none', ...wanted });
      const plan = planVideo(request, model, { ...limits, budgetBytes, pace: fast });
      return { ...plan, high: plan.stages[1]!.seconds!, text: plan.stages[0]! };
    };
    const total = modelBytes(model.components).high!.total / 1e9;
    const slow = { upload: 1e9 };
    const whole = at(24e9, slow);
    expect(whole.weights.residency).toBe('one');
    expect(whole.high / total).toBeCloseTo(1, 3);
    const { highSteps } = whole.denoise.schedule;
    const streamed = at(8e9, slow, { resolution: '480p' });
    expect(streamed.denoise.dit).toMatchObject({ branchOrder: 'layer-major', textKeys: 'kept' });
    expect(streamed.high / total).toBeCloseTo(highSteps + 1, 3); // and once for the keys of the text
    const twice = at(7e9, slow, { num_frames: 121 });
    expect(twice.denoise.dit).toMatchObject({ branchOrder: 'branch-major', textKeys: 'each-block' });
    expect(twice.high / total).toBeCloseTo(2 * highSteps, 3);
    // A streamed text encoder computes meanwhile.
    const bytes = modelBytes(model.components).text_encoder!.total;
    const { text, weights } = at(3.2e9, slow, { resolution: '480p', num_frames: 17 });
    expect(weights.textSlots).not.toBeNull();
    const even = { upload: 1e9, products: text.flop / (bytes / 1e9) };
    expect(at(3.2e9, even, { resolution: '480p', num_frames: 17 }).text.seconds).toBeCloseTo(bytes / 1e9, 3);
  });

  it('is told as exactly as it is known', () => {
    expect([3, 44, 89, 91, 22 * 60, 5399].map(durationText)).toEqual([
      'a few seconds',
      '45 seconds',
      '90 seconds',
      '2 minutes',
      '22 minutes',
      '90 minutes',
    ]);
    expect([7200, 17_640, 100_000].map(durationText)).toEqual(['2 hours', '4.9 hours', '28 hours']);
  });

  it('bounds dispatches to 100 ms of the measured device, and by work on CPUs', () => {
    expect(dispatchMac(false, 2e12)).toBe(1e11);
    expect(dispatchMac(false, undefined)).toBe(5e10);
    expect(dispatchMac(true, 1e15)).toBe(2e8);
    expect(convolutionMac(false, 4e10)).toBe(2e9);
    expect(convolutionMac(false, undefined)).toBeUndefined();
    expect(convolutionMac(true, 4e10)).toBeUndefined();
    const limits = { ...GUARANTEED_LIMITS, f16: true, cpu: false, budgetBytes: 24e9 };
    const planned = (pace?: Pace) => planVideo(resolved({}), namedModel('a14b'), { ...limits, pace }).convolutionMac;
    expect(planned({ ...evenPace(1e12), convolutions: 4e10 })).toBe(2e9);
    expect(planned()).toBeUndefined();
    const { dit } = namedModel('a14b');
    const device = { maxStorageBufferBindingSize: 2 ** 31, maxBufferSize: 2 ** 32, f16: true, cpu: false };
    for (const flops of [3e11, 1e12, 2e13]) {
      const chunk = chunkLength(dit, 75_600, { ...device, pace: evenPace(flops) }, 4096);
      const seconds = (2 * chunk * dit.dim * dit.ffnDim) / flops;
      expect(seconds).toBeLessThanOrEqual(0.1);
      expect(chunk % 64).toBe(0);
    }
  });
});

describe('the budget that nobody has set', () => {
  it('is 8 GB, or 70 % of a small machine', () => {
    expect(estimateBudget(undefined)).toBe(8e9);
    expect(estimateBudget(8)).toBe(8e9);
    expect(estimateBudget(32)).toBe(8e9);
    expect(estimateBudget(4)).toBe(0.7 * 2 ** 32);
    expect(estimateBudget(0.25)).toBe(0.7 * 2 ** 28);
  });
});
