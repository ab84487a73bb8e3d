import { ZoetropeError } from '../errors';
import {
  FILM_FLOW_CONVS,
  FILM_FUSION_LEVELS,
  FILM_LEVELS,
  FILM_MULTIPLE,
  type FilmConfig,
  filmFeatures,
  filmFlowFilters,
  filmShapes,
} from '../part/film';
import { type FilmStep, filmSchedule } from './film-schedule';

/** Pixels [height, width]. */
export type Size = readonly [height: number, width: number];

/** Pixels that neighbouring tiles share at least; what moves further than about half of it is lost at a seam. */
const OVERLAP = 128;
/** Pixels over which they fade into each other, in the middle of what they share. */
const FADE = 64;
/** Shortest side of a tile that has neighbours: fades of both sides have to fit. */
const MIN_TILE = 256;

/**
 * Pictures whose features may be held at once: the two given ones, and of four frames between them two more. The fewest
 * frames need two.
 */
const PICTURES = 4;

/** One run of the network on a part of the frame. */
export interface FilmTile {
  /** Pixel of the frame at which the network's picture begins; negative where it reaches beyond. */
  at: Size;
  /** Rectangle of the picture that goes into the frame. */
  fromAt: Size;
  size: Size;
  /** Where it goes. */
  toAt: Size;
  /** Rows and columns at its sides that it shares with its neighbours. */
  fade: readonly [top: number, bottom: number, left: number, right: number];
}

/** A side, extended to what the network takes. */
function padded(side: number): number {
  return Math.ceil(side / FILM_MULTIPLE) * FILM_MULTIPLE;
}

/** Pixels of a level. */
export function levelSize([height, width]: Size, level: number): Size {
  return [height / 2 ** level, width / 2 ** level];
}

interface Span {
  at: number;
  fromAt: number;
  size: number;
  rise: number;
  fall: number;
}

/** Tiles of one side. */
function spans(side: number, tile: number): Span[] {
  if (padded(side) <= tile) {
    // As the original does: half of the zeros on each side.
    const before = Math.floor((tile - side) / 2);
    return [{ at: 0 - before, fromAt: before, size: side, rise: 0, fall: 0 }];
  }
  const count = Math.ceil((side - OVERLAP) / (tile - OVERLAP));
  const begins = Array.from({ length: count }, (_, i) => Math.round((i * (side - tile)) / (count - 1)));
  /** Where the fade between a tile and the one before it begins. */
  const seam = (i: number) => begins[i]! + Math.floor((begins[i - 1]! + tile - begins[i]! - FADE) / 2);
  return begins.map((at, i) => {
    const first = i === 0 ? 0 : seam(i);
    const last = i === count - 1 ? side : seam(i + 1) + FADE;
    return {
      at,
      fromAt: first - at,
      size: last - first,
      rise: i === 0 ? 0 : FADE,
      fall: i === count - 1 ? 0 : FADE,
    };
  });
}

/**
 * The runs that make a frame of `height` × `width`, row by row, each on `tile` pixels. One where the whole frame fits;
 * then it lies in the middle. Otherwise tiles overlap by 128 pixels or more, of which the middle 64 are blended; a
 * frame then differs from that of one run, since FILM sees motion in up to all of the picture.
 */
export function filmTiles([height, width]: Size, tile: Size): FilmTile[] {
  return spans(height, tile[0]).flatMap((row) =>
    spans(width, tile[1]).map((column) => ({
      at: [row.at, column.at] as const,
      fromAt: [row.fromAt, column.fromAt] as const,
      size: [row.size, column.size] as const,
      toAt: [row.at + row.fromAt, column.at + column.fromAt] as const,
      fade: [row.rise, row.fall, column.rise, column.fall] as const,
    })),
  );
}

/**
 * Layout of what the fusion reads at a level: picture (3, and one of zeros), features, the same of the other frame,
 * both flows, and behind them `more` channels of the coarser level.
 */
export function filmFusionLayout(
  config: FilmConfig,
  level: number,
  more: number,
): {
  features: readonly [number, number];
  pictures: readonly [number, number];
  flows: number;
  more: number;
  total: number;
} {
  const own = 4 + filmFeatures(config, level);
  return { pictures: [0, own], features: [4, own + 4], flows: 2 * own, more: 2 * own + 4, total: 2 * own + 4 + more };
}

/** Bytes of a picture of a level with its border. */
function bordered(size: Size, level: number, channels: number, elementBytes: number): number {
  const [height, width] = levelSize(size, level);
  return Math.ceil(((height + 2) * (width + 2) * channels * elementBytes) / 16) * 16;
}

const ELEMENT_BYTES = { f16: 2, f32: 4 } as const;

/** What the network takes for pictures of one size. */
export interface FilmMemory {
  /** Pyramids of one picture. */
  pictureBytes: number;
  /** At most at once beside pyramids, frames and weights. */
  scratchBytes: number;
  /** Largest tensor. */
  bindingBytes: number;
}

/** Bytes for pictures of `size`, multiples of 64. Follows `FilmNetwork` tensor by tensor. */
export function filmMemory(config: FilmConfig, size: Size, type: 'f16' | 'f32'): FilmMemory {
  const element = ELEMENT_BYTES[type];
  const picture = (level: number, channels: number) => bordered(size, level, channels, element);
  const flow = (level: number) => {
    const [height, width] = levelSize(size, level);
    return Math.max(16, height * width * 8);
  };
  const levels = Array.from({ length: FILM_LEVELS }, (_, level) => level);
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const pictureBytes = sum(levels.map((level) => picture(level, 4) + picture(level, filmFeatures(config, level))));

  const flows = sum(levels.map(flow));
  const predictor = levels.map((level) => {
    const filters = filmFlowFilters(config, level);
    const half = Math.ceil(filters / 8) * 4;
    const parts = [2 * filmFeatures(config, level), filters, filters, half].map((n) => picture(level, n));
    // The flows of the other direction, and those of this one down to the level.
    return flows + sum(levels.filter((other) => other >= level).map(flow)) + sum(parts);
  });
  const fusion = Array.from({ length: FILM_FUSION_LEVELS - 1 }, (_, level) => {
    const channels = config.filters * 2 ** level;
    const last = level === FILM_FUSION_LEVELS - 2;
    const input = picture(level, filmFusionLayout(config, level, channels).total);
    const coarser = picture(level + 1, last ? filmFusionLayout(config, level + 1, 0).total : 2 * channels);
    return 2 * flows + input + Math.max(coarser, picture(level, channels));
  });
  const largest = [
    ...levels.map((level) => picture(level, 2 * filmFeatures(config, level))),
    ...Array.from({ length: FILM_FUSION_LEVELS - 1 }, (_, level) =>
      picture(level, filmFusionLayout(config, level, config.filters * 2 ** level).total),
    ),
    picture(FILM_FUSION_LEVELS - 1, filmFusionLayout(config, FILM_FUSION_LEVELS - 1, 0).total),
  ];
  return { pictureBytes, scratchBytes: Math.max(...predictor, ...fusion), bindingBytes: Math.max(...largest) };
}

/** What FILM holds for a clip, as the ledger counts it. */
export interface FilmBytes {
  /** While the next frame is decoded: the picture of the last one. */
  waiting: number;
  /** At most while it makes the frames between two. */
  working: number;
  /** Largest tensor, weights aside. */
  largest: number;
}

/** Frames that are in the making at once: each waits for those that are made between it and its neighbours. */
function depth(step: FilmStep | undefined): number {
  return step ? 1 + Math.max(depth(step.before), depth(step.after)) : 0;
}

/**
 * Bytes for clips of `frame`, in runs of `tile` pixels, with `count` frames between two. Follows `Film` and `retime`.
 * @param count 1 to 4.
 */
export function filmBytes(config: FilmConfig, frame: Size, tile: Size, type: 'f16' | 'f32', count: number): FilmBytes {
  const { pictureBytes, scratchBytes, bindingBytes } = filmMemory(config, tile, type);
  const frameBytes = Math.ceil((3 * 4 * frame[0] * frame[1]) / 16) * 16;
  const whole = padded(frame[0]) <= tile[0] && padded(frame[1]) <= tile[1];
  // Where it runs in tiles a picture is the frame itself, and both pyramids are made for each run.
  const waiting = whole ? pictureBytes : frameBytes;
  const made = depth(filmSchedule(count));
  const working = (1 + made) * waiting + made * frameBytes + (whole ? 0 : 2 * pictureBytes) + scratchBytes;
  return { waiting, working, largest: Math.max(bindingBytes, frameBytes) };
}

/** Bytes of the weights, packed as `FilmWeights` packs them: half floats but for biases and last layers. */
export function filmWeightBytes(config: FilmConfig, type: 'f16' | 'f32'): number {
  const roundUp = (channels: number) => Math.ceil(channels / 4) * 4;
  let total = 0;
  for (const [name, [out, into, kernel]] of filmShapes(config)) {
    if (!name.endsWith('.weight')) continue;
    const flow = name.startsWith('predict_flow.') && name.endsWith(`.${FILM_FLOW_CONVS + 1}.0.weight`);
    const columns = flow ? 2 : name.startsWith('fuse.output_conv') ? 4 : undefined;
    const wide = columns ?? roundUp(out!);
    const element = columns === undefined ? ELEMENT_BYTES[type] : 4;
    total += filmInputs(config, name, into!) * kernel! ** 2 * wide * element + 4 * wide;
  }
  return total;
}

/** Channels that a convolution reads in our layout, gaps included. */
function filmInputs(config: FilmConfig, name: string, into: number): number {
  const fused = /^fuse\.convs\.(\d)\.(\d)\./.exec(name);
  const level = fused ? FILM_FUSION_LEVELS - 2 - Number(fused[1]) : 0;
  if (fused?.[2] === '1') return filmFusionLayout(config, level, config.filters * 2 ** level).total;
  if (fused?.[2] === '0' && level === FILM_FUSION_LEVELS - 2) return filmFusionLayout(config, level + 1, 0).total;
  return Math.ceil(into / 4) * 4;
}

/**
 * Every size that the network may run on, largest first: the whole frame, extended to multiples of 64, then tiles of
 * it.
 */
export function filmTileSizes([height, width]: Size): Size[] {
  const whole: Size = [padded(height), padded(width)];
  const sizes: Size[] = [];
  for (let side = Math.max(...whole); side > 0; side -= FILM_MULTIPLE) {
    const tile: Size = [Math.min(whole[0], side), Math.min(whole[1], side)];
    if (tile.some((length, axis) => length < whole[axis]! && length < MIN_TILE)) break;
    sizes.push(tile);
  }
  return sizes;
}

/** What a device allows. */
export interface FilmLimits {
  /** Bytes of one tensor. */
  bindingBytes: number;
  /** Bytes of all of the network's tensors but weights and frames. */
  budgetBytes: number;
}

/**
 * The largest pictures that the network can run on: the whole frame, extended to multiples of 64, or a tile of it.
 * Throws `out-of-memory` where not even the smallest tile fits.
 */
export function chooseFilmTile(config: FilmConfig, frame: Size, type: 'f16' | 'f32', limits: FilmLimits): Size {
  const whole: Size = [padded(frame[0]), padded(frame[1])];
  let least = 0;
  for (const tile of filmTileSizes(frame)) {
    const { pictureBytes, scratchBytes, bindingBytes } = filmMemory(config, tile, type);
    // A tile's pyramids are made for each run, so only two are held.
    const pictures = tile.every((length, axis) => length === whole[axis]) ? PICTURES : 2;
    least = pictures * pictureBytes + scratchBytes;
    if (bindingBytes <= limits.bindingBytes && least <= limits.budgetBytes) return tile;
  }
  throw new ZoetropeError(
    'out-of-memory',
    `${config.name} needs ${least} bytes for its smallest tile of ${frame[1]} × ${frame[0]} pixels, ${limits.budgetBytes} and ${limits.bindingBytes} in one binding are allowed. Use the interpolator "rife".`,
  );
}
