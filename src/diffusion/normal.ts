/**
 * Two uniforms to two normals (Box-Muller) with the f32 arithmetic of PyTorch's AVX2 path, so that noise agrees with it
 * to the last bit: `ATen/native/cpu/avx_mathfun.h`, whose polynomials and constants are those of Cephes (`logf.c`,
 * `sinf.c`), compiled with fused multiply-add. `Math.log`, `Math.sin` and `Math.cos` would change the last bit of one
 * value in six, and may differ from browser to browser; the operations used here may not.
 *
 * Doubles stand in for the fused operation: a product of two f32 is exact in f64, and the sum is rounded to f64 and
 * then to f32. That differs from rounding once in about one of 2^29 results.
 */

const f32 = Math.fround;

/** a * b + c, rounded once to f32. */
function fma(a: number, b: number, c: number): number {
  return f32(a * b + c);
}

/** Bits of a uniform, which is a multiple of 2^-24. */
const UNIFORM_BITS = 24;

const SQRT_HALF = f32(Math.SQRT1_2);

/** ln 2 in two parts: the first is exact in 10 bits, the second adds what is missing. */
const LN2_HIGH = f32(0.693359375);
const LN2_LOW = f32(-2.1219444e-4);

/** (ln(1 + x) - x + x^2 / 2) / x^3 for x from -0.3 to 0.42, highest power first. */
const L8 = f32(7.0376836292e-2);
const L7 = f32(-1.151461031e-1);
const L6 = f32(1.167699874e-1);
const L5 = f32(-1.2420140846e-1);
const L4 = f32(1.4249322787e-1);
const L3 = f32(-1.6668057665e-1);
const L2 = f32(2.0000714765e-1);
const L1 = f32(-2.4999993993e-1);
const L0 = f32(3.3333331174e-1);

const TWO_PI = f32(2 * Math.PI);
const FOUR_OVER_PI = f32(4 / Math.PI);

/** -pi / 4 in three parts, so that subtracting a small multiple of it loses nothing. */
const PI4_HIGH = f32(-0.78515625);
const PI4_MIDDLE = f32(-2.4187564849853516e-4);
const PI4_LOW = f32(-3.774894977445941e-8);

/** (cos x - 1 + x^2 / 2) / x^4 and (sin x - x) / x^3 in x^2, for |x| up to pi / 4, highest power first. */
const C2 = f32(2.443315711809948e-5);
const C1 = f32(-1.388731625493765e-3);
const C0 = f32(4.166664568298827e-2);
const S2 = f32(-1.9515295891e-4);
const S1 = f32(8.3321608736e-3);
const S0 = f32(-1.6666654611e-1);

/**
 * Replaces the uniforms of [0, 1) at `first` and `second` by two independent normals: with r = sqrt(-2 ln(1 - u1)) and
 * the angle 2 pi u2, r cos goes to `first` and r sin to `second`.
 */
export function normalPair(values: Float32Array, first: number, second: number): void {
  const radius = f32(Math.sqrt(-2 * logOneMinus(values[first]!)));
  const angle = f32(TWO_PI * values[second]!);

  // The octant, rounded up to even, tells which of the two polynomials is the sine and what the signs are.
  const octant = (Math.trunc(f32(angle * FOUR_OVER_PI)) + 1) & ~1;
  const x = fma(octant, PI4_LOW, fma(octant, PI4_MIDDLE, fma(octant, PI4_HIGH, angle)));
  const square = f32(x * x);

  const cosTail = f32(fma(fma(C2, square, C1), square, C0) * square);
  const even = f32(fma(cosTail, square, -square / 2) + 1);
  const sinTail = f32(fma(fma(S2, square, S1), square, S0) * square);
  const odd = fma(sinTail, x, x);

  const swapped = (octant & 2) !== 0;
  const cos = swapped ? odd : even;
  const sin = swapped ? even : odd;
  values[first] = radius * (((octant + 2) & 4) !== 0 ? -cos : cos);
  values[second] = radius * ((octant & 4) !== 0 ? -sin : sin);
}

/** ln(1 - u) of a uniform u in f32. */
function logOneMinus(u: number): number {
  // 1 - u is a whole number of 2^-24, so its highest bit gives the exponent of a mantissa in [0.5, 1).
  const whole = (1 - u) * 2 ** UNIFORM_BITS;
  const length = 32 - Math.clz32(whole);
  let exponent = length - UNIFORM_BITS;
  let x = whole / (1 << length);
  if (x < SQRT_HALF) {
    exponent -= 1;
    x *= 2;
  }
  x -= 1;
  const square = f32(x * x);
  let tail = fma(fma(fma(fma(fma(fma(fma(fma(L8, x, L7), x, L6), x, L5), x, L4), x, L3), x, L2), x, L1), x, L0);
  tail = fma(f32(tail * x), square, f32(exponent * LN2_LOW));
  tail = fma(square, -0.5, tail);
  return fma(exponent, LN2_HIGH, f32(x + tail));
}
