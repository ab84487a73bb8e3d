import type { KeepFramesShape } from '../../kernels/keep-frames';

/** y with values of x in their place, bounded as half floats are and not rounded. */
export function keepFramesReference(
  x: ArrayLike<number>,
  y: ArrayLike<number>,
  { quads, first, place }: KeepFramesShape,
): Float64Array {
  const kept = Float64Array.from(y);
  for (let i = 0; i < 4 * quads; i++) kept[4 * place + i] = Math.max(-65504, Math.min(65504, x[4 * first + i]!));
  return kept;
}
