import { ZoetropeError } from '../src/errors';
import { defineKernel, f32, grid2d } from '../src/gpu/kernel';
import source from './image-conv.wgsl?raw';

/** Side of the square of pixels that an invocation makes; the shader names each row. */
const SQUARE = 4;
/** Invocations of a workgroup: neighbours in the output channels first, so that they read neighbouring weights. */
const WORKGROUP = 64;
const MAX_LANES = 16;

/** A convolution of a picture. */
export interface ImageConvShape {
  /** Element type of x, y and weight. */
  type: 'f16' | 'f32';
  /** Pixels of y, border not counted; x has `stride` times as many on each side. */
  size: readonly [height: number, width: number];
  stride: 1 | 2;
  /** Channels of x, a multiple of 4. */
  into: number;
  /** Channels of y, a multiple of 4. */
  out: number;
  /** Adds x before the activation; needs stride 1 and as many channels as x has. */
  residual: boolean;
  /** Factor of the activation below zero; 1 leaves values as they are. */
  slope: number;
}

function lanes(out: number): number {
  let count = MAX_LANES;
  while ((out / 4) % count !== 0) count /= 2;
  return count;
}

/** Multiply-adds of a convolution. */
export function imageConvMac({ size, into, out }: Pick<ImageConvShape, 'size' | 'into' | 'out'>): number {
  return size[0] * size[1] * into * out * 9;
}

/**
 * A 3 × 3 convolution of a picture with zeros around it, LeakyReLU after it: x [stride h + 2, stride w + 2, into] and
 * y [h + 2, w + 2, out] of `type`, channels last, with a border of one pixel of zeros. `weight` is
 * [into / 4, 9, 4, out] of `type`, `bias` f32 [out]. The border of y stays as it is. Sums are f32. The plan throws
 * `internal` for channels that do not come in fours and for a residual of another shape.
 */
export const imageConv = defineKernel({
  name: 'image-conv',
  source,
  bindings: { x: 'read', weight: 'read', bias: 'read', y: 'write', params: 'uniform' },
  plan: ({ type, size, stride, into, out, residual, slope }: ImageConvShape) => {
    const [height, width] = size;
    if (into < 4 || into % 4 !== 0 || out < 4 || out % 4 !== 0 || height < 1 || width < 1) {
      throw new ZoetropeError(
        'internal',
        `image-conv takes channels in fours, got ${into} to ${out} for [${size}] pixels.`,
      );
    }
    if (residual && (stride !== 1 || into !== out)) {
      throw new ZoetropeError('internal', `image-conv adds x [${into}] to y [${out}] at stride ${stride}.`);
    }
    const count = lanes(out);
    const squares = Math.ceil(height / SQUARE) * Math.ceil(width / SQUARE);
    const groups = Math.ceil(squares / (WORKGROUP / count)) * (out / 4 / count);
    return {
      prelude: { T: type, STRIDE: stride, RESIDUAL: residual },
      overrides: { WORKGROUP },
      params: [count, height, width, into / 4, out / 4, f32(slope)],
      groups: grid2d(groups),
    };
  },
});

/** RIFE 4.6 at 1280 × 736: the coarsest and the finest block's layers. */
export const examples: readonly ImageConvShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap(
  (type): ImageConvShape[] => [
    { type, size: [46, 80], stride: 2, into: 8, out: 96, residual: false, slope: 0.2 },
    { type, size: [23, 40], stride: 1, into: 192, out: 192, residual: true, slope: 0.2 },
    { type, size: [368, 640], stride: 2, into: 12, out: 32, residual: false, slope: 0.2 },
    { type, size: [184, 320], stride: 1, into: 64, out: 64, residual: true, slope: 0.2 },
  ],
);
