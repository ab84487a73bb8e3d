import { type VaeConfig, vaeLevels, vaeShapes } from '../config';
import { ZoetropeError } from '../errors';
import { elementCount } from '../gpu/memory';
import { levelSize, planTiles, type Region } from './tiles';

/** Bytes of a decoder in GPU buffers, as the ledger will count them. */
export interface DecoderBytes {
  /** What `loadVae` makes. */
  weights: number;
  /** What a stream keeps between latent frames. */
  histories: number;
  /** Most that a stream holds at once while it decodes: histories, activations and the colours it gives, without weights. */
  peak: number;
  /** The largest single tensor, weights included: has to fit a binding. */
  largest: number;
}

const FLOAT_BYTES = 4;
/** Frames that a convolution over three frames looks back at. */
const HISTORY = 2;

/** Bytes taken and freed in order. */
class Meter {
  private live = 0;
  peak = 0;
  largest = 0;

  take(bytes: number): number {
    this.live += bytes;
    this.peak = Math.max(this.peak, this.live);
    this.largest = Math.max(this.largest, bytes);
    return bytes;
  }

  free(bytes: number): void {
    this.live -= bytes;
  }
}

function frameBytes({ height, width }: Pick<Region, 'height' | 'width'>, channels: number): number {
  return (height + 2) * (width + 2) * channels * FLOAT_BYTES;
}

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
  const levels = vaeLevels(config);
  const tiles = planTiles(config, latentHeight, latentWidth, tile);
  const whole = tiles[0]!.levels[0]!;
  const meter = new Meter();
  const weights = [...vaeShapes(config)].map(([name, shape]) => meter.take(weightBytes(name, shape)));
  const weightTotal = weights.reduce((sum, bytes) => sum + bytes, 2 * config.zDim * FLOAT_BYTES);
  for (const bytes of weights) meter.free(bytes);
  meter.peak = 0;

  // What each convolution looks back at.
  const keep = (region: Region, channels: number) => meter.take(HISTORY * frameBytes(region, channels));
  const keepLevel = (region: Region, level: number) => {
    const { inChannels, channels, blocks, upsample } = levels[level]!;
    let bytes = keep(region, inChannels) + keep(region, channels);
    for (let i = 1; i < blocks.length; i++) bytes += keep(region, channels) + keep(region, channels);
    if (upsample?.temporal) bytes += keep(region, channels);
    if (!upsample) bytes += keep(region, channels);
    return bytes;
  };
  const top = levels[0]!.channels;
  let histories = keep(whole, config.zDim) + keepLevel(whole, 0);
  for (let i = 0; i < 4; i++) histories += keep(whole, top);
  for (const { levels: regions } of tiles) {
    for (let level = 1; level < levels.length; level++) histories += keepLevel(regions[level]!, level);
  }

  // The activations of one latent frame.
  const first = latentFrames < 2;
  const residual = (frames: number, region: Region, into: number, out: number) => {
    const normed = meter.take((frames + HISTORY) * frameBytes(region, into));
    const between = meter.take(frames * frameBytes(region, out));
    meter.free(normed);
    const normedAgain = meter.take((frames + HISTORY) * frameBytes(region, out));
    meter.free(between);
    if (into !== out) {
      meter.take(frames * frameBytes(region, out));
      meter.free(frames * frameBytes(region, into));
    }
    meter.free(normedAgain);
  };
  /** A level and the doubling of its frames; gives their number. */
  const walkLevel = (frames: number, region: Region, level: number): number => {
    const { inChannels, channels, blocks, upsample } = levels[level]!;
    for (const [i] of blocks.entries()) residual(frames, region, i === 0 ? inChannels : channels, channels);
    if (!upsample?.temporal || first) return frames;
    const frame = frameBytes(region, channels);
    const sequence = meter.take((frames + HISTORY) * frame);
    meter.take(2 * frames * frame);
    meter.free(frames * frame + sequence);
    return 2 * frames;
  };
  const latent = frameBytes(whole, config.zDim);
  const wide = frameBytes(whole, top);
  meter.take(latent); // denormalised
  meter.take(latent); // conv2
  meter.free(latent);
  meter.take((1 + HISTORY) * latent);
  meter.take(wide); // conv1
  meter.free((2 + HISTORY) * latent);
  residual(1, whole, top, top);
  meter.take(wide); // normed
  meter.take(3 * wide); // queries, keys and values
  meter.free(wide);
  meter.take(wide); // attended
  meter.free(4 * wide);
  residual(1, whole, top, top);
  const trunkFrames = walkLevel(1, whole, 0);
  const last = levels.length - 1;
  const doublings = first ? 0 : levels.filter(({ upsample }) => upsample?.temporal).length;
  meter.take(3 * 2 ** doublings * levelSize(latentHeight, last) * levelSize(latentWidth, last) * FLOAT_BYTES);
  for (const { levels: regions } of tiles) {
    let frames = trunkFrames;
    let held = meter.take(frames * frameBytes(regions[1]!, levels[1]!.inChannels));
    for (let level = 1; level < levels.length; level++) {
      const { channels, upsample } = levels[level]!;
      frames = walkLevel(frames, regions[level]!, level);
      held = frames * frameBytes(regions[level]!, channels);
      if (!upsample) continue;
      const next = meter.take(frames * frameBytes(regions[level + 1]!, levels[level + 1]!.inChannels));
      meter.free(held);
      held = next;
    }
    const normed = meter.take(held + HISTORY * frameBytes(regions[last]!, levels[last]!.channels));
    const colors = meter.take(frames * frameBytes(regions[last]!, 4));
    meter.free(held + normed + colors);
  }
  return { weights: weightTotal, histories, peak: meter.peak, largest: meter.largest };
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
    `The video decoder needs ${largest} bytes in one binding for ${latentWidth} × ${latentHeight} latents, this device allows ${limitBytes}. Use a smaller size.`,
  );
}
