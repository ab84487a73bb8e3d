import type { AttentionShape } from '../../kernels/attention';

/** Softmax attention in float64 and plain loops: what the WGSL kernel must match. Never shipped. */

/** Channels of a head. */
const DIM = 128;

/**
 * What one launch makes of `before`, the present contents of out [queries, qHeads * 128]: the columns of its heads in
 * the rows of its queries are new, the rest is as it was. q [qHeads, queries, 128], k and v [heads, keys, 128].
 */
export function attentionReference(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  v: ArrayLike<number>,
  shape: AttentionShape,
  before: ArrayLike<number> = new Float64Array(shape.queries * shape.qHeads * DIM),
): Float64Array {
  const { queries, keys, heads, qHeads, headOffset, queryBegin, queryCount, lastKeyBias } = shape;
  const out = Float64Array.from(before);
  const logits = new Float64Array(keys);
  const sums = new Float64Array(DIM);
  for (let head = 0; head < heads; head++) {
    for (let row = queryBegin; row < queryBegin + queryCount; row++) {
      const query = ((headOffset + head) * queries + row) * DIM;
      let top = -Infinity;
      for (let key = 0; key < keys; key++) {
        const at = (head * keys + key) * DIM;
        let dot = 0;
        for (let c = 0; c < DIM; c++) dot += q[query + c]! * k[at + c]!;
        logits[key] = dot / Math.sqrt(DIM) + (key === keys - 1 ? lastKeyBias : 0);
        top = Math.max(top, logits[key]!);
      }
      let total = 0;
      sums.fill(0);
      for (let key = 0; key < keys; key++) {
        const weight = Math.exp(logits[key]! - top);
        const at = (head * keys + key) * DIM;
        total += weight;
        for (let c = 0; c < DIM; c++) sums[c]! += weight * v[at + c]!;
      }
      const cell = (row * qHeads + headOffset + head) * DIM;
      for (let c = 0; c < DIM; c++) out[cell + c] = sums[c]! / total;
    }
  }
  return out;
}
