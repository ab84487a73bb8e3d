/**
 * The geometry of the drum: a zoetrope seen from the front and a little from above. Slits run round its upper half, the
 * strip of pictures below them; the picture in the middle is the one that the eye sees. Pure arithmetic, all in the
 * units of the width that is passed in.
 */

/**
 * Half of the angle that is in view. At 90° the outer pictures would be slivers; at 64° they keep 0.44 of their width.
 */
const HALF_VIEW = (64 / 180) * Math.PI;

/** Where an angle lands: 0 in the middle of `width`, ±{@link HALF_VIEW} at its edges. */
export function project(angle: number, width: number): number {
  return (width / 2) * (1 + Math.sin(angle) / Math.sin(HALF_VIEW));
}

/** How far a point of the drum hangs below the ends of its row, as the share of the greatest depth, 1 in the middle. */
export function sag(angle: number): number {
  const end = Math.cos(HALF_VIEW);
  return (Math.cos(angle) - end) / (1 - end);
}

/** A picture on the drum. */
export interface Cell {
  /** Places from the middle, negative to the left. */
  offset: number;
  /** Its edges as angles. */
  from: number;
  to: number;
}

/** The pictures in view, left to right, when the one in the middle is `cellWidth` wide. */
export function cellsInView(cellWidth: number, width: number): Cell[] {
  const cell = 2 * Math.asin(Math.min(1, (cellWidth / width) * Math.sin(HALF_VIEW)));
  const aside = Math.ceil((HALF_VIEW - cell / 2) / cell);
  return Array.from({ length: 2 * aside + 1 }, (_, index) => {
    const offset = index - aside;
    return { offset, from: (offset - 0.5) * cell, to: (offset + 0.5) * cell };
  });
}

/** Angles of `count` slits, spread evenly over the view. */
export function slitAngles(count: number): number[] {
  const pitch = (2 * HALF_VIEW) / count;
  return Array.from({ length: count }, (_, index) => (index + 0.5) * pitch - HALF_VIEW);
}

/** Which of `count` pictures is `offset` places from `current` on a strip without ends. */
export function pictureAt(current: number, offset: number, count: number): number {
  return (((current + offset) % count) + count) % count;
}
