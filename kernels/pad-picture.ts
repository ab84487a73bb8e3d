import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './pad-picture.wgsl?raw';

const WORKGROUP = 64;

/** One frame of a clip and the size that it is extended to. */
export interface PadPictureShape {
  /** Frames in `rgb`. */
  frames: number;
  /** The one to take, 0 to frames - 1. */
  frame: number;
  /** Pixels of a frame. */
  size: readonly [height: number, width: number];
  /** Pixels of y, no fewer. */
  padded: readonly [height: number, width: number];
  /** What lies beyond the frame: its edge, or zeros. */
  edge: 'replicate' | 'zero';
}

/**
 * One frame of rgb [3, frames, h, w] f32, clamped to -1..1, as a picture y [H, W, 4] f32 in 0..1, channels last, the fourth
 * zero, extended to the right and below. The plan throws `internal` for a frame that is not there and for a smaller y.
 */
export const padPicture = defineKernel({
  name: 'pad-picture',
  source,
  bindings: { rgb: 'read', y: 'write', params: 'uniform' },
  plan: ({ frames, frame, size, padded, edge }: PadPictureShape) => {
    if (!Number.isSafeInteger(frame) || frame < 0 || frame >= frames) {
      throw new ZoetropeError('internal', `pad-picture takes a frame from 0 to ${frames - 1}, got ${frame}.`);
    }
    if (size[0] < 1 || size[1] < 1 || size[0] > padded[0] || size[1] > padded[1]) {
      throw new ZoetropeError('internal', `pad-picture extends [${size}] pixels to [${padded}].`);
    }
    return {
      prelude: { REPLICATE: edge === 'replicate' },
      overrides: { WORKGROUP },
      params: [frames, frame, ...size, ...padded],
      groups: grid2d(Math.ceil((padded[0] * padded[1]) / WORKGROUP)),
    };
  },
});

/** RIFE at 1280 × 720. */
export const examples: readonly PadPictureShape[] = (['replicate', 'zero'] as const).map((edge) => ({
  frames: 4,
  frame: 3,
  size: [720, 1280],
  padded: [736, 1280],
  edge,
}));
