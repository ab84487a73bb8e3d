import type { WarpSliceShape } from '../../kernels/warp-slice';

/** The moved picture in float64, [h + 2, w + 2, slice channels]; what is not made is `rest`. */
export function warpSliceReference(
  { size: [height, width], channels, slice: [yChannels, offset], scale }: Omit<WarpSliceShape, 'type'>,
  x: ArrayLike<number>,
  flow: ArrayLike<number>,
  rest: number,
): Float64Array {
  const y = new Float64Array((height + 2) * (width + 2) * yChannels).fill(rest);
  const read = (row: number, column: number, channel: number) => {
    const inside = [Math.min(row, height - 1), Math.min(column, width - 1)] as const;
    return x[((inside[0] + 1) * (width + 2) + inside[1] + 1) * channels + channel]!;
  };
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const at = 2 * (row * width + column);
      const sx = Math.min(Math.max(column + (scale ?? 0) * flow[at]!, 0), width - 1);
      const sy = Math.min(Math.max(row + (scale ?? 0) * flow[at + 1]!, 0), height - 1);
      const [left, top] = [Math.floor(sx), Math.floor(sy)];
      const [fx, fy] = [sx - left, sy - top];
      for (let channel = 0; channel < channels; channel++) {
        const upper = read(top, left, channel) * (1 - fx) + read(top, left + 1, channel) * fx;
        const lower = read(top + 1, left, channel) * (1 - fx) + read(top + 1, left + 1, channel) * fx;
        y[((row + 1) * (width + 2) + column + 1) * yChannels + offset + channel] = upper * (1 - fy) + lower * fy;
      }
    }
  }
  return y;
}
