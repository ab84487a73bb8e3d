/** Residuals x - embedded of tokens of `dim` channels in float64, before any rounding, and their norms. */
export function residualStoreReference(x: ArrayLike<number>, embedded: ArrayLike<number>, dim: number) {
  const residual = new Float64Array(x.length);
  const norms = new Float64Array(x.length / dim);
  for (let token = 0; token < norms.length; token++) {
    let squares = 0;
    for (let c = 0; c < dim; c++) {
      const d = x[token * dim + c]! - embedded[token * dim + c]!;
      residual[token * dim + c] = d;
      squares += d * d;
    }
    norms[token] = Math.sqrt(squares);
  }
  return { residual, norms };
}
