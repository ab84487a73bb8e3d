import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './flow-blend.wgsl?raw';

const WORKGROUP = 64;

/** A frame between two others. */
export interface FlowBlendShape {
  /** Pixels of pictures, flow and mask. */
  padded: readonly [height: number, width: number];
  /** Channels that an encoder made of each picture, a multiple of 4; they follow its four and are not read. */
  encoded: number;
  /** Pixels of the frame, no more than the padded ones. */
  size: readonly [height: number, width: number];
}

/**
 * Warps f32 pictures before and after [H, W, 4 + encoded] in 0..1 by flow [H, W, 4] in pixels, blends them by
 * sigmoid(mask), mask [H, W], and stores the upper left part as rgb [3, h, w] in -1..1, not clamped. The plan throws
 * `internal` for a frame that is larger than the pictures and for channels that do not come in fours.
 */
export const flowBlend = defineKernel({
  name: 'flow-blend',
  source,
  bindings: { before: 'read', after: 'read', flow: 'read', mask: 'read', rgb: 'write', params: 'uniform' },
  plan: ({ padded, encoded, size }: FlowBlendShape) => {
    if (size[0] < 1 || size[1] < 1 || size[0] > padded[0] || size[1] > padded[1]) {
      throw new ZoetropeError('internal', `flow-blend makes [${size}] pixels of [${padded}].`);
    }
    if (encoded < 0 || encoded % 4 !== 0) {
      throw new ZoetropeError('internal', `flow-blend takes fours of channels, got ${encoded}.`);
    }
    return {
      prelude: { LAYERS: 1 + encoded / 4 },
      overrides: { WORKGROUP },
      params: [...padded, ...size],
      groups: grid2d(Math.ceil((size[0] * size[1]) / WORKGROUP)),
    };
  },
});

/** RIFE 4.6 and 4.25 at 1280 × 720. */
export const examples: readonly FlowBlendShape[] = [
  { padded: [736, 1280], encoded: 0, size: [720, 1280] },
  { padded: [768, 1280], encoded: 4, size: [720, 1280] },
];
