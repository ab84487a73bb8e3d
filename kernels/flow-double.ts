import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './flow-double.wgsl?raw';

const WORKGROUP = 64;

/** A flow at twice the size. */
export interface FlowDoubleShape {
  /** Pixels of the finer flow, even on both sides. */
  size: readonly [height: number, width: number];
}

/**
 * A flow f32 [h / 2, w / 2, 2] as [h, w, 2]: bilinear with half-pixel centres, clamped, and times 2, since its pixels
 * are half as large. The plan throws `internal` for odd sides.
 */
export const flowDouble = defineKernel({
  name: 'flow-double',
  source,
  bindings: { coarse: 'read', fine: 'write', params: 'uniform' },
  plan: ({ size }: FlowDoubleShape) => {
    if (size.some((side) => side < 2 || side % 2 !== 0)) {
      throw new ZoetropeError('internal', `flow-double makes [${size}] pixels of half as many.`);
    }
    return {
      prelude: {},
      overrides: { WORKGROUP },
      params: [...size],
      groups: grid2d(Math.ceil((size[0] * size[1]) / WORKGROUP)),
    };
  },
});

/** FILM at 1280 × 768. */
export const examples: readonly FlowDoubleShape[] = [{ size: [768, 1280] }];
