/** Where jobs are struck. */

/** Numbers from 0 to 1 of a seed: mulberry32, Tommy Ettinger's 32-bit generator, public domain. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * `count` submissions of 1 to `submits`, one in each of as many equal parts, so that every stage of a job gets its
 * share; in an order of chance.
 */
export function strikePoints(count: number, submits: number, random: () => number): number[] {
  const points = Array.from({ length: count }, (_, i) => 1 + Math.floor(((i + random()) * (submits - 1)) / count));
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [points[i], points[j]] = [points[j]!, points[i]!];
  }
  return points;
}
