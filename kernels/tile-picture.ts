import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './tile-picture.wgsl?raw';

const WORKGROUP = 64;

/** A rectangle of one frame. */
export interface TilePictureShape {
  /** Element type of y. */
  type: 'f16' | 'f32';
  /** Frames in `rgb`. */
  frames: number;
  /** The one to take, 0 to frames - 1. */
  frame: number;
  /** Pixels of a frame. */
  from: readonly [height: number, width: number];
  /** Pixel of the frame at which y begins; negative before the frame. */
  at: readonly [row: number, column: number];
  /** Pixels of y, border not counted. */
  size: readonly [height: number, width: number];
}

/** An i32 parameter in the bits of a u32. */
const signed = (value: number) => value >>> 0;

/**
 * A rectangle of one frame of rgb [3, frames, h, w] f32, clamped to -1..1, as y [H + 2, W + 2, 4] of `type` in 0..1,
 * channels last, the fourth zero, with a border of one pixel that stays as it is. Zeros beyond the frame. The plan
 * throws `internal` for a frame that is not there.
 */
export const tilePicture = defineKernel({
  name: 'tile-picture',
  source,
  bindings: { rgb: 'read', y: 'write', params: 'uniform' },
  plan: ({ type, frames, frame, from, at, size }: TilePictureShape) => {
    if (!Number.isSafeInteger(frame) || frame < 0 || frame >= frames) {
      throw new ZoetropeError('internal', `tile-picture takes a frame from 0 to ${frames - 1}, got ${frame}.`);
    }
    if ([...from, ...size].some((side) => side < 1) || !at.every(Number.isSafeInteger)) {
      throw new ZoetropeError('internal', `tile-picture takes [${size}] pixels at ${at} of [${from}].`);
    }
    return {
      prelude: { T: type },
      overrides: { WORKGROUP },
      params: [frames, frame, ...from, ...at.map(signed), ...size],
      groups: grid2d(Math.ceil((size[0] * size[1]) / WORKGROUP)),
    };
  },
});

/** FILM at 1280 × 720, whole. */
export const examples: readonly TilePictureShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).map((type) => ({
  type,
  frames: 4,
  frame: 3,
  from: [720, 1280],
  at: [-24, 0],
  size: [768, 1280],
}));
