import { describe, expect, it } from 'vitest';
import { publishedAcceleration } from '../../src/checkpoint/ratios';
import {
  computeAll,
  countEvaluations,
  keptBranches,
  mappedRatios,
  planEvaluations,
  resumableAfter,
  type StepEvaluations,
  skippedSteps,
} from '../../src/diffusion/cache';
import { schedule } from '../../src/diffusion/schedule';

const A14B = publishedAcceleration('a14b')!;
const GUIDED = { guidance_scale: 3.5, guidance_scale_2: 4 };

const official = (steps: number, shift: number, boundary: number | null = 0.875) =>
  schedule({ solver: 'unipc-official', steps, shift, boundary });
/** The endpoint's defaults, on the table that jobs run. */
const DEFAULTS = schedule({ solver: 'unipc', steps: 27, shift: 5, boundary: 0.875 });

describe('published ratios', () => {
  it('lie at the levels of the authors’ runs', () => {
    const { sigmas, highSteps } = official(40, 12);
    expect(highSteps).toBe(26);
    expect([...A14B.high.sigmas, ...A14B.low!.sigmas].map((sigma, i) => Math.abs(sigma - sigmas[i]!) < 1e-6)).toEqual(
      Array(40).fill(true),
    );
    expect(A14B.high.sigmas).toHaveLength(26);
    const small = publishedAcceleration('1.3b')!;
    expect(small.low).toBeUndefined();
    expect(small.high.sigmas).toHaveLength(50);
    expect(small.high.conditional).toHaveLength(50);
    expect(small.high.unconditional.at(-1)).toBe(0.81939);
  });

  it('are not there for Wan 2.1 14B and custom models', () => {
    expect(publishedAcceleration('14b')).toBeUndefined();
    expect(publishedAcceleration('custom')).toBeUndefined();
  });
});

describe('skipped steps of A14B at the calibrated settings', () => {
  // Lists of MagCache4Wan2.2's rule over its published ratios, the same for both branches.
  it.each([
    [0.04, 0.2, [5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23, 24, 29, 31, 33]],
    [0.06, 0.4, [10, 11, 13, 14, 16, 17, 19, 20, 22, 23, 25, 32, 34, 36]],
  ])('threshold %f, retention %f', (threshold, retention, expected) => {
    const measured = { ...A14B, threshold, retention };
    for (const branch of ['conditional', 'unconditional'] as const) {
      expect(skippedSteps(official(40, 12), measured, branch), branch).toEqual(expected);
    }
  });
});

describe('other settings', () => {
  const { sigmas, highSteps } = official(27, 5);
  const high = mappedRatios(A14B.high.sigmas, A14B.high.conditional, [...sigmas.subarray(0, highSteps)]);
  const low = mappedRatios(A14B.low!.sigmas, A14B.low!.conditional, [...sigmas.subarray(highSteps, 27)]);

  it('read the ratios at their own levels, expert by expert', () => {
    const expectedHigh = [
      1, 0.9951, 0.98893, 0.98812, 0.98951, 0.99087, 0.98962, 0.98909, 0.98874, 0.9884, 0.98755, 0.98653,
    ];
    const expectedLow = [
      1, 0.98421, 0.98264, 0.98064, 0.9786, 0.97652, 0.97285, 0.96926, 0.96375, 0.95515, 0.94404, 0.92856, 0.9078,
      0.86655, 0.9296,
    ];
    expect(high).toHaveLength(expectedHigh.length);
    expect(low).toHaveLength(expectedLow.length);
    for (const [i, ratio] of expectedHigh.entries()) expect(high[i], `high ${i}`).toBeCloseTo(ratio, 4);
    for (const [i, ratio] of expectedLow.entries()) expect(low[i], `low ${i}`).toBeCloseTo(ratio, 4);
  });

  it('leave out the documented steps of 27 at shift 5, 22 of 54 evaluations', () => {
    const documented = [2, 3, 5, 6, 8, 9, 11, 16, 18, 20, 22];
    expect(skippedSteps(official(27, 5), A14B, 'conditional')).toEqual(documented);
    const plan = planEvaluations(DEFAULTS, GUIDED, 'regular', A14B);
    expect(plan.computesAll).toBeNull();
    expect(countEvaluations(plan.steps)).toEqual({
      total: 54,
      computed: 32,
      skipped: { conditional: documented, unconditional: documented },
    });
  });

  it('never leave out an expert’s first steps, nor what nobody has measured, nor more than allowed in a row', () => {
    const flat = { sigmas: [0.999, 0.1], conditional: [1, 1], unconditional: [1, 1] };
    for (const shift of [1, 3, 5, 10]) {
      for (const steps of [10, 11, 27, 40]) {
        const run = schedule({ solver: 'unipc', steps, shift, boundary: 0.875 });
        for (const retention of [0, 0.2, 1]) {
          const measured = { ...A14B, high: flat, low: flat, retention };
          const skipped = skippedSteps(run, measured, 'conditional');
          expect(skipped).not.toContain(0);
          expect(skipped).not.toContain(run.highSteps);
          expect(skipped.filter((step) => run.sigmas[step]! < 0.1)).toEqual([]);
          const runs = skipped.filter((step) => skipped.includes(step + 1) && skipped.includes(step + 2));
          expect(runs).toEqual([]);
          if (retention === 1) expect(skipped).toEqual([]);
        }
      }
    }
  });

  it('follow each branch’s own ratios', () => {
    const measured = { ...A14B, high: { ...A14B.high, unconditional: A14B.high.unconditional.map(() => 0.5) } };
    const { steps } = planEvaluations(DEFAULTS, GUIDED, 'regular', measured);
    expect(countEvaluations(steps).skipped).toEqual({
      conditional: [2, 3, 5, 6, 8, 9, 11, 16, 18, 20, 22],
      unconditional: [16, 18, 20, 22],
    });
    expect(steps[1]).toEqual({ conditional: 'keep', unconditional: 'compute' });
    expect(steps[2]).toEqual({ conditional: 'skip', unconditional: 'compute' });
    expect(resumableAfter(steps, 1)).toBe(false);
  });
});

describe('a run', () => {
  it('keeps what the next step reuses, and can be taken up wherever the next step reuses nothing', () => {
    const { steps } = planEvaluations(DEFAULTS, GUIDED, 'regular', A14B);
    for (const [index, { conditional }] of steps.entries()) {
      const next = steps[index + 1]?.conditional;
      if (conditional !== 'skip') expect(conditional, `step ${index}`).toBe(next === 'skip' ? 'keep' : 'compute');
      expect(resumableAfter(steps, index), `step ${index}`).toBe(next !== 'skip');
    }
    expect(keptBranches(steps)).toBe(2);
  });

  it('computes every step where it has to, and says why', () => {
    const why = (acceleration: 'none' | 'regular', run = DEFAULTS, measured: typeof A14B | undefined = A14B) => {
      const plan = planEvaluations(run, GUIDED, acceleration, measured);
      if (plan.computesAll !== null) expect(plan.steps).toEqual(computeAll(run, GUIDED));
      return plan.computesAll;
    };
    expect(why('none')).toBe('not-asked');
    expect(planEvaluations(DEFAULTS, GUIDED, 'regular', undefined).computesAll).toBe('no-ratios');
    expect(why('regular', schedule({ solver: 'euler', steps: 20, shift: 5, boundary: 0.875 }))).toBe('distilled');
    expect(why('regular', schedule({ solver: 'unipc', steps: 9, shift: 5, boundary: 0.875 }))).toBe('few-steps');
    expect(why('regular', DEFAULTS, { ...A14B, threshold: 1e-6 })).toBe('no-step');
    expect(why('regular')).toBeNull();
  });

  it('has no unconditional evaluation where a stage is not guided', () => {
    const guidance = { guidance_scale: 1, guidance_scale_2: 4 };
    const { steps } = planEvaluations(DEFAULTS, guidance, 'regular', A14B);
    expect(steps.slice(0, 12).every(({ unconditional }) => unconditional === 'absent')).toBe(true);
    expect(countEvaluations(steps)).toMatchObject({ total: 27 + 15, skipped: { unconditional: [16, 18, 20, 22] } });
    const unguided = planEvaluations(DEFAULTS, { guidance_scale: 1, guidance_scale_2: 1 }, 'regular', A14B);
    expect(keptBranches(unguided.steps)).toBe(1);
  });

  it('keeps nothing where every step is computed', () => {
    const steps: StepEvaluations[] = computeAll(DEFAULTS, GUIDED);
    expect(keptBranches(steps)).toBe(0);
    expect(steps.every((_, index) => resumableAfter(steps, index))).toBe(true);
  });

  it('of one expert goes by a single list', () => {
    const small = publishedAcceleration('1.3b')!;
    const run = official(50, 5, null);
    expect(run.highSteps).toBe(50);
    const skipped = skippedSteps(run, small, 'conditional');
    expect(skipped[0]).toBe(10);
    // Threshold 0.12, K 4, retention 0.2 bound 1.3B's 50 steps to about what its authors measured, 2.8×.
    expect(50 / (50 - skipped.length)).toBeGreaterThan(2.2);
    expect(50 / (50 - skipped.length)).toBeLessThan(3);
  });
});
