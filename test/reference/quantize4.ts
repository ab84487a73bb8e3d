/** The choice among the four 4-bit forms of a block of 32, candidate by candidate as its definition has it. */

/** Nearest value on 0 to 15. */
function nearest(value: number, inverse: number, zero: number): number {
  return Math.max(0, Math.min(15, Math.trunc(value * inverse + zero + 0.5)));
}

/** Unrounded scale (0 for a block of zeros) and zero point of the form that loses least. */
export function searchBlock4(block: ArrayLike<number>): { scale: number; zero: number } {
  const values = Array.from(block);
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values);
  const range = (high - low) / 15;
  const below = Math.min(14, Math.floor(-low / range));
  const candidates: [scale: number, zero: number][] = [
    [(-low > high ? low : high) / -8, 8],
    [Math.max(-low, high) / 7, 8],
    [range, below],
    [range, below + 1],
  ];
  const best = { scale: 0, zero: 8 };
  let most = 0;
  if (low === high) return best;
  for (const [candidate, zero] of candidates) {
    let product = 0;
    let square = 0;
    for (const value of values) {
      const centred = nearest(value, 1 / candidate, zero) - zero;
      product += centred * value;
      square += centred * centred;
    }
    const scale = product / square;
    if (square === 0 || !(product * scale > most * (1 + 1e-9))) continue;
    most = product * scale;
    Object.assign(best, { scale, zero });
  }
  return best;
}

/** The block's 4-bit values at the scale as it is stored. */
export function packBlock4(block: ArrayLike<number>, scale: number, zero: number): number[] {
  const values = Array.from(block, (value) => nearest(value, scale === 0 ? 0 : 1 / scale, zero));
  return Array.from({ length: values.length / 2 }, (_, i) => values[2 * i]! | (values[2 * i + 1]! << 4));
}
