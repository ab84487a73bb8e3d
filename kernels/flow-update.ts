import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import type { RifeScale } from '../src/part/rife';
import source from './flow-update.wgsl?raw';

const WORKGROUP = 64;

/** A block's result on its way into the flow. */
export interface FlowUpdateShape {
  /** Pixels of flow and mask, multiples of the scale. */
  size: readonly [height: number, width: number];
  /** The pictures' size divided by that of the head. */
  scale: RifeScale;
  /** Sets flow and mask in place of adding to them. */
  first: boolean;
  /** Sets the mask in place of adding to it, the first time or not. */
  replaceMask: boolean;
}

/**
 * Adds a block's head [planes, h / scale, w / scale], resized bilinearly with half-pixel centres, to flow [h, w, 4]
 * (planes 0 to 3, times the scale: pixels) and mask [h, w] (plane 4), or replaces the mask, all f32. The plan throws
 * `internal` for sizes that the scale does not divide.
 */
export const flowUpdate = defineKernel({
  name: 'flow-update',
  source,
  bindings: { head: 'read', flow: 'write', mask: 'write', params: 'uniform' },
  plan: ({ size: [height, width], scale, first, replaceMask }: FlowUpdateShape) => {
    if (height < 1 || width < 1 || height % scale !== 0 || width % scale !== 0) {
      throw new ZoetropeError('internal', `flow-update divides ${height} × ${width} pixels by ${scale}.`);
    }
    return {
      prelude: { FIRST: first, REPLACE_MASK: first || replaceMask },
      overrides: { WORKGROUP },
      params: [height, width, scale],
      groups: grid2d(Math.ceil((height * width) / WORKGROUP)),
    };
  },
});

/** RIFE 4.6 at 1280 × 736, and 4.25 at 1280 × 768. */
export const examples: readonly FlowUpdateShape[] = [
  { size: [736, 1280], scale: 8, first: true, replaceMask: false },
  { size: [736, 1280], scale: 1, first: false, replaceMask: false },
  { size: [768, 1280], scale: 2, first: false, replaceMask: true },
];
