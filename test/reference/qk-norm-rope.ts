/**
 * Projection to head-major storage in float64 and plain loops. Angles come from positions, not from the kernel's table,
 * so a table in another order shows.
 */

/** What the kernel is asked for; the fields mean what they mean in `kernels/qk-norm-rope.ts`. */
export interface QkNormRopeCase {
  tokens: number;
  dim: number;
  heads: number;
  headOffset: number;
  norm: boolean;
  rope: boolean;
  outTokens: number;
  storeOffset: number;
  ropeOffset: number;
  grid: readonly [number, number, number];
  eps: number;
}

const HEAD_DIM = 128;

/** Position axis and frequency of a pair of channels (wan-model.md, RoPE): 22 pairs for t, 21 for h, 21 for w. */
function axisOf(pair: number): { axis: 0 | 1 | 2; frequency: number } {
  if (pair < 22) return { axis: 0, frequency: 10000 ** ((-2 * pair) / 44) };
  if (pair < 43) return { axis: 1, frequency: 10000 ** ((-2 * (pair - 22)) / 42) };
  return { axis: 2, frequency: 10000 ** ((-2 * (pair - 43)) / 42) };
}

/** Writes x [tokens, dim] into `out` [heads, outTokens, 128] and leaves the rest of it alone. */
export function qkNormRopeReference(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  out: Float64Array,
  { tokens, dim, heads, headOffset, norm, rope, outTokens, storeOffset, ropeOffset, grid, eps }: QkNormRopeCase,
): void {
  const [, height, width] = grid;
  for (let token = 0; token < tokens; token++) {
    const row = Array.from({ length: dim }, (_, channel) => x[token * dim + channel]!);
    if (norm) {
      let squares = 0;
      for (const value of row) squares += value * value;
      const rms = Math.sqrt(squares / dim + eps);
      for (let channel = 0; channel < dim; channel++) row[channel] = (row[channel]! / rms) * weight[channel]!;
    }
    const n = ropeOffset + token;
    const position = [Math.floor(n / (height * width)), Math.floor(n / width) % height, n % width] as const;
    for (let head = 0; head < heads; head++) {
      for (let pair = 0; pair < HEAD_DIM / 2; pair++) {
        const from = (headOffset + head) * HEAD_DIM + 2 * pair;
        const { axis, frequency } = axisOf(pair);
        const angle = rope ? position[axis] * frequency : 0;
        const [a, b] = [row[from]!, row[from + 1]!];
        const to = (head * outTokens + storeOffset + token) * HEAD_DIM + 2 * pair;
        out[to] = a * Math.cos(angle) - b * Math.sin(angle);
        out[to + 1] = a * Math.sin(angle) + b * Math.cos(angle);
      }
    }
  }
}
