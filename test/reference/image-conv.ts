import type { ImageConvShape } from '../../kernels/image-conv';

/**
 * The convolution in float64, from torch's weight [out, into, 3, 3]. x and the result are channels last with a border
 * of one pixel, which the result has as `border`.
 */
export function imageConvReference(
  { size, stride, into, out, residual, slope }: Omit<ImageConvShape, 'type'>,
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  border: number,
): Float64Array {
  const [height, width] = size;
  const y = new Float64Array((height + 2) * (width + 2) * out).fill(border);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const at = ((row + 1) * (width + 2) + column + 1) * out;
      for (let o = 0; o < out; o++) {
        let sum = bias[o]!;
        for (let dy = 0; dy < 3; dy++) {
          for (let dx = 0; dx < 3; dx++) {
            const from = ((stride * row + dy) * (stride * width + 2) + stride * column + dx) * into;
            for (let i = 0; i < into; i++) sum += x[from + i]! * weight[((o * into + i) * 3 + dy) * 3 + dx]!;
          }
        }
        if (residual) sum += x[at + o]!;
        y[at + o] = sum < 0 ? slope * sum : sum;
      }
    }
  }
  return y;
}
