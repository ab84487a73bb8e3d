/**
 * Classifier-free guidance: v = unconditional + g * (conditional - unconditional), with a scale g of its own for each
 * expert.
 */

import type { ResolvedRequest } from '../request';
import type { Schedule, Stage } from './schedule';

/** What guidance reads of a request: the scale of the high-noise expert and that of the low-noise one. */
export type GuidanceScales = Pick<ResolvedRequest, 'guidance_scale' | 'guidance_scale_2'>;

/** How a stage is guided. */
export interface StageGuidance {
  /** g. */
  scale: number;
  /** Whether the network has to run a second time, with the negative prompt. */
  unconditional: boolean;
}

/**
 * The guidance of a stage.
 *
 * At exactly g = 1 the unconditional velocity cancels, so its pass is left out of that stage with an equal result.
 * diffusers (`pipeline_wan.py`) decides once for both stages, from `guidance_scale` above 1; it therefore drops the
 * negative prompt of a guided second stage that follows an unguided first one. Here that stage stays guided, as the
 * caller asked.
 */
export function guidanceOf(stage: Stage, request: GuidanceScales): StageGuidance {
  const scale = stage === 'high' ? request.guidance_scale : request.guidance_scale_2;
  return { scale, unconditional: scale !== 1 };
}

/** Whether any step of the run reads the negative prompt, that is, whether it has to be encoded at all. */
export function readsNegativePrompt(schedule: Schedule, request: GuidanceScales): boolean {
  const steps = schedule.timesteps.length;
  const high = schedule.highSteps > 0 && guidanceOf('high', request).unconditional;
  const low = schedule.highSteps < steps && guidanceOf('low', request).unconditional;
  return high || low;
}
