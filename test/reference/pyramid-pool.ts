import type { PyramidPoolShape } from '../../kernels/pyramid-pool';

/** The means in float64, [h + 2, w + 2, channels] with a border of `border`. */
export function pyramidPoolReference(
  { size: [height, width], channels, slice: [xChannels, offset] }: Omit<PyramidPoolShape, 'type'>,
  x: ArrayLike<number>,
  border: number,
): Float64Array {
  const y = new Float64Array((height + 2) * (width + 2) * channels).fill(border);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (const dy of [1, 2]) {
          for (const dx of [1, 2]) {
            sum += x[((2 * row + dy) * (2 * width + 2) + 2 * column + dx) * xChannels + offset + channel]!;
          }
        }
        y[((row + 1) * (width + 2) + column + 1) * channels + channel] = sum / 4;
      }
    }
  }
  return y;
}
