import {
  FILM_FUSION_LEVELS,
  FILM_LEVELS,
  FILM_MULTIPLE,
  FILM_OWN_PREDICTORS,
  FILM_STAGES,
  type FilmConfig,
  filmFusion,
  filmPredictor,
  filmShapes,
} from '../part/film';

/** Levels at which a layer of the network runs for one frame between two, once for each run. */
function levelsOf(name: string): number[] {
  const from = (first: number, end: number) => Array.from({ length: end - first }, (_, i) => first + i);
  for (let stage = 0; stage < FILM_STAGES; stage++) {
    const once = from(stage, FILM_LEVELS);
    if (name.startsWith(`extract.extract_sublevels.convs.${stage}.`)) return [...once, ...once];
  }
  for (let level = 0; level <= FILM_OWN_PREDICTORS; level++) {
    const once = from(level, level < FILM_OWN_PREDICTORS ? level + 1 : FILM_LEVELS);
    if (name.startsWith(`${filmPredictor(level)}.`)) return [...once, ...once];
  }
  for (let level = 0; level < FILM_FUSION_LEVELS - 1; level++) {
    if (name.startsWith(`${filmFusion(level)}.`)) return [level];
  }
  return [0];
}

/**
 * Multiply-adds of one frame between two as a whole, the features of both included. Of several frames in a row less is
 * computed: features of a frame serve both its pairs.
 */
export function filmMac(config: FilmConfig, width: number, height: number): number {
  const padded = (side: number) => Math.ceil(side / FILM_MULTIPLE) * FILM_MULTIPLE;
  const pixels = padded(width) * padded(height);
  let total = 0;
  for (const [name, shape] of filmShapes(config)) {
    if (!name.endsWith('.weight')) continue;
    const perPixel = shape.reduce((product, size) => product * size, 1);
    for (const level of levelsOf(name)) total += (perPixel * pixels) / 4 ** level;
  }
  return total;
}
