/**
 * z [channels, height, width] to z * std + mean, [height + 2, width + 2, channels] with a border of zeros, in float64.
 */
export function denormalizeReference(
  z: ArrayLike<number>,
  std: ArrayLike<number>,
  mean: ArrayLike<number>,
  height: number,
  width: number,
): Float64Array {
  const channels = std.length;
  const y = new Float64Array((height + 2) * (width + 2) * channels);
  for (let c = 0; c < channels; c++) {
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const to = ((row + 1) * (width + 2) + column + 1) * channels + c;
        y[to] = z[(c * height + row) * width + column]! * std[c]! + mean[c]!;
      }
    }
  }
  return y;
}
