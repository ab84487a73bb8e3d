/**
 * A solver step as data: linear combinations of latents for one kernel to carry out, then new names for the buffers.
 *
 * A solver is a pure function of the schedule and the step's index. All it remembers is in its latents, so a run can be
 * resumed from them at any step, and the history passes through the expert switch untouched. The network predicts the
 * velocity v = noise - x0, hence x0 = sample - sigma * v at noise level sigma.
 */

import { ZoetropeError } from '../errors';
import type { Schedule } from './schedule';

/**
 * A latent-sized f32 buffer of the solver:
 * - `sample`: the state x that the network sees.
 * - `lastSample`: the state before the last predictor, corrected.
 * - `x0`: what the current step estimates; free between steps.
 * - `x0Previous`, `x0Earlier`: the estimates of the step before and of the one before that.
 */
export type Latent = 'sample' | 'lastSample' | 'x0' | 'x0Previous' | 'x0Earlier';

/** What the network leaves for a step to read: the velocity with the prompt, and the one with the negative prompt. */
export type Velocity = 'conditional' | 'unconditional';

/** Anything that a combination may read. */
export type Slot = Latent | Velocity;

/** One summand, `coefficient * tensor`. The coefficient is f64 and finite. */
export interface Term {
  tensor: Slot;
  coefficient: number;
}

/** `out` becomes the sum of one to {@link MAX_TERMS} terms with distinct tensors, none of which is `out`. */
export interface Combination {
  out: Latent;
  terms: readonly Term[];
}

/** After the step, the buffer called `from` is called `to`. */
export interface Rename {
  from: Latent;
  to: Latent;
}

/** What one step does once the network has run. */
export interface SolverStep {
  /** Carried out in order; a later one reads what an earlier one wrote. */
  combinations: readonly Combination[];
  /** Carried out all at once when the combinations are done: a permutation, so no buffer is copied, lost or doubled. */
  renames: readonly Rename[];
  /** Name, after the renames, of the latent that holds this step's estimate of x0. For previews. */
  estimate: Latent;
}

/** A sampling method. */
export interface Solver {
  /** The buffers that it needs. Only `sample` has to be filled before step 0. */
  latents: readonly Latent[];
  /** What has to be saved between two steps to resume there. */
  state: readonly Latent[];
  /**
   * @param index of the step, 0 to N - 1.
   * @param guidance scale g of v = unconditional + g * (conditional - unconditional). At exactly 1 the step does not
   * read   `unconditional`.
   * @throws ZoetropeError `internal` for an index outside the schedule or a guidance that is not finite.
   */
  step(schedule: Schedule, index: number, guidance: number): SolverStep;
}

/** Tensors that `kernels/combine` adds up in one dispatch. */
export const MAX_TERMS = 4;

/** `factor * v` of the guided velocity v, as the terms of the branches that ran; refuses a scale that is not finite. */
export function velocityTerms(guidance: number, factor: number): Term[] {
  if (!Number.isFinite(guidance)) {
    throw new ZoetropeError('internal', `A guidance scale is a finite number, got ${guidance}.`);
  }
  if (guidance === 1) return [{ tensor: 'conditional', coefficient: factor }];
  return [
    { tensor: 'conditional', coefficient: factor * guidance },
    { tensor: 'unconditional', coefficient: factor * (1 - guidance) },
  ];
}

/** The estimate x0 = sample - sigma * v at the step's noise level. */
export function estimateX0(sigma: number, guidance: number): Combination {
  return { out: 'x0', terms: [{ tensor: 'sample', coefficient: 1 }, ...velocityTerms(guidance, -sigma)] };
}

/** The last step of every solver: at noise level 0 the sample is its own estimate. */
export function finalStep(sigma: number, guidance: number): SolverStep {
  return { combinations: [estimateX0(sigma, guidance)], renames: swap('sample', 'x0'), estimate: 'sample' };
}

/** Two buffers exchange their names. */
export function swap(a: Latent, b: Latent): Rename[] {
  return [
    { from: a, to: b },
    { from: b, to: a },
  ];
}

/** The noise levels before and after step `index`; refuses an index outside the schedule. */
export function levelsOf(schedule: Schedule, index: number): { sigma: number; nextSigma: number } {
  const sigma = schedule.sigmas[index];
  const nextSigma = schedule.sigmas[index + 1];
  if (sigma === undefined || nextSigma === undefined) {
    const steps = schedule.sigmas.length - 1;
    throw new ZoetropeError('internal', `A step index is a whole number from 0 to ${steps - 1}, got ${index}.`);
  }
  return { sigma, nextSigma };
}
