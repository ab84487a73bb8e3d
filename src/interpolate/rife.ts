import { deconvShuffle, deconvShuffleMac } from '../../kernels/deconv-shuffle';
import { flowBlend } from '../../kernels/flow-blend';
import { flowFeatures } from '../../kernels/flow-features';
import { flowUpdate } from '../../kernels/flow-update';
import { padPicture } from '../../kernels/pad-picture';
import { ZoetropeError } from '../errors';
import type { Gpu } from '../gpu/device';
import { type GpuTensor, Scope } from '../gpu/memory';
import { RIFE_RESIDUALS, rifeHeadPlanes, rifeInputs, rifePassed } from '../part/rife';
import type { Clip, Interpolator, InterpolatorModel, RgbFrame } from './interpolator';
import { timesBetween } from './retime';
import { RifeEncoder } from './rife-encoder';
import { RifeLayers } from './rife-layers';
import { blockSizes, padded, type Size } from './rife-sizes';
import type { RifeWeights } from './rife-weights';

/** A clip that frames are made for, always in one run. */
export interface RifeOptions extends Omit<Clip, 'tile'> {
  /**
   * What lies beyond the frame where its sides are no multiples of what the network takes. Default `replicate`, which
   * shows no dark seam. Neither is better throughout: on moving textures of 112 × 80 pixels the outer 8 rows and
   * columns reach 35.0 dB with it and 36.5 dB with the zeros of the reference programs, on others it is the other way
   * round.
   */
  edge?: 'replicate' | 'zero';
  /** Sees `picture`, `blockN.feat` and `blockN.head`, `flow` and `mask`. Called between dispatches. */
  tap?: ((name: string, tensor: GpuTensor, size: Size) => Promise<void>) | undefined;
}

/**
 * A frame as the network reads it, [paddedHeight, paddedWidth, 4 + encoded] f32: rgb in 0..1, a zero, and what the
 * encoder made.
 */
export interface RifePicture extends Disposable {
  tensor: GpuTensor;
}

/** Tensors of one block: channels last with a border of zeros, but the head, which is planes. */
interface Block {
  input: GpuTensor;
  half: GpuTensor;
  /** Residual layers go back and forth between these. */
  features: [GpuTensor, GpuTensor];
  head: GpuTensor;
}

/** RIFE for clips of any size. */
export function rifeModel(gpu: Gpu, weights: RifeWeights): InterpolatorModel {
  return { start: (clip) => new Rife(gpu, weights, clip) };
}

/**
 * A network of the RIFE 4 family on frames of one size: flow and mask from coarse to fine, then both frames warped and
 * blended.
 */
export class Rife implements Interpolator<RifePicture> {
  private readonly scope = new Scope();
  private readonly padded: Size;
  private readonly blocks: Block[];
  private readonly flow: GpuTensor;
  private readonly mask: GpuTensor;
  private readonly rgb: GpuTensor;
  private readonly layers: RifeLayers;
  private readonly encoder: RifeEncoder | undefined;

  constructor(
    private readonly gpu: Gpu,
    private readonly weights: RifeWeights,
    private readonly options: RifeOptions,
  ) {
    const { width, height } = options;
    const { config } = weights;
    this.padded = [padded(height, config), padded(width, config)];
    this.layers = new RifeLayers(gpu, weights, options);
    const own = (label: string, ...shape: number[]) =>
      this.scope.own(gpu.memory.tensor(`rife ${label}`, 'float32', shape));
    try {
      this.flow = own('flow', ...this.padded, 4);
      this.mask = own('mask', ...this.padded);
      this.rgb = own('rgb', 3, 1, height, width);
      this.blocks = config.channels.map((_, block) => this.makeBlock(block));
      if (config.encoder > 0) this.encoder = this.scope.own(new RifeEncoder(gpu, this.layers, this.padded));
    } catch (error) {
      this.scope[Symbol.dispose]();
      throw error;
    }
  }

  async prepare({ rgb, frame }: RgbFrame): Promise<RifePicture> {
    const { width, height, edge = 'replicate' } = this.options;
    const channels = 4 + this.weights.config.encoder;
    const tensor = this.gpu.memory.tensor('rife picture', 'float32', [...this.padded, channels]);
    try {
      const taken = { frames: rgb.shape[1]!, frame, size: [height, width], edge } as const;
      const shape = { ...taken, padded: this.padded, type: 'f32', border: 0, channels } as const;
      await this.layers.queue.submit(0, () => padPicture.run(this.gpu, shape, { rgb, y: tensor }));
      await this.encoder?.encode(rgb, taken, tensor);
      await this.options.tap?.('picture', tensor, this.padded);
    } catch (error) {
      tensor[Symbol.dispose]();
      throw error;
    }
    return { tensor, [Symbol.dispose]: () => tensor[Symbol.dispose]() };
  }

  async *between(before: RifePicture, after: RifePicture, count: number): AsyncGenerator<RgbFrame> {
    for (const time of timesBetween(count)) yield await this.at(before, after, time);
  }

  /**
   * The frame at a time strictly between 0, the first picture, and 1, the second. It is the same tensor every time, so
   * it is valid until the next call.
   */
  async at(before: RifePicture, after: RifePicture, time: number): Promise<RgbFrame> {
    if (!(time > 0 && time < 1)) {
      throw new ZoetropeError('internal', `A frame between two lies at a time between 0 and 1, got ${time}.`);
    }
    for (const index of this.blocks.keys()) await this.refine(before, after, time, index);
    await this.options.tap?.('flow', this.flow, this.padded);
    await this.options.tap?.('mask', this.mask, this.padded);
    const { width, height } = this.options;
    const { gpu, flow, mask, rgb } = this;
    const shape = { padded: this.padded, encoded: this.weights.config.encoder, size: [height, width] } as const;
    await this.layers.queue.submit(0, () =>
      flowBlend.run(gpu, shape, { before: before.tensor, after: after.tensor, flow, mask, rgb }),
    );
    return { rgb, frame: 0 };
  }

  /** One block: what the flow so far leaves open, at the block's scale. */
  private async refine(before: RifePicture, after: RifePicture, time: number, index: number): Promise<void> {
    const { gpu, weights, layers, flow, mask, padded: size } = this;
    const { type, config } = weights;
    const { input, half, features, head } = this.blocks[index]!;
    const scale = config.scales[index]!;
    const first = index === 0;
    // What the first block binds as the last one's it does not read.
    const last = first ? 0 : index - 1;
    const { half: halfSize, quarter } = blockSizes(size, scale);
    const name = `block${index}`;

    const read = { encoded: config.encoder, passed: rifePassed(config), headScale: config.scales[last]! };
    await layers.queue.submit(0, () =>
      flowFeatures.run(
        gpu,
        { type, size, scale, time, first, ...read },
        { before: before.tensor, after: after.tensor, flow, mask, head: this.blocks[last]!.head, x: input },
      ),
    );
    await layers.convolve(input, `${name}.conv0.0.0`, half, { size: halfSize, stride: 2, residual: false });
    await layers.convolve(half, `${name}.conv0.1.0`, features[0], { size: quarter, stride: 2, residual: false });
    await this.options.tap?.(`${name}.feat`, features[0], quarter);
    for (let k = 0; k < RIFE_RESIDUALS; k++) {
      const [x, y] = [features[k % 2]!, features[(k + 1) % 2]!];
      await layers.convolve(x, `${name}.convblock.${k}.conv`, y, { size: quarter, stride: 1, residual: true });
    }
    const { weight, bias, into } = weights.conv(`${name}.lastconv.0`);
    const deconv = { type, size: quarter, into, planes: rifeHeadPlanes(config) } as const;
    const result = features[RIFE_RESIDUALS % 2]!;
    await layers.queue.submit(deconvShuffleMac(deconv), () =>
      deconvShuffle.run(gpu, deconv, { x: result, weight, bias, y: head }),
    );
    await this.options.tap?.(`${name}.head`, head, size);
    const update = { size, scale, first, replaceMask: config.encoder > 0 };
    await layers.queue.submit(0, () => flowUpdate.run(gpu, update, { head, flow, mask }));
  }

  private makeBlock(block: number): Block {
    const { config } = this.weights;
    const channels = config.channels[block]!;
    const { input, half, quarter } = blockSizes(this.padded, config.scales[block]!);
    const bordered = (label: string, size: Size, count: number) =>
      this.scope.own(this.layers.bordered(`block${block} ${label}`, size, count));
    const planes = [rifeHeadPlanes(config), ...input];
    return {
      input: bordered('input', input, Math.ceil(rifeInputs(config, block) / 4) * 4),
      half: bordered('half', half, channels / 2),
      features: [bordered('features', quarter, channels), bordered('features', quarter, channels)],
      head: this.scope.own(this.gpu.memory.tensor(`rife block${block} head`, 'float32', planes)),
    };
  }

  /** Frees the scratch memory. Safe to call twice. */
  [Symbol.dispose](): void {
    this.scope[Symbol.dispose]();
  }
}
