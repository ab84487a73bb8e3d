import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './flow-update.wgsl?raw';

const WORKGROUP = 64;

/** A block's result on its way into the flow. */
export interface FlowUpdateShape {
  /** Pixels of flow and mask, multiples of the scale. */
  size: readonly [height: number, width: number];
  /** The pictures' size divided by that of the head. */
  scale: 1 | 2 | 4 | 8 | 16;
  /** Sets flow and mask in place of adding to them. */
  first: boolean;
}

/**
 * Adds a block's head [planes, h / scale, w / scale], resized bilinearly with half-pixel centres, to flow [h, w, 4] (planes 0
 * to 3, times the scale: pixels) and mask [h, w] (plane 4), all f32. The plan throws `internal` for sizes that the scale does
 * not divide.
 */
export const flowUpdate = defineKernel({
  name: 'flow-update',
  source,
  bindings: { head: 'read', flow: 'write', mask: 'write', params: 'uniform' },
  plan: ({ size: [height, width], scale, first }: FlowUpdateShape) => {
    if (height < 1 || width < 1 || height % scale !== 0 || width % scale !== 0) {
      throw new ZoetropeError('internal', `flow-update divides ${height} × ${width} pixels by ${scale}.`);
    }
    return {
      prelude: { FIRST: first },
      overrides: { WORKGROUP },
      params: [height, width, scale],
      groups: grid2d(Math.ceil((height * width) / WORKGROUP)),
    };
  },
});

/** RIFE 4.6 at 1280 × 736. */
export const examples: readonly FlowUpdateShape[] = [
  { size: [736, 1280], scale: 8, first: true },
  { size: [736, 1280], scale: 1, first: false },
];
