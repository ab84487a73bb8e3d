import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './i420.wgsl?raw';

const WORKGROUP = 64;

/** A model's pixels come in latent cells of 8 and tokens of 2 cells. */
const SIDE_MULTIPLE = 16;

/** One frame of a decoded clip. */
export interface I420Shape {
  /** Pixels, a multiple of 16. */
  width: number;
  /** Pixels, a multiple of 16. */
  height: number;
  /** Frames in `rgb`. */
  frames: number;
  /** The one to convert, 0 to frames - 1. */
  frame: number;
}

/** Bytes of a picture in I420. */
export function i420Bytes(width: number, height: number): number {
  return (width * height * 3) / 2;
}

/**
 * One frame of rgb [3, frames, height, width] f32, clamped to -1..1, as the bytes of I420 in BT.709 limited range:
 * planes Y [height, width], U and V [height / 2, width / 2] one after the other, {@link i420Bytes} in all. Chroma is
 * the mean over 2×2 pixels; every byte is rounded to nearest. The plan throws `internal` for other sides and for a
 * frame that is not there.
 */
export const i420 = defineKernel({
  name: 'i420',
  source,
  bindings: { rgb: 'read', out: 'write', params: 'uniform' },
  plan: ({ width, height, frames, frame }: I420Shape) => {
    if (width < 1 || height < 1 || width % SIDE_MULTIPLE !== 0 || height % SIDE_MULTIPLE !== 0) {
      throw new ZoetropeError(
        'internal',
        `i420 takes sides that are multiples of ${SIDE_MULTIPLE}, got ${width}×${height}.`,
      );
    }
    if (!Number.isSafeInteger(frame) || frame < 0 || frame >= frames) {
      throw new ZoetropeError('internal', `i420 takes a frame from 0 to ${frames - 1}, got ${frame}.`);
    }
    return {
      prelude: {},
      overrides: { WORKGROUP },
      params: [frames, frame, height, width],
      groups: grid2d(Math.ceil((width * height) / (16 * WORKGROUP))),
    };
  },
});

/** Shapes that every build of the shader has to compile for. */
export const examples: readonly I420Shape[] = [
  { width: 64, height: 64, frames: 1, frame: 0 },
  { width: 1280, height: 720, frames: 4, frame: 3 },
];
