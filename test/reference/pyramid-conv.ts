import type { PyramidConvShape } from '../../kernels/pyramid-conv';

/**
 * The convolution in float64, from torch's weight [out, into, kernel, kernel]. x and the result are channels last with
 * a border of one pixel; what the launch does not make is `rest`.
 */
export function pyramidConvReference(
  { size, kernel, into, out, slice, slope, rows = [0, size[0]] }: Omit<PyramidConvShape, 'type'>,
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  rest: number,
): Float64Array {
  const [height, width] = size;
  const [channels, offset] = slice;
  const factor = kernel === 2 ? 2 : 1;
  const pad = kernel === 3 ? 1 : 0;
  const read = (row: number, column: number, channel: number): number => {
    if (row < 0 || column < 0 || row >= height || column >= width) return 0;
    const [sourceRow, sourceColumn] = [Math.floor(row / factor), Math.floor(column / factor)];
    return x[((sourceRow + 1) * (width / factor + 2) + sourceColumn + 1) * into + channel]!;
  };
  const y = new Float64Array((height + 2) * (width + 2) * channels).fill(rest);
  for (let row = rows[0]; row < rows[1]; row++) {
    for (let column = 0; column < width; column++) {
      for (let o = 0; o < out; o++) {
        let sum = bias[o]!;
        for (let i = 0; i < into; i++) {
          for (let dy = 0; dy < kernel; dy++) {
            for (let dx = 0; dx < kernel; dx++) {
              const value = weight[((o * into + i) * kernel + dy) * kernel + dx]!;
              sum += value * read(row + dy - pad, column + dx - pad, i);
            }
          }
        }
        y[((row + 1) * (width + 2) + column + 1) * channels + offset + o] = sum < 0 ? slope * sum : sum;
      }
    }
  }
  return y;
}
