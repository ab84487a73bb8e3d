/**
 * UniPC of order 2 (B(h) = expm1, "bh2"; x0 prediction), the default solver of Wan: a predictor from one noise level to
 * the next, and at the start of the following step a corrector that moves the sample with the estimate made there.
 *
 * Follows Wan2.2 `wan/utils/fm_solvers_unipc.py` and diffusers `scheduling_unipc_multistep.py`, in the variable
 * lambda = ln(1 - sigma) - ln(sigma), with coefficients in f64 (upstream: f32).
 */

import type { Schedule } from './schedule';
import { type Combination, estimateX0, finalStep, levelsOf, type Rename, type Solver, type SolverStep } from './solver';

/**
 * The oldest estimate's buffer takes the next step's estimate; the predictor has written the next sample to
 * `lastSample`.
 */
export const HISTORY_SHIFT: readonly Rename[] = [
  { from: 'sample', to: 'lastSample' },
  { from: 'lastSample', to: 'sample' },
  { from: 'x0', to: 'x0Previous' },
  { from: 'x0Previous', to: 'x0Earlier' },
  { from: 'x0Earlier', to: 'x0' },
];

/**
 * One step of UniPC; see {@link Solver.step}.
 *
 * Five buffers suffice, because each combination writes over a latent that the step no longer reads: the corrected
 * sample over the predicted one, the next sample over the last one.
 */
export function unipcStep(schedule: Schedule, index: number, guidance: number): SolverStep {
  const { sigma, nextSigma } = levelsOf(schedule, index);
  // At level 0 the sample becomes the estimate, so what a corrector would do to it does not matter.
  if (nextSigma === 0) return finalStep(sigma, guidance);
  const combinations = [estimateX0(sigma, guidance)];
  if (index > 0) combinations.push(corrector(schedule.sigmas, index));
  combinations.push(predictor(schedule.sigmas, index));
  return { combinations, renames: HISTORY_SHIFT, estimate: 'x0Previous' };
}

/** UniPC of order 2. */
export const unipc: Solver = {
  latents: ['sample', 'lastSample', 'x0', 'x0Previous', 'x0Earlier'],
  state: ['sample', 'lastSample', 'x0Previous', 'x0Earlier'],
  step: unipcStep,
};

/**
 * Steps again from the level before to this one, now that the estimate there is known. Of order 1 in step 1, whose
 * predictor had one estimate, and of order 2 from then on.
 */
function corrector(sigmas: Float32Array, index: number): Combination {
  const { h, expm1, scale, weight } = interval(sigmas[index - 1]!, sigmas[index]!);
  if (index === 1) {
    return {
      out: 'sample',
      terms: [
        { tensor: 'lastSample', coefficient: scale },
        { tensor: 'x0Previous', coefficient: weight / 2 },
        { tensor: 'x0', coefficient: weight / 2 },
      ],
    };
  }
  // rho solves [1 1; r 1] rho = b, b_k = k! * phi_k / B(h): exact for an x0 that is quadratic in lambda.
  const r = lambdaStep(sigmas[index - 1]!, sigmas[index - 2]!) / h;
  const phi1 = expm1 / -h - 1;
  const phi2 = phi1 / -h - 1 / 2;
  const b1 = phi1 / expm1;
  const b2 = (2 * phi2) / expm1;
  const rhoEarlier = (b1 - b2) / (1 - r);
  const rhoNow = b1 - rhoEarlier;
  return {
    out: 'sample',
    terms: [
      { tensor: 'lastSample', coefficient: scale },
      { tensor: 'x0Previous', coefficient: weight * (1 - rhoEarlier / r - rhoNow) },
      { tensor: 'x0Earlier', coefficient: (weight * rhoEarlier) / r },
      { tensor: 'x0', coefficient: weight * rhoNow },
    ],
  };
}

/** Steps from this level to the next: of order 1 in step 0, of order 2 with the estimate before from then on. */
export function predictor(sigmas: Float32Array, index: number): Combination {
  const { h, scale, weight } = interval(sigmas[index]!, sigmas[index + 1]!);
  if (index === 0) {
    return {
      out: 'lastSample',
      terms: [
        { tensor: 'sample', coefficient: scale },
        { tensor: 'x0', coefficient: weight },
      ],
    };
  }
  const r = lambdaStep(sigmas[index]!, sigmas[index - 1]!) / h;
  return {
    out: 'lastSample',
    terms: [
      { tensor: 'sample', coefficient: scale },
      { tensor: 'x0', coefficient: weight * (1 - 1 / (2 * r)) },
      { tensor: 'x0Previous', coefficient: weight / (2 * r) },
    ],
  };
}

/**
 * From noise level `from` to `to`, with h the step in lambda. A constant x0 gives
 * x(to) = scale * x(from) + weight * x0 exactly, scale + weight = 1.
 */
function interval(from: number, to: number): { h: number; expm1: number; scale: number; weight: number } {
  const h = lambdaStep(from, to);
  const expm1 = Math.expm1(-h);
  return { h, expm1, scale: to / from, weight: -(1 - to) * expm1 };
}

/**
 * lambda(to) - lambda(from). Lambda is -Infinity at noise level 1, where the coefficients above come out as their
 * limits.
 */
function lambdaStep(from: number, to: number): number {
  return Math.log(1 - to) - Math.log(to) - (Math.log(1 - from) - Math.log(from));
}
