import { type ComputesAll, computeAll, type EvaluationPlan, keptBranches, MIN_STEPS } from '../diffusion/cache';
import type { GuidanceScales } from '../diffusion/guidance';
import type { Schedule } from '../diffusion/schedule';
import { ZoetropeError } from '../errors';

/**
 * Makes room for the residuals of `wanted`, or computes every step where there is none: a run that takes longer is better than one
 * that is refused.
 * @param arrange gives what the job is arranged like with so many bytes more; throws `out-of-memory` where they do not fit.
 * @param bytesOf bytes of the residuals of so many branches.
 */
export function withResiduals<Arrangement>(
  wanted: EvaluationPlan,
  schedule: Schedule,
  guidance: GuidanceScales,
  bytesOf: (branches: number) => number,
  arrange: (extraBytes: number) => Arrangement,
): { evaluations: EvaluationPlan; arrangement: Arrangement } {
  const branches = keptBranches(wanted.steps);
  if (branches > 0) {
    try {
      return { evaluations: wanted, arrangement: arrange(bytesOf(branches)) };
    } catch (error) {
      if (!(error instanceof ZoetropeError && error.code === 'out-of-memory')) throw error;
      wanted = { steps: computeAll(schedule, guidance), computesAll: 'memory' };
    }
  }
  return { evaluations: wanted, arrangement: arrange(0) };
}

/** Why `acceleration: "regular"` computes every step, for a person. */
const REASONS: Readonly<Record<Exclude<ComputesAll, 'not-asked'>, string>> = {
  'no-ratios': 'this model has no measured ratios. Measure them with: npx zoetrope calibrate <model folder>',
  'few-steps': `with fewer than ${MIN_STEPS} steps each of them changes too much.`,
  distilled: 'the few steps of a distilled model leave nothing to reuse.',
  'no-step': 'at these settings each of them changes too much.',
  memory: 'the memory budget has no room for what the steps would reuse.',
};

/** What became of `acceleration`, for the logs: a sentence, or none where the request says `none`. */
export function accelerationMessage({ steps, computesAll }: EvaluationPlan): string | undefined {
  if (computesAll === 'not-asked') return undefined;
  if (computesAll !== null) return `acceleration "regular" computes every step: ${REASONS[computesAll]}`;
  const reusing = steps.flatMap(({ conditional, unconditional }, index) =>
    conditional === 'skip' || unconditional === 'skip' ? [index + 1] : [],
  );
  return `acceleration "regular" reuses results of earlier steps at steps ${reusing.join(', ')} of ${steps.length}.`;
}
