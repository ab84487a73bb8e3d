import type { TileOutputShape } from '../../kernels/tile-output';

/**
 * A tile in float64, from torch's weight [3, into]: its own weighted colours [3, H, W], to add to those of the others.
 * A share is the product of four ramps, sampled in the middle of each pixel.
 */
export function tileOutputReference(
  { from, into, fromAt, size, to, toAt, fade }: Omit<TileOutputShape, 'type'>,
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
): Float64Array {
  const rgb = new Float64Array(3 * to[0] * to[1]);
  const ramp = (distance: number, length: number) => (length === 0 ? 1 : Math.min(1, distance / length));
  for (let row = 0; row < size[0]; row++) {
    for (let column = 0; column < size[1]; column++) {
      const share =
        ramp(row + 0.5, fade[0]) *
        ramp(size[0] - row - 0.5, fade[1]) *
        ramp(column + 0.5, fade[2]) *
        ramp(size[1] - column - 0.5, fade[3]);
      for (let color = 0; color < 3; color++) {
        let sum = bias[color]!;
        for (let i = 0; i < into; i++) {
          const at = ((fromAt[0] + row + 1) * (from[1] + 2) + fromAt[1] + column + 1) * into + i;
          sum += x[at]! * weight[color * into + i]!;
        }
        rgb[(color * to[0] + toAt[0] + row) * to[1] + toAt[1] + column] = share * (2 * sum - 1);
      }
    }
  }
  return rgb;
}
