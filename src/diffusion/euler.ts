/**
 * Euler's method on the flow, x <- x + (next sigma - sigma) * v: the solver of distilled experts (Wan2.2-Lightning
 * `wan/utils/fm_solvers_euler.py`). It has no history.
 */

import type { Schedule } from './schedule';
import { estimateX0, finalStep, levelsOf, type Solver, type SolverStep, swap, velocityTerms } from './solver';

/** One step of Euler's method; see {@link Solver.step}. The estimate of x0 is made for previews alone. */
export function eulerStep(schedule: Schedule, index: number, guidance: number): SolverStep {
  const { sigma, nextSigma } = levelsOf(schedule, index);
  if (nextSigma === 0) return finalStep(sigma, guidance);
  return {
    combinations: [
      estimateX0(sigma, guidance),
      {
        out: 'lastSample',
        terms: [{ tensor: 'sample', coefficient: 1 }, ...velocityTerms(guidance, nextSigma - sigma)],
      },
    ],
    renames: swap('sample', 'lastSample'),
    estimate: 'x0',
  };
}

/** Euler's method. */
export const euler: Solver = { latents: ['sample', 'lastSample', 'x0'], state: ['sample'], step: eulerStep };
