import type { FlowSliceShape } from '../../kernels/flow-slice';

/** The scaled flows in float64, [h + 2, w + 2, channels]; what is not made is `rest`. */
export function flowSliceReference(
  { size: [height, width], slice: [channels, offset], time }: Omit<FlowSliceShape, 'type'>,
  backward: ArrayLike<number>,
  forward: ArrayLike<number>,
  rest: number,
): Float64Array {
  const y = new Float64Array((height + 2) * (width + 2) * channels).fill(rest);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const at = 2 * (row * width + column);
      const out = ((row + 1) * (width + 2) + column + 1) * channels + offset;
      for (const axis of [0, 1]) {
        y[out + axis] = time * backward[at + axis]!;
        y[out + 2 + axis] = (1 - time) * forward[at + axis]!;
      }
    }
  }
  return y;
}
