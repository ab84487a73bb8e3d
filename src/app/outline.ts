/** The video that a request would make, as far as the page shows it beforehand. Pure. */
import { type ModelInfo, type Request, type ResolvedRequest, requestFields } from '../index';
import { formatLength, formatPixels } from './format';

/** Shape of a video to come. */
export interface Outline {
  width: number;
  height: number;
  /** Generated frames, before interpolation. */
  frames: number;
  framesPerSecond: number;
  steps: number;
}

/**
 * The outline of a request, where fields left out have the endpoint's default; undefined while a number is unusable.
 */
export function outlineOf(request: Request, sizes: ModelInfo['sizes']): Outline | undefined {
  const defaults = Object.fromEntries(requestFields.map((field) => [field.name, field.default]));
  const full = { ...defaults, ...request } as Omit<ResolvedRequest, 'seed'>;
  const { resolution, aspect_ratio, num_frames, frames_per_second, num_inference_steps } = full;
  const size = sizes[resolution]?.[aspect_ratio];
  const usable = [num_frames, frames_per_second, num_inference_steps].every(
    (value) => Number.isInteger(value) && value > 0,
  );
  // Beyond the schema's range nothing would be made, and a drum with so many slits could not be drawn.
  if (!size || !usable || num_inference_steps > 100) return undefined;
  const [width, height] = size;
  return { width, height, frames: num_frames, framesPerSecond: frames_per_second, steps: num_inference_steps };
}

/** `64 × 64 pixels, 17 frames, 1.1 s`. */
export function outlineText({ width, height, frames, framesPerSecond }: Outline): string {
  return `${formatPixels([width, height])} pixels, ${frames} frames, ${formatLength(frames, framesPerSecond)}`;
}
