import { type VaeConfig, vaeLevels } from '../config';

/** A rectangle of pixels of one level's frames. */
export interface Region {
  top: number;
  left: number;
  height: number;
  width: number;
}

/** A part of the picture that is decoded on its own and still equals the same part of the whole. */
export interface Tile {
  /** The pixels of the full-size frame that count. */
  core: Region;
  /** What has to be computed at the start of each level so that the core is exact; the coarsest level is never cut. */
  levels: Region[];
}

/** Pixels of a frame's side at each level. */
export function levelSize(latents: number, level: number): number {
  return latents * 2 ** level;
}

/**
 * Cuts the frames of a decoder into tiles. The coarsest level, which holds the attention over all positions, is
 * computed once on whole frames; what follows are convolutions of three pixels and norms of single positions, so a tile
 * needs a halo as wide as the kernels reach: with three residual blocks a level, 5.75 latent positions. Halos end at
 * the frame's edge.
 * @param tile side of a tile's core in latent positions; null for whole frames.
 */
export function planTiles(config: VaeConfig, latentHeight: number, latentWidth: number, tile: number | null): Tile[] {
  const rows = cuts(latentHeight, tile).map((core) => axisSpans(config, latentHeight, core));
  const columns = cuts(latentWidth, tile).map((core) => axisSpans(config, latentWidth, core));
  return rows.flatMap((row) =>
    columns.map((column) => ({
      core: region(row.core, column.core),
      levels: row.levels.map((span, level) => region(span, column.levels[level]!)),
    })),
  );
}

type Span = [begin: number, end: number];

function region([top, bottom]: Span, [left, right]: Span): Region {
  return { top, left, height: bottom - top, width: right - left };
}

/** Cuts an axis into parts of equal length where possible, none longer than `tile`. */
function cuts(size: number, tile: number | null): Span[] {
  const count = Math.ceil(size / (tile ?? size));
  return Array.from({ length: count }, (_, i) => [
    Math.floor((i * size) / count),
    Math.floor(((i + 1) * size) / count),
  ]);
}

/** From the core back to the coarsest level: what each level must be given. */
function axisSpans(config: VaeConfig, latents: number, [begin, end]: Span): { core: Span; levels: Span[] } {
  const levels = vaeLevels(config);
  const last = levels.length - 1;
  const core: Span = [levelSize(begin, last), levelSize(end, last)];
  const spans: Span[] = [];
  let needed = core;
  for (let level = last; level >= 0; level--) {
    const size = levelSize(latents, level);
    // Two convolutions a block, and the head's on the last level, each reaching one pixel further.
    const reach = 2 * levels[level]!.blocks.length + (level === last ? 1 : 0);
    const span: Span = level === 0 ? [0, size] : [Math.max(0, needed[0] - reach), Math.min(size, needed[1] + reach)];
    spans.unshift(span);
    // Upsampling: a pixel reads its neighbours of the doubled picture, two of which are one pixel before the doubling.
    needed = [Math.floor((span[0] - 1) / 2), Math.floor(span[1] / 2) + 1];
  }
  return { core, levels: spans };
}
