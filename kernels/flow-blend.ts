import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './flow-blend.wgsl?raw';

const WORKGROUP = 64;

/** A frame between two others. */
export interface FlowBlendShape {
  /** Pixels of pictures, flow and mask. */
  padded: readonly [height: number, width: number];
  /** Pixels of the frame, no more than the padded ones. */
  size: readonly [height: number, width: number];
}

/**
 * Warps f32 pictures before and after [H, W, 4] in 0..1 by flow [H, W, 4] in pixels, blends them by sigmoid(mask), mask
 * [H, W], and stores the upper left part as rgb [3, h, w] in -1..1, not clamped. The plan throws `internal` for a frame that
 * is larger than the pictures.
 */
export const flowBlend = defineKernel({
  name: 'flow-blend',
  source,
  bindings: { before: 'read', after: 'read', flow: 'read', mask: 'read', rgb: 'write', params: 'uniform' },
  plan: ({ padded, size }: FlowBlendShape) => {
    if (size[0] < 1 || size[1] < 1 || size[0] > padded[0] || size[1] > padded[1]) {
      throw new ZoetropeError('internal', `flow-blend makes [${size}] pixels of [${padded}].`);
    }
    return {
      prelude: {},
      overrides: { WORKGROUP },
      params: [...padded, ...size],
      groups: grid2d(Math.ceil((size[0] * size[1]) / WORKGROUP)),
    };
  },
});

/** RIFE at 1280 × 720. */
export const examples: readonly FlowBlendShape[] = [{ padded: [736, 1280], size: [720, 1280] }];
