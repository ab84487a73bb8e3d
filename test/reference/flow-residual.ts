import type { FlowResidualShape } from '../../kernels/flow-residual';

/** The flow in float64, [h, w, 2], from torch's weight [2, into]. */
export function flowResidualReference(
  { size: [height, width], into, first }: Omit<FlowResidualShape, 'type'>,
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  flow: ArrayLike<number>,
): Float64Array {
  const result = new Float64Array(2 * height * width);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      for (const axis of [0, 1]) {
        const at = 2 * (row * width + column) + axis;
        let sum = bias[axis]! + (first ? 0 : flow[at]!);
        for (let i = 0; i < into; i++) {
          sum += x[((row + 1) * (width + 2) + column + 1) * into + i]! * weight[axis * into + i]!;
        }
        result[at] = sum;
      }
    }
  }
  return result;
}
