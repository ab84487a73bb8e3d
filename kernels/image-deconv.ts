import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './image-deconv.wgsl?raw';

const WORKGROUP = 64;

/** A transposed convolution into some channels of a picture. */
export interface ImageDeconvShape {
  /** Element type of x and weight. */
  type: 'f16' | 'f32';
  /** Pixels of x, border not counted. */
  size: readonly [height: number, width: number];
  /** Channels of x, a multiple of 4. */
  into: number;
  /** Channels that are made, a multiple of 4. */
  out: number;
  /** Channels of y and the first that is set, multiples of 4. */
  slice: readonly [channels: number, offset: number];
}

/** Multiply-adds of a transposed convolution. */
export function imageDeconvMac({ size, into, out }: Pick<ImageDeconvShape, 'size' | 'into' | 'out'>): number {
  return size[0] * size[1] * 16 * into * out;
}

/**
 * A transposed 4 × 4 convolution of stride 2 and padding 1, without activation: x [h + 2, w + 2, into] of `type`,
 * channels last, with a border of one pixel of zeros, to channels of y f32 [2h, 2w, channels], whose others stay as
 * they are. `weight` of `type` [into / 4, 4 pixels, 4, 4 phases × out], see the shader; `bias` f32 [out]. Sums are f32.
 * The plan throws `internal` for channels that do not come in fours or lie beyond those of y.
 */
export const imageDeconv = defineKernel({
  name: 'image-deconv',
  source,
  bindings: { x: 'read', weight: 'read', bias: 'read', y: 'write', params: 'uniform' },
  plan: ({ type, size: [height, width], into, out, slice: [channels, offset] }: ImageDeconvShape) => {
    const fours = [into, out, channels, offset].every((count) => count >= 0 && count % 4 === 0) && into > 0 && out > 0;
    if (!fours || offset + out > channels || height < 1 || width < 1) {
      throw new ZoetropeError(
        'internal',
        `image-deconv takes channels in fours, got ${into} to ${out} from ${offset} on of ${channels} for ${height} × ${width} pixels.`,
      );
    }
    return {
      prelude: { T: type, LAYERS: channels / 4, OFFSET: offset / 4 },
      overrides: { WORKGROUP },
      params: [height, width, into / 4, out / 4],
      groups: grid2d(Math.ceil((height * width * out) / WORKGROUP)),
    };
  },
});

/** The last layer of the encoders of RIFE 4.25 and 4.26.heavy at 1280 × 768. */
export const examples: readonly ImageDeconvShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap(
  (type): ImageDeconvShape[] => [
    { type, size: [384, 640], into: 16, out: 4, slice: [8, 4] },
    { type, size: [384, 640], into: 16, out: 16, slice: [20, 4] },
  ],
);
