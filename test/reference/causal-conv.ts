import type { CausalConv } from '../../kernels/causal-conv';

/**
 * The convolution in float64, from torch's weight [out, into, taps, kernel, kernel]. x and the result are channels last
 * with a border; x begins with the `taps - 1` frames of the past. `held` is what `accumulate` adds to.
 */
export function causalConvReference(
  conv: Omit<CausalConv, 'type'>,
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  held?: ArrayLike<number>,
): Float64Array {
  const { frames, from, into, to, out, taps, kernel, parts = 1, doubledFrom } = conv;
  const share = out / parts;
  const y = Float64Array.from(held ?? new Float64Array(frames * parts * (to[0] + 2) * (to[1] + 2) * share));
  const reach = (kernel - 1) / 2;
  /** Pixel of x for a pixel of the axis that the kernel moves along; -1 and the end are border. */
  const pixel = (at: number, axis: 0 | 1) => (doubledFrom ? Math.floor((at + doubledFrom[axis]) / 2) : at);
  for (let t = 0; t < frames; t++) {
    for (let row = 0; row < to[0]; row++) {
      for (let column = 0; column < to[1]; column++) {
        for (let o = 0; o < out; o++) {
          let sum = bias[o]!;
          for (let tap = 0; tap < taps; tap++) {
            for (let dy = 0; dy < kernel; dy++) {
              for (let dx = 0; dx < kernel; dx++) {
                const xRow = (t + tap) * (from[0] + 2) + pixel(row + dy - reach, 0) + 1;
                const at = (xRow * (from[1] + 2) + pixel(column + dx - reach, 1) + 1) * into;
                for (let i = 0; i < into; i++) {
                  sum += x[at + i]! * weight[(((o * into + i) * taps + tap) * kernel + dy) * kernel + dx]!;
                }
              }
            }
          }
          const frame = t * parts + Math.floor(o / share);
          const at = ((frame * (to[0] + 2) + row + 1) * (to[1] + 2) + column + 1) * share + (o % share);
          y[at] = held ? y[at]! + sum : sum;
        }
      }
    }
  }
  return y;
}
