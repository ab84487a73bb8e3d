import type { FlowDoubleShape } from '../../kernels/flow-double';

/** The flow at twice the size in float64, [h, w, 2], written as the general bilinear resize. */
export function flowDoubleReference(
  { size: [height, width] }: FlowDoubleShape,
  coarse: ArrayLike<number>,
): Float64Array {
  const fine = new Float64Array(2 * height * width);
  const [high, wide] = [height / 2, width / 2];
  /** Two neighbours on an axis and the share of the second. */
  const place = (i: number, side: number) => {
    const position = Math.max((i + 0.5) / 2 - 0.5, 0);
    const first = Math.floor(position);
    return [first, Math.min(first + 1, side - 1), position - first] as const;
  };
  for (let row = 0; row < height; row++) {
    const [top, bottom, fy] = place(row, high);
    for (let column = 0; column < width; column++) {
      const [left, right, fx] = place(column, wide);
      for (const axis of [0, 1]) {
        const read = (y: number, x: number) => coarse[2 * (y * wide + x) + axis]!;
        const upper = read(top, left) * (1 - fx) + read(top, right) * fx;
        const lower = read(bottom, left) * (1 - fx) + read(bottom, right) * fx;
        fine[2 * (row * width + column) + axis] = 2 * (upper * (1 - fy) + lower * fy);
      }
    }
  }
  return fine;
}
