import { ZoetropeError } from '../errors';
import type { Acceleration, MagnitudeRatios } from '../manifest';
import { countEvaluations, planEvaluations } from './cache';
import { type Schedule, type Stage, schedule } from './schedule';

/** Digits behind the point that ratios and levels are kept with, as published ones are. */
const DIGITS = 5;
const rounded = (value: number) => Number(value.toFixed(DIGITS));

/** Shares of steps that are protected and steps in a row that are left out: the defaults of MagCache's authors. */
const RETENTION = 0.2;
const MAX_SKIPS = 2;
/** Thresholds that are tried, in hundredths: the range of MagCache's users (Wan2GP tries the same). */
const THRESHOLDS = Array.from({ length: 60 }, (_, index) => (index + 1) / 100);
/**
 * Times fewer evaluations that the threshold is chosen for; what the published settings come to lies between 1.5 and
 * 1.7.
 */
const SPEEDUP = 1.5;
/** Where no threshold gives that: what A14B's authors recommend. */
const PUBLISHED_THRESHOLD = 0.06;

/** Mean over tokens of the residual's magnitude now over the one before. Tokens without any before are not counted. */
export function meanRatio(now: ArrayLike<number>, before: ArrayLike<number>): number {
  let sum = 0;
  let count = 0;
  for (let token = 0; token < now.length; token++) {
    if (!(before[token]! > 0)) continue;
    sum += now[token]! / before[token]!;
    count++;
  }
  return count > 0 ? sum / count : 1;
}

/** Collects the residuals' norms step by step and makes ratios of them. */
export class RatioRecorder {
  private readonly stages: Partial<Record<Stage, MagnitudeRatios>> = {};
  private before: { stage: Stage; conditional: ArrayLike<number>; unconditional: ArrayLike<number> } | undefined;

  /**
   * Adds the next step.
   * @param sigma its noise level.
   * @param conditional norm of each token's residual, and so `unconditional`.
   */
  add(stage: Stage, sigma: number, conditional: ArrayLike<number>, unconditional: ArrayLike<number>): void {
    const before = this.before?.stage === stage ? this.before : undefined;
    const ratios = this.stages[stage] ?? { sigmas: [], conditional: [], unconditional: [] };
    this.stages[stage] = ratios;
    ratios.sigmas.push(rounded(sigma));
    ratios.conditional.push(before ? rounded(meanRatio(conditional, before.conditional)) : 1);
    ratios.unconditional.push(before ? rounded(meanRatio(unconditional, before.unconditional)) : 1);
    this.before = { stage, conditional, unconditional };
  }

  /**
   * What the manifest holds. The threshold is the smallest of 0.01, 0.02 … 0.6 with which the endpoint's default run of
   * 27 steps at shift 5 computes 1.5 times fewer evaluations; 0.06 where none does. Throws `bad-request` for a run in
   * which an expert had fewer than two steps.
   * @param boundary of the model, as in {@link schedule}.
   */
  result(boundary: number | null): Acceleration {
    const { high, low } = this.stages;
    const short = [high, ...(boundary === null ? [] : [low])].some((ratios) => (ratios?.sigmas.length ?? 0) < 2);
    if (!high || short) {
      throw new ZoetropeError(
        'bad-request',
        `Each expert needs two steps or more to be measured, got ${high?.sigmas.length ?? 0} and ${low?.sigmas.length ?? 0}. Use more steps.`,
      );
    }
    const measured = {
      threshold: PUBLISHED_THRESHOLD,
      maxSkips: MAX_SKIPS,
      retention: RETENTION,
      high,
      ...(low && { low }),
    };
    const run = schedule({ solver: 'unipc', steps: 27, shift: 5, boundary });
    const threshold = THRESHOLDS.find((tried) => speedup(run, { ...measured, threshold: tried }) >= SPEEDUP);
    return { ...measured, threshold: threshold ?? PUBLISHED_THRESHOLD };
  }
}

/** Evaluations of a guided run for each one that is computed. */
function speedup(run: Schedule, measured: Acceleration): number {
  const guidance = { guidance_scale: 2, guidance_scale_2: 2 }; // any but 1
  const { total, computed } = countEvaluations(planEvaluations(run, guidance, 'regular', measured).steps);
  return total / computed;
}
