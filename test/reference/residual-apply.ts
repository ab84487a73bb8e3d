import { decodeF16 } from '../../src/floats';

/** x + scale * packed for tokens of `dim` channels in float64; `sizes` has a scale and a norm for each token. */
export function residualApplyReference(
  x: ArrayLike<number>,
  packed: Uint16Array,
  sizes: ArrayLike<number>,
  dim: number,
): Float64Array {
  const halves = decodeF16(packed);
  return Float64Array.from({ length: x.length }, (_, i) => x[i]! + sizes[2 * Math.floor(i / dim)]! * halves[i]!);
}
