import type { DeconvShuffleShape } from '../../kernels/deconv-shuffle';

/**
 * The transposed convolution by its definition, every input pixel spread over 4 × 4 output pixels, then the pixel
 * shuffle, in float64. x is channels last with a border; weight is torch's [into, 4 planes, 4, 4]. Gives
 * [planes, 4h, 4w].
 */
export function deconvShuffleReference(
  { size, into, planes }: Omit<DeconvShuffleShape, 'type'>,
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
): Float64Array {
  const [height, width] = size;
  const channels = 4 * planes;
  const wide = new Float64Array(channels * 4 * height * width);
  for (let c = 0; c < channels; c++) wide.fill(bias[c]!, c * 4 * height * width, (c + 1) * 4 * height * width);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      for (let ky = 0; ky < 4; ky++) {
        for (let kx = 0; kx < 4; kx++) {
          const [oy, ox] = [2 * row - 1 + ky, 2 * column - 1 + kx];
          if (oy < 0 || ox < 0 || oy >= 2 * height || ox >= 2 * width) continue;
          for (let c = 0; c < channels; c++) {
            let sum = 0;
            for (let i = 0; i < into; i++) {
              const value = x[((row + 1) * (width + 2) + column + 1) * into + i]!;
              sum += value * weight[((i * channels + c) * 4 + ky) * 4 + kx]!;
            }
            wide[(c * 2 * height + oy) * 2 * width + ox]! += sum;
          }
        }
      }
    }
  }
  const y = new Float64Array(channels * 4 * height * width);
  for (let c = 0; c < channels; c++) {
    const [dy, dx] = [(c >> 1) & 1, c & 1];
    for (let oy = 0; oy < 2 * height; oy++) {
      for (let ox = 0; ox < 2 * width; ox++) {
        const at = ((c >> 2) * 4 * height + 2 * oy + dy) * 4 * width + 2 * ox + dx;
        y[at] = wide[(c * 2 * height + oy) * 2 * width + ox]!;
      }
    }
  }
  return y;
}
