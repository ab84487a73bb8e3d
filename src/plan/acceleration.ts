import { type ComputesAll, type EvaluationPlan, MIN_STEPS } from '../diffusion/cache';

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
