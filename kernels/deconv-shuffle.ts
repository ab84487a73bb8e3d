import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './deconv-shuffle.wgsl?raw';

/** Side of the square of pixels of x that an invocation reads; the shader names each row. */
const SQUARE = 4;
const WORKGROUP = 64;
const MAX_LANES = 16;

/** A transposed convolution with a pixel shuffle. */
export interface DeconvShuffleShape {
  /** Element type of x and weight. */
  type: 'f16' | 'f32';
  /** Pixels of x, border not counted. */
  size: readonly [height: number, width: number];
  /** Channels of x, a multiple of 4. */
  into: number;
  /** Planes of y; the transposed convolution makes four channels for each. */
  planes: number;
}

/** Multiply-adds of a transposed convolution. */
export function deconvShuffleMac({ size, into, planes }: Omit<DeconvShuffleShape, 'type'>): number {
  return size[0] * size[1] * 16 * into * 4 * planes;
}

/**
 * A transposed 4 × 4 convolution of stride 2 and padding 1, and a pixel shuffle by 2: x [h + 2, w + 2, into] of `type`,
 * channels last, with a border of one pixel of zeros, to y f32 [planes, 4h, 4w]. `weight` of `type`
 * [into / 4, 4 pixels, 4, 4 phases × 4 planes], see the shader; `bias` f32 [4 planes]. Sums are f32. The plan throws
 * `internal` for channels that do not come in fours.
 */
export const deconvShuffle = defineKernel({
  name: 'deconv-shuffle',
  source,
  bindings: { x: 'read', weight: 'read', bias: 'read', y: 'write', params: 'uniform' },
  plan: ({ type, size, into, planes }: DeconvShuffleShape) => {
    const [height, width] = size;
    if (into < 4 || into % 4 !== 0 || planes < 1 || height < 1 || width < 1) {
      throw new ZoetropeError(
        'internal',
        `deconv-shuffle takes channels in fours, got ${into} to ${planes} planes for [${size}] pixels.`,
      );
    }
    let lanes = MAX_LANES;
    while ((4 * planes) % lanes !== 0) lanes /= 2;
    const squares = Math.ceil(height / SQUARE) * Math.ceil(width / SQUARE);
    return {
      prelude: { T: type },
      overrides: { WORKGROUP },
      params: [lanes, height, width, into / 4, planes],
      groups: grid2d(Math.ceil(squares / (WORKGROUP / lanes)) * ((4 * planes) / lanes)),
    };
  },
});

/** RIFE 4.6 at 1280 × 736: the coarsest and the finest block's heads; the finest of 4.26 has 13 planes. */
export const examples: readonly DeconvShuffleShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap((type) => [
  { type, size: [23, 40] as const, into: 192, planes: 6 },
  { type, size: [184, 320] as const, into: 64, planes: 6 },
  { type, size: [184, 320] as const, into: 32, planes: 13 },
]);
