/**
 * Which evaluations of the network a run leaves out: the rule of MagCache (arXiv 2506.09045; MagCache4Wan2.2
 * `magcache_generate.py`). The residual of an evaluation is what its blocks add to the patch embedding. From step to
 * step it keeps its direction and changes in magnitude by a ratio that depends on the model and the noise level alone,
 * so that a step may reuse the residual of an earlier one while the ratios in between stay near 1. Nothing is read
 * back: the schedule is known before sampling.
 */

import type { Acceleration, MagnitudeRatios } from '../manifest';
import type { EvaluationCounts } from '../protocol';
import { type GuidanceScales, guidanceOf } from './guidance';
import { type Schedule, type Stage, stageOf } from './schedule';

/**
 * What an evaluation does: `compute` runs the blocks, `keep` too and keeps the residual for the step after it, `skip`
 * reuses the one that was kept last. `absent`: the branch does not run in this step.
 */
export type Evaluation = 'compute' | 'keep' | 'skip' | 'absent';

/** A step's evaluations, one for each guidance branch. */
export interface StepEvaluations {
  conditional: Exclude<Evaluation, 'absent'>;
  unconditional: Evaluation;
}

const BRANCHES = ['conditional', 'unconditional'] as const;
type BranchName = (typeof BRANCHES)[number];

/** Fewest steps of a run that leaves any out; below, each of them does too much. */
export const MIN_STEPS = 10;

/** Why a run computes every step. */
export type ComputesAll =
  /** The request says `none`. */
  | 'not-asked'
  /** The manifest has no ratios. */
  | 'no-ratios'
  /** Fewer than {@link MIN_STEPS}. */
  | 'few-steps'
  /** Euler's schedule belongs to distilled experts, whose few steps leave nothing to reuse. */
  | 'distilled'
  /** The residuals change too much at each step of this run. */
  | 'no-step'
  /** There is no room for the residuals. */
  | 'memory';

/** The evaluations of a run, and why none is left out where none is. */
export interface EvaluationPlan {
  steps: readonly StepEvaluations[];
  computesAll: ComputesAll | null;
}

/** Every evaluation computed, with its residual kept or not. */
export function computeAll(
  schedule: Schedule,
  guidance: GuidanceScales,
  how: 'compute' | 'keep' = 'compute',
): StepEvaluations[] {
  return schedule.timesteps.map((_, index) => ({
    conditional: how,
    unconditional: guidanceOf(stageOf(schedule, index), guidance).unconditional ? how : 'absent',
  }));
}

/** Decides the evaluations of a run. */
export function planEvaluations(
  schedule: Schedule,
  guidance: GuidanceScales,
  acceleration: 'none' | 'regular',
  measured: Acceleration | undefined,
): EvaluationPlan {
  const all = (computesAll: ComputesAll): EvaluationPlan => ({ steps: computeAll(schedule, guidance), computesAll });
  if (acceleration === 'none') return all('not-asked');
  if (!measured) return all('no-ratios');
  if (schedule.solver === 'euler') return all('distilled');
  if (schedule.timesteps.length < MIN_STEPS) return all('few-steps');
  const steps = computeAll(schedule, guidance);
  for (const branch of BRANCHES) {
    for (const index of skippedSteps(schedule, measured, branch)) {
      if (steps[index]![branch] === 'absent') continue;
      steps[index]![branch] = 'skip';
      if (steps[index - 1]![branch] === 'compute') steps[index - 1]![branch] = 'keep';
    }
  }
  return steps.some((step) => BRANCHES.some((branch) => step[branch] === 'skip'))
    ? { steps, computesAll: null }
    : all('no-step');
}

/** Steps that a branch leaves out, ascending. The residual never crosses from one expert to the other. */
export function skippedSteps(schedule: Schedule, measured: Acceleration, branch: BranchName): number[] {
  const { highSteps, timesteps } = schedule;
  const stages: [Stage, number, number][] = [
    ['high', 0, highSteps],
    ['low', highSteps, timesteps.length],
  ];
  return stages.flatMap(([stage, begin, end]) => {
    const ratios = measured[stage];
    if (!ratios) return [];
    const sigmas = [...schedule.sigmas.subarray(begin, end)];
    return skipsOfStage(stage, sigmas, ratios, branch, measured).map((index) => begin + index);
  });
}

/**
 * The rule within a stage of steps at `sigmas`. Upstream counts calls of the network, two a step, and protects the
 * first ones by their number; here a step is protected where its first call is, so that both branches agree.
 */
function skipsOfStage(
  stage: Stage,
  sigmas: readonly number[],
  measured: MagnitudeRatios,
  branch: BranchName,
  { threshold, maxSkips, retention }: Acceleration,
): number[] {
  const calls = 2 * sigmas.length * retention;
  const protectedStep = (index: number) =>
    index === 0 || (stage === 'high' ? 2 * index < Math.trunc(calls) : 2 * index <= calls);
  // Nobody has measured what lies below the last level, and there the residual changes fastest.
  const lowest = measured.sigmas.at(-1)!;
  const ratios = mappedRatios(measured.sigmas, measured[branch], sigmas);
  const skipped: number[] = [];
  let [magnitude, skips, error] = [1, 0, 0];
  for (const [index, ratio] of ratios.entries()) {
    magnitude *= ratio;
    skips++;
    error += Math.abs(1 - magnitude);
    const near = error < threshold && skips <= maxSkips;
    if (near && !protectedStep(index) && sigmas[index]! >= lowest) {
      skipped.push(index);
    } else {
      [magnitude, skips, error] = [1, 0, 0];
    }
  }
  return skipped;
}

/**
 * Ratios measured at some noise levels for the steps of another run: their logarithms add up to a function of the
 * level, which is read at the other run's levels, linearly in between and constant outside.
 * @param measured levels of the measured steps, falling.
 * @param ratios magnitude at each of them over that at the level before; the first is not read.
 * @param sigmas levels of the run's steps, falling.
 * @returns a ratio for each of `sigmas`; the first is 1.
 */
export function mappedRatios(
  measured: readonly number[],
  ratios: readonly number[],
  sigmas: readonly number[],
): number[] {
  const logarithms = [0];
  for (let index = 1; index < measured.length; index++) logarithms.push(logarithms.at(-1)! + Math.log(ratios[index]!));
  const logarithmAt = (sigma: number): number => {
    const after = measured.findIndex((level) => level <= sigma);
    if (after === 0) return 0;
    if (after < 0) return logarithms.at(-1)!;
    const share = (measured[after - 1]! - sigma) / (measured[after - 1]! - measured[after]!);
    return logarithms[after - 1]! + share * (logarithms[after]! - logarithms[after - 1]!);
  };
  return sigmas.map((sigma, index) =>
    index === 0 ? 1 : Math.exp(logarithmAt(sigma) - logarithmAt(sigmas[index - 1]!)),
  );
}

/** Branches whose residuals a run keeps: 0, 1 (the conditional one) or 2. */
export function keptBranches(steps: readonly StepEvaluations[]): 0 | 1 | 2 {
  if (steps.some(({ unconditional }) => unconditional === 'keep')) return 2;
  return steps.some(({ conditional }) => conditional === 'keep') ? 1 : 0;
}

/** Whether a run can be taken up behind step `index` from the solver's latents alone. */
export function resumableAfter(steps: readonly StepEvaluations[], index: number): boolean {
  const next = steps[index + 1];
  return !next || BRANCHES.every((branch) => next[branch] !== 'skip');
}

/** What the answer says of a run. */
export function countEvaluations(steps: readonly StepEvaluations[]): EvaluationCounts {
  const those = (branch: BranchName, wanted: (evaluation: Evaluation) => boolean) =>
    steps.flatMap((step, index) => (wanted(step[branch]) ? [index] : []));
  const total = BRANCHES.reduce((sum, branch) => sum + those(branch, (what) => what !== 'absent').length, 0);
  const conditional = those('conditional', (what) => what === 'skip');
  const unconditional = those('unconditional', (what) => what === 'skip');
  return {
    total,
    computed: total - conditional.length - unconditional.length,
    skipped: { conditional, unconditional },
  };
}
