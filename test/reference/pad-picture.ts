import type { PadPictureShape } from '../../kernels/pad-picture';

/** The padded picture in float64, [H, W, 4]. */
export function padPictureReference(
  { frames, frame, size: [height, width], padded: [high, wide], edge }: PadPictureShape,
  rgb: ArrayLike<number>,
): Float64Array {
  const y = new Float64Array(4 * high * wide);
  for (let row = 0; row < high; row++) {
    for (let column = 0; column < wide; column++) {
      if (edge === 'zero' && (row >= height || column >= width)) continue;
      for (let color = 0; color < 3; color++) {
        const from = (color * frames + frame) * height + Math.min(row, height - 1);
        const value = rgb[from * width + Math.min(column, width - 1)]!;
        y[(row * wide + column) * 4 + color] = (Math.min(1, Math.max(-1, value)) + 1) / 2;
      }
    }
  }
  return y;
}
