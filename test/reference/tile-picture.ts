import type { TilePictureShape } from '../../kernels/tile-picture';

/** The rectangle in float64, [h + 2, w + 2, 4] with a border of `border`. */
export function tilePictureReference(
  { frames, frame, from, at: [top, left], size: [height, width] }: Omit<TilePictureShape, 'type'>,
  rgb: ArrayLike<number>,
  border: number,
): Float64Array {
  const y = new Float64Array((height + 2) * (width + 2) * 4).fill(border);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const out = ((row + 1) * (width + 2) + column + 1) * 4;
      y.fill(0, out, out + 4);
      const [fromRow, fromColumn] = [row + top, column + left];
      if (fromRow < 0 || fromColumn < 0 || fromRow >= from[0] || fromColumn >= from[1]) continue;
      for (let color = 0; color < 3; color++) {
        const value = rgb[((color * frames + frame) * from[0] + fromRow) * from[1] + fromColumn]!;
        y[out + color] = Math.min(Math.max(value, -1), 1) / 2 + 0.5;
      }
    }
  }
  return y;
}
