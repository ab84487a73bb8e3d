import type { Sizes } from '../../src/manifest';

/** Every label a square of `side` pixels, for runs whose arithmetic matters and whose picture does not. */
export function smallSizes(side: number): Sizes {
  const square = [side, side] as [number, number];
  const ratios = { '16:9': square, '9:16': square, '1:1': square };
  return { '480p': ratios, '580p': ratios, '720p': ratios };
}
