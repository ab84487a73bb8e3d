import { ZoetropeError } from '../src/errors';
import { defineKernel, f32, grid2d } from '../src/gpu/kernel';
import source from './flow-slice.wgsl?raw';

const WORKGROUP = 64;

/** Where the flows go. */
export interface FlowSliceShape {
  /** Element type of y. */
  type: 'f16' | 'f32';
  /** Pixels, border not counted. */
  size: readonly [height: number, width: number];
  /** Channels of y and the first of the four that are made, multiples of 4. */
  slice: readonly [channels: number, offset: number];
  /** Place of the wanted frame between the two, 0 to 1. */
  time: number;
}

/**
 * `time` × backward and (1 - `time`) × forward, both f32 [h, w, 2], as four channels of y [h + 2, w + 2, channels] of
 * `type`, channels last, with a border of one pixel that stays as it is. The plan throws `internal` for channels that y
 * does not have.
 */
export const flowSlice = defineKernel({
  name: 'flow-slice',
  source,
  bindings: { backward: 'read', forward: 'read', y: 'write', params: 'uniform' },
  plan: ({ type, size, slice: [channels, offset], time }: FlowSliceShape) => {
    const inside = offset >= 0 && offset + 4 <= channels;
    if (size[0] < 1 || size[1] < 1 || channels % 4 !== 0 || offset % 4 !== 0 || !inside) {
      throw new ZoetropeError('internal', `flow-slice puts [${size}] flows at channel ${offset} of ${channels}.`);
    }
    return {
      prelude: { T: type },
      overrides: { WORKGROUP },
      params: [...size, channels / 4, offset / 4, f32(time)],
      groups: grid2d(Math.ceil((size[0] * size[1]) / WORKGROUP)),
    };
  },
});

/** FILM at 1280 × 768, the finest level. */
export const examples: readonly FlowSliceShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).map((type) => ({
  type,
  size: [768, 1280],
  slice: [204, 136],
  time: 0.5,
}));
