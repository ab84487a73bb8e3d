import { type VaeConfig, type VaeLevel, vaeLevels, vaeShapes } from '../config';
import { elementCount } from '../gpu/memory';
import { levelSize, planTiles, type Region, type Tile } from './tiles';

/**
 * How a stream keeps the past of its convolutions. `f32` is exact. `f16` halves the histories: values after a norm,
 * which are at most sqrt(channels) · |gamma|, are rounded to half floats when the next latent frame will want them; the
 * few that follow no norm stay f32, and so does all arithmetic.
 *
 * How to choose (`plan/decode.ts` does): f32 in the largest tiles whose `largest` fits a binding and whose `weights`
 * and `peak` fit the budget; only when no tile makes f32 fit, f16 in the same way. Smaller tiles need less working
 * memory, but halos overlap, so that their histories are larger. At 1280 × 720 with bindings of 128 MiB, f32 takes 10.4
 * GB and f16 5.6 GB, weights included. Between both lie 94 dB on the demo's videos, and one step of 255 in 0.4 % of the
 * values (`test/gpu/vae-decoder.test.ts`).
 */
export type HistoryType = 'f32' | 'f16';

/** One of the decoder's buffers, or several equal ones. */
export interface DecoderBuffer {
  /** The weight's name, the convolution whose past it is, or what it holds. */
  name: string;
  /** Bytes of one buffer, which is bound whole. */
  bytes: number;
  /** How many there are at the same time: histories of tiles of one size. */
  count: number;
  /**
   * `weights`: as long as the decoder is loaded; `history`: as long as a stream; `working`: within one latent frame.
   */
  kind: 'weights' | 'history' | 'working';
  /**
   * When it is made and freed, in events since the beginning of a latent frame; 0 and Infinity for what lies there all
   * the time. Tiles of one size take turns, and so do the frames that one latent frame becomes: they are listed once.
   */
  lifetime: [made: number, freed: number];
}

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
  /** The largest single buffer, weights included: has to fit a binding. */
  largest: number;
}

/** Frames that a convolution over three frames looks back at. */
export const HISTORY = 2;

const FLOAT_BYTES = 4;
const HISTORY_BYTES: Record<HistoryType, number> = { f32: 4, f16: 2 };

/**
 * Whether the frames that one latent frame becomes go through the finer levels together, or one by one, which takes
 * more dispatches and tensors a quarter as large. Float32 gives the same either way; half floats are rounded when a
 * frame has passed, so that all streams of them go frame by frame.
 */
export function decodesTogether(tile: number | null, historyType: HistoryType): boolean {
  return tile === null && historyType === 'f32';
}

/** The last level that doubles the number of frames, 0 when none does. Behind it {@link decodesTogether} matters. */
export function lastDoubling(levels: readonly VaeLevel[]): number {
  return Math.max(
    0,
    levels.findLastIndex(({ upsample }) => upsample?.temporal),
  );
}

/**
 * Predicts the bytes of a decoder: the sums over {@link decoderBuffers}.
 * @param tile see {@link planTiles}.
 * @param latentFrames the first latent frame needs less than those after it; from two on, their number changes nothing.
 */
export function decoderBytes(
  config: VaeConfig,
  latentHeight: number,
  latentWidth: number,
  tile: number | null,
  latentFrames: number,
  historyType: HistoryType = 'f32',
): DecoderBytes {
  const { buffers, peak } = walk(config, latentHeight, latentWidth, tile, latentFrames, historyType);
  const sum = (kind: DecoderBuffer['kind']) =>
    buffers.reduce((total, buffer) => total + (buffer.kind === kind ? buffer.count * buffer.bytes : 0), 0);
  return {
    weights: sum('weights'),
    histories: sum('history'),
    peak,
    largest: Math.max(...buffers.map(({ bytes }) => bytes)),
  };
}

/**
 * Every buffer that a decoder makes, weights included, in the order in which `stream.ts` and `layers.ts` make and free
 * them. Parameters as of {@link decoderBytes}.
 */
export function decoderBuffers(
  config: VaeConfig,
  latentHeight: number,
  latentWidth: number,
  tile: number | null,
  latentFrames: number,
  historyType: HistoryType = 'f32',
): readonly DecoderBuffer[] {
  return walk(config, latentHeight, latentWidth, tile, latentFrames, historyType).buffers;
}

function walk(
  config: VaeConfig,
  latentHeight: number,
  latentWidth: number,
  tile: number | null,
  latentFrames: number,
  historyType: HistoryType,
): Walk {
  const tiles = tilesBySize(planTiles(config, latentHeight, latentWidth, tile));
  const walk = new Walk(config, latentFrames < 2, decodesTogether(tile, historyType), historyType);
  walk.weights();
  walk.keep(tiles);
  walk.decode(tiles, 3 * levelSize(latentHeight, walk.last) * levelSize(latentWidth, walk.last) * FLOAT_BYTES);
  return walk;
}

/** Tiles that need the same buffers. */
interface EqualTiles {
  /** What one of them computes of each level. */
  regions: readonly Region[];
  count: number;
}

function tilesBySize(tiles: readonly Tile[]): EqualTiles[] {
  const sizes = new Map<string, EqualTiles>();
  for (const { levels: regions } of tiles) {
    const key = regions.map(({ height, width }) => `${height}x${width}`).join();
    const equal = sizes.get(key);
    if (equal) equal.count++;
    else sizes.set(key, { regions, count: 1 });
  }
  return [...sizes.values()];
}

/** Bytes of one frame, border included. */
function frameBytes({ height, width }: Region, channels: number, elementBytes = FLOAT_BYTES): number {
  return (height + 2) * (width + 2) * channels * elementBytes;
}

/** Makes and frees buffers as a stream does. */
class Walk {
  readonly buffers: DecoderBuffer[] = [];
  /** Most bytes at once, without weights. */
  peak = 0;
  private live = 0;
  private events = 0;
  private readonly levels: VaeLevel[];

  constructor(
    private readonly config: VaeConfig,
    /** Whether the frame is the video's first, whose number nothing doubles. */
    private readonly first: boolean,
    /** Whether all frames go through the finer levels together. */
    private readonly together: boolean,
    private readonly historyType: HistoryType,
  ) {
    this.levels = vaeLevels(config);
  }

  /** Number of the finest level. */
  get last(): number {
    return this.levels.length - 1;
  }

  weights(): void {
    const add = (name: string, bytes: number) =>
      this.buffers.push({ name, bytes, count: 1, kind: 'weights', lifetime: [0, Infinity] });
    for (const [name, shape] of vaeShapes(this.config)) add(name, weightBytes(name, shape));
    for (const name of ['latents.scale', 'latents.mean']) add(name, this.config.zDim * FLOAT_BYTES);
  }

  /** What the convolutions look back at. */
  keep(tiles: readonly EqualTiles[]): void {
    const whole = tiles[0]!.regions[0]!;
    const [top] = this.levels as [VaeLevel];
    this.history('decoder.conv1', whole, this.config.zDim, 'f32');
    for (const name of ['decoder.middle.0', 'decoder.middle.2']) this.residualHistories(name, whole, top, top.channels);
    this.keepLevel(whole, top);
    for (const { regions, count } of tiles) {
      for (let level = 1; level <= this.last; level++) this.keepLevel(regions[level]!, this.levels[level]!, count);
    }
  }

  private keepLevel(region: Region, level: VaeLevel, count = 1): void {
    const { inChannels, channels, blocks, upsample } = level;
    for (const [i, name] of blocks.entries()) {
      this.residualHistories(name, region, level, i === 0 ? inChannels : channels, count);
    }
    if (upsample?.temporal) this.history(`${upsample.name}.time_conv`, region, channels, 'f32', count);
    if (!upsample) this.history('decoder.head.2', region, channels, this.historyType, count);
  }

  private residualHistories(name: string, region: Region, { channels }: VaeLevel, into: number, count = 1): void {
    this.history(`${name}.residual.2`, region, into, this.historyType, count);
    this.history(`${name}.residual.6`, region, channels, this.historyType, count);
  }

  private history(name: string, region: Region, channels: number, type: HistoryType, count = 1): void {
    const bytes = HISTORY * frameBytes(region, channels, HISTORY_BYTES[type]);
    this.buffers.push({ name, bytes, count, kind: 'history', lifetime: [0, Infinity] });
    this.live += count * bytes;
    this.peak = this.live;
  }

  /** One latent frame to colours of `colorBytes` a frame. */
  decode(tiles: readonly EqualTiles[], colorBytes: number): void {
    const whole = tiles[0]!.regions[0]!;
    const trunk = this.trunk(whole);
    const doublings = this.first ? 0 : this.levels.filter(({ upsample }) => upsample?.temporal).length;
    const colors = this.make('colours', 2 ** doublings * colorBytes);
    for (const { regions } of tiles) this.tile(regions, trunk.frames);
    this.free(trunk.buffer, colors);
  }

  /** Up to the end of the coarsest level. */
  private trunk(whole: Region): Made {
    const top = this.levels[0]!.channels;
    const latent = frameBytes(whole, this.config.zDim);
    const wide = frameBytes(whole, top);
    const denormalized = this.make('latent', latent);
    const mixed = this.make('conv2', latent);
    this.free(denormalized);
    const entered = { buffer: this.make('decoder.conv1', wide), frames: 1 };
    this.free(mixed);
    this.residual('decoder.middle.0', entered, whole, top, top);
    const normed = this.make('decoder.middle.1.norm', wide);
    const qkv = this.make('decoder.middle.1.to_qkv', 3 * wide);
    this.free(normed);
    const attended = this.make('decoder.middle.1', wide);
    this.free(qkv, attended);
    this.residual('decoder.middle.2', entered, whole, top, top);
    return this.level(entered, whole, 0);
  }

  /** From the coarsest level's frames to the colours of one tile. */
  private tile(regions: readonly Region[], trunkFrames: number): void {
    const doubled = lastDoubling(this.levels);
    const own = doubled > 0 ? this.upsampled(trunkFrames, 0, doubled, regions) : undefined;
    // One after the other, each needs the same.
    const frames = this.together ? (own?.frames ?? trunkFrames) : 1;
    const { buffer } = this.upsampled(frames, doubled, this.last, regions);
    const { channels } = this.levels[this.last]!;
    const normed = this.make('decoder.head.0', frames * frameBytes(regions[this.last]!, channels));
    const colors = this.make('decoder.head.2', frames * frameBytes(regions[this.last]!, 4));
    this.free(buffer, normed, colors);
    if (own) this.free(own.buffer);
  }

  /** Upsamples what level `begin` made and goes through the levels after it, `end` included. */
  private upsampled(frames: number, begin: number, end: number, regions: readonly Region[]): Made {
    const enter = (count: number, level: number): Made => {
      const { name } = this.levels[level - 1]!.upsample!;
      const bytes = count * frameBytes(regions[level]!, this.levels[level]!.inChannels);
      return { buffer: this.make(`${name}.resample.1`, bytes), frames: count };
    };
    let current = enter(frames, begin + 1);
    for (let level = begin + 1; level <= end; level++) {
      if (level > begin + 1) {
        const next = enter(current.frames, level);
        this.free(current.buffer);
        current = next;
      }
      current = this.level(current, regions[level]!, level);
    }
    return current;
  }

  /** A level and the doubling of its frames. */
  private level(entered: Made, region: Region, level: number): Made {
    const { inChannels, channels, blocks, upsample } = this.levels[level]!;
    let current = entered;
    for (const [i, name] of blocks.entries()) {
      current = this.residual(name, current, region, i === 0 ? inChannels : channels, channels);
    }
    if (!upsample?.temporal || this.first) return current;
    const frames = 2 * current.frames;
    const buffer = this.make(`${upsample.name}.time_conv`, frames * frameBytes(region, channels));
    this.free(current.buffer);
    return { buffer, frames };
  }

  private residual(name: string, x: Made, region: Region, into: number, out: number): Made {
    const { frames } = x;
    const outBytes = frames * frameBytes(region, out);
    const first = this.make(`${name}.residual.0`, frames * frameBytes(region, into));
    const between = this.make(`${name}.residual.2`, outBytes);
    this.free(first);
    const second = this.make(`${name}.residual.3`, outBytes);
    this.free(between);
    let { buffer } = x;
    if (into !== out) {
      const shortcut = this.make(`${name}.shortcut`, outBytes);
      this.free(buffer);
      buffer = shortcut;
    }
    this.free(second);
    return { buffer, frames };
  }

  private make(name: string, bytes: number): DecoderBuffer {
    const buffer: DecoderBuffer = {
      name,
      bytes,
      count: 1,
      kind: 'working',
      lifetime: [++this.events, Infinity],
    };
    this.buffers.push(buffer);
    this.live += bytes;
    this.peak = Math.max(this.peak, this.live);
    return buffer;
  }

  private free(...buffers: readonly DecoderBuffer[]): void {
    this.events++;
    for (const buffer of buffers) {
      buffer.lifetime[1] = this.events;
      this.live -= buffer.bytes;
    }
  }
}

/** Frames between two layers. */
interface Made {
  buffer: DecoderBuffer;
  frames: number;
}

/** Output channels are rounded up to a multiple of 4. */
function weightBytes(name: string, shape: readonly number[]): number {
  const [out, ...rest] = shape as [number, ...number[]];
  const rounded = name.endsWith('.gamma') ? out : Math.ceil(out / 4) * 4;
  return rounded * elementCount(rest) * FLOAT_BYTES;
}
