import { ZoetropeError } from '../src/errors';
import { defineKernel, f32, grid2d } from '../src/gpu/kernel';
import source from './pyramid-conv.wgsl?raw';

/** Side of the square of pixels that an invocation makes; the shader names each row. */
const SQUARE = 4;
/** Invocations of a workgroup: neighbours in the output channels first, so that they read neighbouring weights. */
const WORKGROUP = 64;
const MAX_LANES = 16;

/** A convolution of a picture, or of some of its rows. */
export interface PyramidConvShape {
  /** Element type of x, y and weight. */
  type: 'f16' | 'f32';
  /** Pixels of y, border not counted; x has as many, and for kernel 2 half of them on each side. */
  size: readonly [height: number, width: number];
  /** Side of the kernel; 2 is over the picture with every pixel repeated 2 × 2. */
  kernel: 1 | 2 | 3;
  /** Channels of x, a multiple of 4. */
  into: number;
  /** Channels that are made, a multiple of 4. */
  out: number;
  /** Channels of y and the first one that is made, multiples of 4. */
  slice: readonly [channels: number, offset: number];
  /** Factor of the activation below zero; 1 leaves values as they are. */
  slope: number;
  /** Rows of y that this launch makes; the first is a multiple of 4. Default all. */
  rows?: readonly [begin: number, end: number];
}

function lanes(out: number): number {
  let count = MAX_LANES;
  while ((out / 4) % count !== 0) count /= 2;
  return count;
}

/** Multiply-adds of a whole convolution. */
export function pyramidConvMac({
  size,
  kernel,
  into,
  out,
}: Pick<PyramidConvShape, 'size' | 'kernel' | 'into' | 'out'>): number {
  return size[0] * size[1] * into * out * kernel ** 2;
}

/**
 * A convolution of a picture with zeros around it, LeakyReLU after it: x [h + 2, w + 2, into] (kernel 2:
 * [h / 2 + 2, w / 2 + 2, into]) to the channels `offset` to `offset + out` of y [h + 2, w + 2, channels], both of
 * `type`, channels last, with a border of one pixel of zeros. `weight` is [into / 4, kernel², 4, out] of `type`, `bias`
 * f32 [out]. The rest of y, its border included, stays as it is. Sums are f32. The plan throws `internal` for channels
 * that do not come in fours, that y has no room for, rows that are not there and odd sides of a doubled picture.
 */
export const pyramidConv = defineKernel({
  name: 'pyramid-conv',
  source,
  bindings: { x: 'read', weight: 'read', bias: 'read', y: 'write', params: 'uniform' },
  plan: ({ type, size, kernel, into, out, slice, slope, rows = [0, size[0]] }: PyramidConvShape) => {
    const [height, width] = size;
    const [channels, offset] = slice;
    if ([into, out, channels].some((count) => count < 4 || count % 4 !== 0) || offset % 4 !== 0) {
      throw new ZoetropeError('internal', `pyramid-conv takes channels in fours, got ${into} to ${out} of [${slice}].`);
    }
    if (offset < 0 || offset + out > channels) {
      throw new ZoetropeError('internal', `pyramid-conv makes ${out} channels from ${offset} on of ${channels}.`);
    }
    const [begin, end] = rows;
    if (width < 1 || begin < 0 || begin % SQUARE !== 0 || begin >= end || end > height) {
      throw new ZoetropeError('internal', `pyramid-conv makes rows ${begin} to ${end} of [${size}] pixels.`);
    }
    if (kernel === 2 && (height % 2 !== 0 || width % 2 !== 0)) {
      throw new ZoetropeError('internal', `pyramid-conv doubles a picture to [${size}] pixels.`);
    }
    const count = lanes(out);
    const squares = Math.ceil((end - begin) / SQUARE) * Math.ceil(width / SQUARE);
    return {
      prelude: { T: type, KERNEL: kernel },
      overrides: { WORKGROUP },
      params: [count, begin, end - begin, width, into / 4, out / 4, channels / 4, offset / 4, f32(slope)],
      groups: grid2d(Math.ceil(squares / (WORKGROUP / count)) * (out / 4 / count)),
    };
  },
});

/** FILM at 1280 × 768: layers of the extractor, the coarsest flow, and the finest fusion. */
export const examples: readonly PyramidConvShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap(
  (type): PyramidConvShape[] => [
    { type, size: [768, 1280], kernel: 3, into: 4, out: 64, slice: [64, 0], slope: 0.2 },
    { type, size: [192, 320], kernel: 3, into: 256, out: 256, slice: [448, 192], slope: 0.2 },
    { type, size: [12, 20], kernel: 3, into: 1920, out: 256, slice: [256, 0], slope: 0.2 },
    { type, size: [12, 20], kernel: 1, into: 256, out: 128, slice: [128, 0], slope: 0.2 },
    { type, size: [768, 1280], kernel: 2, into: 128, out: 64, slice: [208, 144], slope: 1, rows: [256, 512] },
  ],
);
