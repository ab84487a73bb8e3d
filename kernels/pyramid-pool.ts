import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './pyramid-pool.wgsl?raw';

const WORKGROUP = 64;

/** A picture at half its size. */
export interface PyramidPoolShape {
  /** Element type of x and y. */
  type: 'f16' | 'f32';
  /** Pixels of y, border not counted; x has twice as many on each side. */
  size: readonly [height: number, width: number];
  /** Channels of y, a multiple of 4. */
  channels: number;
  /** Channels of x and the first one that is read, multiples of 4. */
  slice: readonly [channels: number, offset: number];
}

/**
 * Means of 2 × 2 pixels of the channels `offset` to `offset + channels` of x [2 h + 2, 2 w + 2, slice channels] as
 * y [h + 2, w + 2, channels], both of `type`, channels last, with a border of one pixel that stays as it is. The plan
 * throws `internal` for channels that do not come in fours or that x does not have.
 */
export const pyramidPool = defineKernel({
  name: 'pyramid-pool',
  source,
  bindings: { x: 'read', y: 'write', params: 'uniform' },
  plan: ({ type, size, channels, slice: [xChannels, offset] }: PyramidPoolShape) => {
    if (channels < 4 || [channels, xChannels, offset].some((count) => count % 4 !== 0)) {
      throw new ZoetropeError('internal', `pyramid-pool takes channels in fours, got ${channels} of ${xChannels}.`);
    }
    if (size[0] < 1 || size[1] < 1 || offset < 0 || offset + channels > xChannels) {
      throw new ZoetropeError(
        'internal',
        `pyramid-pool makes [${size}] pixels of ${channels} channels from ${offset} on of ${xChannels}.`,
      );
    }
    return {
      prelude: { T: type },
      overrides: { WORKGROUP },
      params: [...size, channels / 4, xChannels / 4, offset / 4],
      groups: grid2d(Math.ceil((size[0] * size[1] * channels) / 4 / WORKGROUP)),
    };
  },
});

/** FILM at 1280 × 768: between the extractor's third and fourth stage. */
export const examples: readonly PyramidPoolShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).map((type) => ({
  type,
  size: [96, 160],
  channels: 256,
  slice: [448, 192],
}));
