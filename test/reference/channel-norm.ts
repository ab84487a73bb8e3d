/** x [positions, channels] / max(‖x‖₂, 1e-12) * sqrt(channels) * gamma in float64, then SiLU. */
export function channelNormReference(x: ArrayLike<number>, gamma: ArrayLike<number>, silu: boolean): Float64Array {
  const channels = gamma.length;
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += channels) {
    let squares = 0;
    for (let c = 0; c < channels; c++) squares += x[at + c]! ** 2;
    for (let c = 0; c < channels; c++) {
      const value = (x[at + c]! / Math.max(Math.sqrt(squares), 1e-12)) * Math.sqrt(channels) * gamma[c]!;
      y[at + c] = silu ? value / (1 + Math.exp(-value)) : value;
    }
  }
  return y;
}
