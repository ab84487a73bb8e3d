import { ZoetropeError } from '../src/errors';
import { defineKernel, f32, grid2d } from '../src/gpu/kernel';
import source from './flow-features.wgsl?raw';

const WORKGROUP = 64;

/** What a block of the flow network reads. */
export interface FlowFeaturesShape {
  /** Element type of x. */
  type: 'f16' | 'f32';
  /** Pixels of the pictures, multiples of the scale. */
  size: readonly [height: number, width: number];
  /** The pictures' size divided by that of x. */
  scale: 1 | 2 | 4 | 8 | 16;
  /** Place of the wanted frame between the two, 0 to 1. */
  time: number;
  /** There is no flow yet: x has 8 channels, else 12. */
  first: boolean;
}

/**
 * Input of a flow block: f32 pictures [h, w, 4] in 0..1, flow [h, w, 4] in pixels and mask [h, w] to x
 * [h / scale + 2, w / scale + 2, 8 or 12] of `type`, channels last, whose border stays as it is. Channels are, for the first
 * block, both pictures, the time and a zero; for a later one, both pictures warped, time, mask and flow / scale. The plan
 * throws `internal` for sizes that the scale does not divide.
 */
export const flowFeatures = defineKernel({
  name: 'flow-features',
  source,
  bindings: { before: 'read', after: 'read', flow: 'read', mask: 'read', x: 'write', params: 'uniform' },
  plan: ({ type, size: [height, width], scale, time, first }: FlowFeaturesShape) => {
    if (height < 1 || width < 1 || height % scale !== 0 || width % scale !== 0) {
      throw new ZoetropeError('internal', `flow-features divides ${height} × ${width} pixels by ${scale}.`);
    }
    return {
      prelude: { T: type, FIRST: first },
      overrides: { WORKGROUP },
      params: [height, width, scale, f32(time)],
      groups: grid2d(Math.ceil((height * width) / scale ** 2 / WORKGROUP)),
    };
  },
});

/** RIFE 4.6 at 1280 × 736. */
export const examples: readonly FlowFeaturesShape[] = (['f32', 'f16'] as const).flatMap((type): FlowFeaturesShape[] => [
  { type, size: [736, 1280], scale: 8, time: 0.5, first: true },
  { type, size: [736, 1280], scale: 1, time: 0.2, first: false },
]);
