import type { Interpolator, RgbFrame } from './interpolator';

/** Times of `count` frames between two, of which the first is at 0 and the second at 1. */
export function timesBetween(count: number): number[] {
  return Array.from({ length: count }, (_, i) => (i + 1) / (count + 1));
}

/**
 * A clip with `count` new frames inside each neighbouring pair: of N frames N + (N - 1) count, the given ones unchanged
 * among them. Two given frames at most are held, as the interpolator prepared them; a frame that is yielded is valid
 * until the next is asked for. Frees what it made when it ends early or throws, and ends `frames`.
 * @param count 1 to 4.
 */
export async function* retime<Prepared extends Disposable>(
  frames: AsyncIterable<RgbFrame>,
  interpolator: Interpolator<Prepared>,
  count: number,
): AsyncGenerator<RgbFrame> {
  let before: Prepared | undefined;
  try {
    for await (const frame of frames) {
      const after = await interpolator.prepare(frame);
      const last = before;
      before = after; // owned from here on, whatever happens below
      try {
        if (last) yield* interpolator.between(last, after, count);
      } finally {
        last?.[Symbol.dispose]();
      }
      yield frame;
    }
  } finally {
    before?.[Symbol.dispose]();
  }
}
