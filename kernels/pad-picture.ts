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
  /** Element type of y. */
  type: 'f16' | 'f32';
  /** Pixels round y that stay as they are. */
  border: 0 | 1;
  /** Channels of y, a multiple of 4, of which the first four are set. */
  channels: number;
}

/**
 * One frame of rgb [3, frames, h, w] f32, clamped to -1..1, as a picture y [H + 2 border, W + 2 border, channels] of
 * `type` in 0..1, channels last, the fourth zero, extended to the right and below. The plan throws `internal` for a
 * frame that is not there, for a smaller y and for channels that do not come in fours.
 */
export const padPicture = defineKernel({
  name: 'pad-picture',
  source,
  bindings: { rgb: 'read', y: 'write', params: 'uniform' },
  plan: ({ frames, frame, size, padded, edge, type, border, channels }: PadPictureShape) => {
    if (!Number.isSafeInteger(frame) || frame < 0 || frame >= frames) {
      throw new ZoetropeError('internal', `pad-picture takes a frame from 0 to ${frames - 1}, got ${frame}.`);
    }
    if (size[0] < 1 || size[1] < 1 || size[0] > padded[0] || size[1] > padded[1]) {
      throw new ZoetropeError('internal', `pad-picture extends [${size}] pixels to [${padded}].`);
    }
    if (channels < 4 || channels % 4 !== 0) {
      throw new ZoetropeError('internal', `pad-picture makes fours of channels, got ${channels}.`);
    }
    return {
      prelude: { T: type, REPLICATE: edge === 'replicate', BORDER: border, LAYERS: channels / 4 },
      overrides: { WORKGROUP },
      params: [frames, frame, ...size, ...padded],
      groups: grid2d(Math.ceil((padded[0] * padded[1]) / WORKGROUP)),
    };
  },
});

/** RIFE at 1280 × 720: the picture of 4.6, that of 4.25 and what its encoder reads. */
export const examples: readonly PadPictureShape[] = /* @__PURE__ */ (['replicate', 'zero'] as const).flatMap((edge) => {
  const frame = { frames: 4, frame: 3, size: [720, 1280], edge } as const;
  return [
    { ...frame, padded: [736, 1280], type: 'f32', border: 0, channels: 4 },
    { ...frame, padded: [768, 1280], type: 'f32', border: 0, channels: 8 },
    { ...frame, padded: [768, 1280], type: 'f16', border: 1, channels: 4 },
  ] satisfies PadPictureShape[];
});
