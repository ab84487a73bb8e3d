import type { PadPictureShape } from '../../kernels/pad-picture';

/** The padded picture in float64, [H + 2 border, W + 2 border, channels]; what is not set is `rest`. */
export function padPictureReference(
  { frames, frame, size: [height, width], padded: [high, wide], edge, border, channels }: Omit<PadPictureShape, 'type'>,
  rgb: ArrayLike<number>,
  rest: number,
): Float64Array {
  const y = new Float64Array(channels * (high + 2 * border) * (wide + 2 * border)).fill(rest);
  for (let row = 0; row < high; row++) {
    for (let column = 0; column < wide; column++) {
      const at = ((row + border) * (wide + 2 * border) + column + border) * channels;
      y.fill(0, at, at + 4);
      if (edge === 'zero' && (row >= height || column >= width)) continue;
      for (let color = 0; color < 3; color++) {
        const from = (color * frames + frame) * height + Math.min(row, height - 1);
        const value = rgb[from * width + Math.min(column, width - 1)]!;
        y[at + color] = (Math.min(1, Math.max(-1, value)) + 1) / 2;
      }
    }
  }
  return y;
}
