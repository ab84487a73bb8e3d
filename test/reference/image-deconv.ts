import type { ImageDeconvShape } from '../../kernels/image-deconv';

/**
 * The transposed convolution by its definition, every input pixel spread over 4 × 4 output pixels, in float64. x is
 * channels last with a border; weight is torch's [into, out, 4, 4]. Gives [2h, 2w, slice channels], where what is not
 * set is `rest`.
 */
export function imageDeconvReference(
  { size: [height, width], into, out, slice: [channels, offset] }: Omit<ImageDeconvShape, 'type'>,
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  rest: number,
): Float64Array {
  const y = new Float64Array(4 * height * width * channels).fill(rest);
  for (let pixel = 0; pixel < 4 * height * width; pixel++) {
    for (let o = 0; o < out; o++) y[pixel * channels + offset + o] = bias[o]!;
  }
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      for (let ky = 0; ky < 4; ky++) {
        for (let kx = 0; kx < 4; kx++) {
          const [oy, ox] = [2 * row - 1 + ky, 2 * column - 1 + kx];
          if (oy < 0 || ox < 0 || oy >= 2 * height || ox >= 2 * width) continue;
          for (let o = 0; o < out; o++) {
            for (let i = 0; i < into; i++) {
              const value = x[((row + 1) * (width + 2) + column + 1) * into + i]!;
              y[(oy * 2 * width + ox) * channels + offset + o]! += value * weight[((i * out + o) * 4 + ky) * 4 + kx]!;
            }
          }
        }
      }
    }
  }
  return y;
}
