import type { FlowBlendShape } from '../../kernels/flow-blend';
import { sample } from './flow-features';

/** The blend in float64, [3, h, w]. */
export function flowBlendReference(
  { padded, encoded, size: [height, width] }: FlowBlendShape,
  before: ArrayLike<number>,
  after: ArrayLike<number>,
  flow: ArrayLike<number>,
  mask: ArrayLike<number>,
): Float64Array {
  const rgb = new Float64Array(3 * height * width);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const at = row * padded[1] + column;
      const share = 1 / (1 + Math.exp(-mask[at]!));
      const [x0, y0, x1, y1] = [0, 1, 2, 3].map((i) => flow[4 * at + i]!) as [number, number, number, number];
      for (let color = 0; color < 3; color++) {
        const first = sample(before, padded, 4 + encoded, column + x0, row + y0, color);
        const second = sample(after, padded, 4 + encoded, column + x1, row + y1, color);
        rgb[(color * height + row) * width + column] = 2 * (first * share + second * (1 - share)) - 1;
      }
    }
  }
  return rgb;
}
