/** A frame that is made between two others, and those that are then made between it and them. */
export interface FilmStep {
  /** Number of the frame, from 1 on; the frames that were given are 0 and count + 1. */
  frame: number;
  /** Place between the two frames that it is made of, 0 to 1. FILM was trained for 0.5. */
  time: number;
  /** What comes between the earlier of the two and it. */
  before?: FilmStep;
  /** What comes between it and the later of the two. */
  after?: FilmStep;
}

/**
 * The order in which FILM makes `count` frames between two, "most central first": of all missing frames the one closest
 * to the middle of its gap, made of the frames on both sides of the gap. One and three frames are halvings, so 0.5
 * throughout; two are made at 2/3 and 1/2, four at 2/5, 1/2, 2/3 and 1/2. Of two thirds, which are as central as each
 * other, the later one is taken, of other such pairs the earlier, which is what floating point makes of the comparison
 * in `dajes/frame-interpolation-pytorch`.
 * @param count 1 to 4.
 */
export function filmSchedule(count: number): FilmStep {
  return stepOf(0, count + 1)!;
}

/**
 * What happens inside one gap does not depend on the others, so the order between gaps is left to whoever runs the
 * steps.
 */
function stepOf(first: number, last: number): FilmStep | undefined {
  let frame: number | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (let candidate = first + 1; candidate < last; candidate++) {
    const distance = Math.abs((candidate - first) / (last - first) - 0.5);
    if (distance >= least) continue;
    least = distance;
    frame = candidate;
  }
  if (frame === undefined) return undefined;
  const before = stepOf(first, frame);
  const after = stepOf(frame, last);
  return { frame, time: (frame - first) / (last - first), ...(before && { before }), ...(after && { after }) };
}
