import { estimateX0, finalStep, levelsOf, type Solver } from './solver';
import { HISTORY_SHIFT, predictor } from './unipc';

/**
 * DPM-Solver++ 2M, midpoint, x0 prediction: the official code's alternative (Wan2.2 `wan/utils/fm_solvers.py`). Its
 * step is UniPC's predictor without the corrector; at noise level 1, where its table starts, both of the first two
 * steps come out of first order because lambda is -Infinity there.
 */
export const dpmpp: Solver = {
  latents: ['sample', 'lastSample', 'x0', 'x0Previous', 'x0Earlier'],
  state: ['sample', 'x0Previous'],
  step(schedule, index, guidance) {
    const { sigma, nextSigma } = levelsOf(schedule, index);
    if (nextSigma === 0) return finalStep(sigma, guidance);
    const combinations = [estimateX0(sigma, guidance), predictor(schedule.sigmas, index)];
    return { combinations, renames: HISTORY_SHIFT, estimate: 'x0Previous' };
  },
};
