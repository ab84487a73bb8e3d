import { type VaeConfig, type VaeLevel, vaeLevels, vaeShapes } from '../config';
import { ZoetropeError } from '../errors';
import { elementCount } from '../gpu/memory';
import { levelSize, planTiles, type Region, type Tile } from './tiles';

/** Bytes of a decoder in GPU buffers, as the ledger will count them. */
export interface DecoderBytes {
  /** What `loadVae` makes. */
  weights: number;
  /** What a stream keeps between latent frames. */
  histories: number;
  /**
   * Most that a stream holds at once while it decodes: histories, activations and the colours it gives, without
   * weights.
   */
  peak: number;
  /** The largest single tensor, weights included: has to fit a binding. */
  largest: number;
}

/** Frames that a convolution over three frames looks back at. */
export const HISTORY = 2;

const FLOAT_BYTES = 4;

/**
 * Predicts the bytes of a decoder by the order in which `stream.ts` and `layers.ts` make and free tensors.
 * @param tile see {@link planTiles}.
 * @param latentFrames the first latent frame needs less than those after it.
 */
export function decoderBytes(
  config: VaeConfig,
  latentHeight: number,
  latentWidth: number,
  tile: number | null,
  latentFrames: number,
): DecoderBytes {
  const tiles = planTiles(config, latentHeight, latentWidth, tile);
  const tensors = [...vaeShapes(config)].map(([name, shape]) => weightBytes(name, shape));
  const walk = new Walk(config, latentFrames < 2);
  const histories = walk.keep(tiles);
  walk.decode(tiles, 3 * levelSize(latentHeight, walk.last) * levelSize(latentWidth, walk.last) * FLOAT_BYTES);
  return {
    weights: tensors.reduce((sum, bytes) => sum + bytes, 2 * config.zDim * FLOAT_BYTES),
    histories,
    peak: walk.peak,
    largest: Math.max(walk.largest, ...tensors),
  };
}

/** Bytes of one frame, border included. */
function frameBytes({ height, width }: Region, channels: number): number {
  return (height + 2) * (width + 2) * channels * FLOAT_BYTES;
}

/** Takes and frees bytes as a stream does. */
class Walk {
  peak = 0;
  largest = 0;
  private live = 0;
  private readonly levels: VaeLevel[];

  constructor(
    private readonly config: VaeConfig,
    /** Whether the frame is the video's first, whose number nothing doubles. */
    private readonly first: boolean,
  ) {
    this.levels = vaeLevels(config);
  }

  /** Number of the finest level. */
  get last(): number {
    return this.levels.length - 1;
  }

  /** What the convolutions look back at. */
  keep(tiles: readonly Tile[]): number {
    const whole = tiles[0]!.levels[0]!;
    this.take(HISTORY * frameBytes(whole, this.config.zDim));
    this.take(4 * HISTORY * frameBytes(whole, this.levels[0]!.channels), 4);
    this.keepLevel(whole, 0);
    for (const { levels: regions } of tiles) {
      for (let level = 1; level <= this.last; level++) this.keepLevel(regions[level]!, level);
    }
    return this.live;
  }

  private keepLevel(region: Region, level: number): void {
    const { inChannels, channels, blocks, upsample } = this.levels[level]!;
    // Two convolutions a block, of which the level's first takes what enters it, and that of the doubling or the head.
    const count = 2 * blocks.length - 1 + (upsample?.temporal || !upsample ? 1 : 0);
    this.take(HISTORY * frameBytes(region, inChannels));
    this.take(count * HISTORY * frameBytes(region, channels), count);
  }

  /** One latent frame to colours of `colorBytes` a frame. */
  decode(tiles: readonly Tile[], colorBytes: number): void {
    const whole = tiles[0]!.levels[0]!;
    const frames = this.trunk(whole);
    const doublings = this.first ? 0 : this.levels.filter(({ upsample }) => upsample?.temporal).length;
    this.take(2 ** doublings * colorBytes);
    for (const { levels: regions } of tiles) this.tile(regions, frames);
  }

  /** Up to the end of the coarsest level; gives the number of its frames. */
  private trunk(whole: Region): number {
    const top = this.levels[0]!.channels;
    const latent = frameBytes(whole, this.config.zDim);
    const wide = frameBytes(whole, top);
    this.take(latent); // denormalised
    this.take(latent); // conv2
    this.free(latent);
    this.take((1 + HISTORY) * latent);
    this.take(wide); // conv1
    this.free((2 + HISTORY) * latent);
    this.residual(1, whole, top, top);
    this.take(wide); // normed
    this.take(3 * wide); // queries, keys and values
    this.free(wide);
    this.take(wide); // attended
    this.free(4 * wide);
    this.residual(1, whole, top, top);
    return this.level(1, whole, 0);
  }

  /** From the coarsest level's frames to the colours of one tile. */
  private tile(regions: readonly Region[], trunkFrames: number): void {
    const enter = (frames: number, level: number) =>
      this.take(frames * frameBytes(regions[level]!, this.levels[level]!.inChannels));
    let frames = trunkFrames;
    let held = enter(frames, 1);
    for (let level = 1; level <= this.last; level++) {
      const { channels, upsample } = this.levels[level]!;
      frames = this.level(frames, regions[level]!, level);
      held = frames * frameBytes(regions[level]!, channels);
      if (!upsample) continue;
      const next = enter(frames, level + 1);
      this.free(held);
      held = next;
    }
    const normed = this.take(held + HISTORY * frameBytes(regions[this.last]!, this.levels[this.last]!.channels));
    const colors = this.take(frames * frameBytes(regions[this.last]!, 4));
    this.free(held + normed + colors);
  }

  /** A level and the doubling of its frames; gives their number. */
  private level(frames: number, region: Region, level: number): number {
    const { inChannels, channels, blocks, upsample } = this.levels[level]!;
    for (const [i] of blocks.entries()) this.residual(frames, region, i === 0 ? inChannels : channels, channels);
    if (!upsample?.temporal || this.first) return frames;
    const frame = frameBytes(region, channels);
    const sequence = this.take((frames + HISTORY) * frame);
    this.take(2 * frames * frame);
    this.free(frames * frame + sequence);
    return 2 * frames;
  }

  private residual(frames: number, region: Region, into: number, out: number): void {
    const normed = this.take((frames + HISTORY) * frameBytes(region, into));
    const between = this.take(frames * frameBytes(region, out));
    this.free(normed);
    const normedAgain = this.take((frames + HISTORY) * frameBytes(region, out));
    this.free(between);
    if (into !== out) {
      this.take(frames * frameBytes(region, out)); // shortcut
      this.free(frames * frameBytes(region, into));
    }
    this.free(normedAgain);
  }

  /** Takes bytes in `count` tensors of one size. */
  private take(bytes: number, count = 1): number {
    this.live += bytes;
    this.peak = Math.max(this.peak, this.live);
    this.largest = Math.max(this.largest, bytes / count);
    return bytes;
  }

  private free(bytes: number): void {
    this.live -= bytes;
  }
}

/** Output channels are rounded up to a multiple of 4. */
function weightBytes(name: string, shape: readonly number[]): number {
  const [out, ...rest] = shape as [number, ...number[]];
  const rounded = name.endsWith('.gamma') ? out : Math.ceil(out / 4) * 4;
  return rounded * elementCount(rest) * FLOAT_BYTES;
}

/**
 * The largest tiles whose tensors all fit a binding: null when whole frames do, else the side of the cores in latent
 * positions. Throws `out-of-memory` when even the smallest do not fit.
 * @param limitBytes the smaller of `maxStorageBufferBindingSize` and `maxBufferSize`.
 */
export function chooseTile(
  config: VaeConfig,
  latentHeight: number,
  latentWidth: number,
  limitBytes: number,
): number | null {
  const fits = (tile: number | null) => decoderBytes(config, latentHeight, latentWidth, tile, 2).largest <= limitBytes;
  if (fits(null)) return null;
  const longest = Math.max(latentHeight, latentWidth);
  for (let count = 2; count <= longest; count++) {
    const tile = Math.ceil(longest / count);
    if (fits(tile)) return tile;
  }
  const { largest } = decoderBytes(config, latentHeight, latentWidth, 1, 2);
  throw new ZoetropeError(
    'out-of-memory',
    `The video decoder needs ${largest} bytes in one binding for ${latentWidth} × ${latentHeight} latents, ` +
      `this device allows ${limitBytes}. Use a smaller size.`,
  );
}
