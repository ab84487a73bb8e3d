/** How far values may lie from what is expected. Each tolerance is a named constant with its reason beside it. */
export interface Tolerance {
  /** Limit of the error's Euclidean norm, divided by that of the expected values. */
  relativeL2: number;
  /** Limit of every single element's error. */
  maxAbs: number;
}

/** How far two lists of values lie apart. */
export interface Distance {
  /** Norm of the error divided by the norm of what is expected; infinite when that is zero and the error is not. */
  relativeL2: number;
  /** Largest error of an element; infinite when an actual value is not finite. */
  maxAbs: number;
  /** Index of that element. */
  worst: number;
  /** Elements whose error is above `bound`. */
  outside: number;
}

/**
 * Measures `actual` against `expected`, which are of one length and must not be empty; an element that is NaN or
 * infinite in either is infinitely far away.
 * @param bound error from which on an element counts as outside.
 */
export function distance(actual: ArrayLike<number>, expected: ArrayLike<number>, bound: number): Distance {
  if (actual.length !== expected.length || actual.length === 0) {
    throw new RangeError(`cannot compare ${actual.length} values with ${expected.length}`);
  }
  let squares = 0;
  let norm = 0;
  const found: Distance = { relativeL2: 0, maxAbs: 0, worst: 0, outside: 0 };
  for (let i = 0; i < actual.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    const error = Number.isFinite(difference) ? difference : Infinity;
    if (error > found.maxAbs) {
      found.maxAbs = error;
      found.worst = i;
    }
    if (error > bound) found.outside++;
    squares += error * error;
    norm += expected[i]! * expected[i]!;
  }
  found.relativeL2 = squares === 0 ? 0 : Number.isFinite(squares) ? Math.sqrt(squares / norm) : Infinity;
  return found;
}

/**
 * Throws unless every element is within `maxAbs` and the whole within `relativeL2` of what is expected. NaN and
 * infinities always fail. The message holds both metrics, the share of elements out of bounds, and the worst one with
 * both values.
 */
export function expectNear(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: Tolerance,
  label: string,
): void {
  const { relativeL2, maxAbs, worst, outside } = distance(actual, expected, tolerance.maxAbs);
  if (relativeL2 <= tolerance.relativeL2 && maxAbs <= tolerance.maxAbs) return;
  const share = ((100 * outside) / actual.length).toPrecision(3);
  throw new Error(
    `${label}: relative L2 ${relativeL2.toExponential(2)} (limit ${tolerance.relativeL2}), ` +
      `max abs ${maxAbs.toExponential(2)} (limit ${tolerance.maxAbs}), ` +
      `${outside} of ${actual.length} elements (${share} %) out of bounds; ` +
      `worst at ${worst}: got ${actual[worst]}, expected ${expected[worst]}`,
  );
}

/** Uniform numbers in [0, 1): mulberry32, the same sequence for the same seed everywhere. */
export function seededUniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `count` values of a normal distribution with standard deviation `scale` and mean 0 (Box-Muller). */
export function seededFloats(seed: number, count: number, scale = 1): Float32Array {
  const uniform = seededUniform(seed);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = scale * Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < count) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}
