import { type VaeConfig, type VaeLevel, vaeLevels } from '../config';
import { ZoetropeError } from '../errors';
import type { Gpu } from '../gpu/device';
import type { DispatchOptions } from '../gpu/dispatch-queue';
import { type GpuTensor, Scope } from '../gpu/memory';
import type { VaeWeights } from './decoder';
import { Current, type Frames, Histories, Layers } from './layers';
import { decodesTogether, type HistoryType, lastDoubling } from './memory';
import { levelSize, planTiles, type Tile } from './tiles';

/** What a stream of latent frames is decoded with. */
export interface VaeStreamOptions extends DispatchOptions {
  /** Latent positions of a frame. */
  latentHeight: number;
  latentWidth: number;
  /** Side of the tiles' cores in latent positions; null decodes whole frames. The result is the same, bit for bit. */
  tile: number | null;
  /**
   * How the past of the convolutions is kept between latent frames; see {@link HistoryType}. Default f32, which is
   * exact. What a convolution makes of the present frame is f32 in either case.
   */
  historyType?: HistoryType | undefined;
  /** Sees what each module makes, by the module's original name. Called between dispatches, for every tile. */
  tap?: ((name: string, frames: Frames) => Promise<void>) | undefined;
}

/**
 * Decodes the latent frames of one video in their order, keeping what the causal convolutions look back at. Allocates
 * that past at once, in zeros, and frees it when it is disposed. Any number of streams may share the weights.
 */
export function createVaeStream(gpu: Gpu, weights: VaeWeights, options: VaeStreamOptions): VaeStream {
  return new VaeStream(gpu, weights, options);
}

/** See {@link createVaeStream}. */
export class VaeStream implements Disposable {
  private readonly scope = new Scope();
  private readonly layers: Layers;
  private readonly config: VaeConfig;
  private readonly levels: VaeLevel[];
  private readonly tiles: { tile: Tile; past: Histories[] }[];
  /** The past of the whole coarsest level. */
  private readonly past: Histories;
  /** Latent frames that have been decoded; -1 after a failure, which leaves some pasts ahead of others. */
  private decoded = 0;

  constructor(
    private readonly gpu: Gpu,
    weights: VaeWeights,
    private readonly options: VaeStreamOptions,
  ) {
    const { latentHeight, latentWidth, tile, historyType = 'f32' } = options;
    this.config = weights.config;
    this.levels = vaeLevels(this.config);
    this.layers = new Layers(gpu, weights, options);
    try {
      this.past = this.scope.own(new Histories(gpu, [latentHeight, latentWidth], historyType));
      this.past.addUnbounded('decoder.conv1', this.config.zDim);
      for (const name of ['decoder.middle.0', 'decoder.middle.2']) addResidual(this.past, name, this.levels[0]!);
      addLevel(this.past, this.levels[0]!);
      this.tiles = planTiles(this.config, latentHeight, latentWidth, tile).map((planned) => ({
        tile: planned,
        past: this.levels.slice(1).map((level, i) => {
          const { height, width } = planned.levels[i + 1]!;
          const past = this.scope.own(new Histories(gpu, [height, width], historyType));
          addLevel(past, level);
          if (!level.upsample) past.add('decoder.head.2', level.channels);
          return past;
        }),
      }));
    } catch (error) {
      this.scope[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Decodes the next latent frame, [zDim, h, w] float32 as the diffusion model leaves it. Gives colours [3, frames, 8h,
   * 8w] float32, about -1 to 1 and not clamped, one frame for the first latent frame and four for each later one; the
   * caller disposes them. Calls must not overlap. Throws `aborted`, `out-of-memory`, `device-lost`; after that only
   * disposing is left.
   */
  async decode(latent: GpuTensor): Promise<GpuTensor> {
    const { latentHeight, latentWidth } = this.options;
    const expected = [this.config.zDim, latentHeight, latentWidth];
    if (latent.type !== 'float32' || latent.shape.join() !== expected.join()) {
      throw new ZoetropeError(
        'internal',
        `The video decoder takes latents of float32 [${expected}], got ${latent.type} [${latent.shape}].`,
      );
    }
    const first = this.decoded === 0;
    if (this.decoded < 0) {
      throw new ZoetropeError('internal', 'This video decoder stopped in the middle of a frame. Start a new stream.');
    }
    const next = this.decoded + 1;
    this.decoded = -1; // until this frame is through
    using trunk = await this.trunk(latent, first);
    const last = this.levels.length - 1;
    const frames = first ? 1 : 2 ** this.levels.filter(({ upsample }) => upsample?.temporal).length;
    const size = [levelSize(latentHeight, last), levelSize(latentWidth, last)];
    const rgb = this.gpu.memory.tensor('rgb', 'float32', [3, frames, ...size]);
    try {
      for (const { tile, past } of this.tiles) await this.tile(trunk.frames, tile, past, first, rgb);
      this.gpu.check();
    } catch (error) {
      rgb[Symbol.dispose]();
      throw error;
    }
    this.decoded = next;
    return rgb;
  }

  /** From the latent frame to the end of the coarsest level, whole frames. */
  private async trunk(latent: GpuTensor, first: boolean): Promise<Current> {
    const { layers, past } = this;
    const [level] = this.levels as [VaeLevel];
    const current = new Current(await layers.denormalize(latent, past.size)); // [1, h, w, zDim]
    try {
      current.replace(await layers.pointwise(current.frames, 'conv2'));
      await this.tap('conv2', current);
      current.replace(await layers.causal(current.frames, 'decoder.conv1', past)); // [1, h, w, channels]
      await this.tap('decoder.conv1', current);
      await layers.residual(current, 'decoder.middle.0', past);
      await this.tap('decoder.middle.0', current);
      await layers.attention(current.frames, 'decoder.middle.1');
      await this.tap('decoder.middle.1', current);
      await layers.residual(current, 'decoder.middle.2', past);
      await this.tap('decoder.middle.2', current);
      await this.level(current, level, past, first);
      return current;
    } catch (error) {
      current[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * From the coarsest level's frames to the colours of one tile. Where nothing doubles the number of frames any more,
   * each may go to its colours alone: with tensors a quarter as large, tiles can be larger and halos cost less.
   */
  private async tile(
    trunk: Frames,
    tile: Tile,
    past: readonly Histories[],
    first: boolean,
    rgb: GpuTensor,
  ): Promise<void> {
    const { levels, layers } = this;
    const last = levels.length - 1;
    const doubled = lastDoubling(levels);
    using own = doubled > 0 ? await this.upsampled(trunk, 0, doubled, tile, past, first) : undefined;
    const all = own?.frames ?? trunk; // [1, 2 or 4, 2h, 2w, channels] of the tile
    const { tile: side, historyType = 'f32' } = this.options;
    const together = decodesTogether(side, historyType);
    const turns = together ? [undefined] : Array.from({ length: all.frames }, (_, frame) => frame);
    for (const frame of turns) {
      using picture = await this.upsampled(all, doubled, last, tile, past, first, frame);
      await layers.head(picture, past[last - 1]!); // [1 or all, 8h, 8w, 4]
      await this.tap('decoder.head', picture);
      await layers.store(picture.frames, tile.levels[last]!, tile.core, rgb, frame ?? 0);
    }
  }

  /**
   * Upsamples what level `begin` made, one frame of it or all, and goes through the levels after it, `end` included.
   */
  private async upsampled(
    x: Frames,
    begin: number,
    end: number,
    { levels: regions }: Tile,
    past: readonly Histories[],
    first: boolean,
    frame?: number,
  ): Promise<Current> {
    const upsample = (from: Frames, level: number, only?: number) => {
      const name = `${this.levels[level]!.upsample!.name}.resample.1`;
      return this.layers.resample(from, name, regions[level]!, regions[level + 1]!, only);
    };
    const current = new Current(await upsample(x, begin, frame));
    try {
      for (let level = begin + 1; level <= end; level++) {
        if (level > begin + 1) current.replace(await upsample(current.frames, level - 1));
        await this.tap(this.levels[level - 1]!.upsample!.name, current);
        await this.level(current, this.levels[level]!, past[level - 1]!, first);
      }
      return current;
    } catch (error) {
      current[Symbol.dispose]();
      throw error;
    }
  }

  /** The residual blocks of a level, and the doubling of its frames, which the first latent frame passes by. */
  private async level(current: Current, level: VaeLevel, past: Histories, first: boolean): Promise<void> {
    for (const name of level.blocks) {
      await this.layers.residual(current, name, past);
      await this.tap(name, current);
    }
    if (level.upsample?.temporal && !first) {
      await this.layers.doubleFrames(current, `${level.upsample.name}.time_conv`, past);
    }
  }

  private async tap(name: string, current: Current): Promise<void> {
    await this.options.tap?.(name, current.frames);
  }

  /** Frees the past. Safe to call twice. */
  [Symbol.dispose](): void {
    this.scope[Symbol.dispose]();
  }
}

function addResidual(past: Histories, name: string, { channels }: VaeLevel, inChannels = channels): void {
  past.add(`${name}.residual.2`, inChannels);
  past.add(`${name}.residual.6`, channels);
}

function addLevel(past: Histories, level: VaeLevel): void {
  level.blocks.forEach((name, i) => {
    addResidual(past, name, level, i === 0 ? level.inChannels : level.channels);
  });
  if (level.upsample?.temporal) past.addUnbounded(`${level.upsample.name}.time_conv`, level.channels);
}
