/** Sum of coefficient * tensor in float64. All tensors have one length. */
export function combineReference(tensors: readonly ArrayLike<number>[], coefficients: readonly number[]): Float64Array {
  const out = new Float64Array(tensors[0]!.length);
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (let term = 0; term < coefficients.length; term++) sum += coefficients[term]! * tensors[term]![i]!;
    out[i] = sum;
  }
  return out;
}
