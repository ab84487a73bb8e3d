import { ZoetropeError } from '../src/errors';
import { defineKernel, f32, grid2d } from '../src/gpu/kernel';
import source from './warp-slice.wgsl?raw';

const WORKGROUP = 64;

/** A picture moved by a flow. */
export interface WarpSliceShape {
  /** Element type of x and y. */
  type: 'f16' | 'f32';
  /** Pixels, border not counted. */
  size: readonly [height: number, width: number];
  /** Channels of x, a multiple of 4. */
  channels: number;
  /** Channels of y and the first one that is made, multiples of 4. */
  slice: readonly [channels: number, offset: number];
  /** Factor of the flow; null copies x and reads no flow. */
  scale: number | null;
}

/**
 * Moves x [h + 2, w + 2, channels] by `scale` × flow, flow f32 [h, w, 2] in pixels (x, y), and stores it in the
 * channels from `offset` on of y [h + 2, w + 2, slice channels]; x and y of `type`, channels last, with a border of one
 * pixel that stays as it is. Reads bilinearly, coordinates clamped to the picture. The plan throws `internal` for
 * channels that do not come in fours or that y has no room for.
 */
export const warpSlice = defineKernel({
  name: 'warp-slice',
  source,
  bindings: { x: 'read', flow: 'read', y: 'write', params: 'uniform' },
  plan: ({ type, size, channels, slice: [yChannels, offset], scale }: WarpSliceShape) => {
    if (channels < 4 || [channels, yChannels, offset].some((count) => count % 4 !== 0)) {
      throw new ZoetropeError('internal', `warp-slice takes channels in fours, got ${channels} of ${yChannels}.`);
    }
    if (size[0] < 1 || size[1] < 1 || offset < 0 || offset + channels > yChannels) {
      throw new ZoetropeError(
        'internal',
        `warp-slice moves [${size}] pixels of ${channels} channels to ${offset} of ${yChannels}.`,
      );
    }
    return {
      prelude: { T: type, MOVES: scale !== null },
      overrides: { WORKGROUP },
      params: [...size, channels / 4, yChannels / 4, offset / 4, f32(scale ?? 0)],
      groups: grid2d(Math.ceil((size[0] * size[1] * channels) / 4 / WORKGROUP)),
    };
  },
});

/** FILM at 1280 × 768: features for the finest flow, and for the coarsest fusion. */
export const examples: readonly WarpSliceShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap(
  (type): WarpSliceShape[] => [
    { type, size: [768, 1280], channels: 64, slice: [128, 64], scale: 1 },
    { type, size: [768, 1280], channels: 64, slice: [128, 0], scale: null },
    { type, size: [48, 80], channels: 960, slice: [1932, 4], scale: 0.5 },
  ],
);
