import { deconvShuffle, deconvShuffleMac } from '../../kernels/deconv-shuffle';
import { flowBlend } from '../../kernels/flow-blend';
import { flowFeatures } from '../../kernels/flow-features';
import { flowUpdate } from '../../kernels/flow-update';
import { imageConv, imageConvMac } from '../../kernels/image-conv';
import { padPicture } from '../../kernels/pad-picture';
import { throwIfAborted, ZoetropeError } from '../errors';
import type { Gpu } from '../gpu/device';
import { type GpuTensor, Scope } from '../gpu/memory';
import { RIFE_HEAD_PLANES, RIFE_RESIDUALS, rifeInputs } from '../part';
import type { Interpolator, InterpolatorModel, RgbFrame } from './interpolator';
import { timesBetween } from './retime';
import { blockSizes, padded, type Size } from './rife-sizes';
import type { RifeConv, RifeWeights } from './rife-weights';

/** A clip that frames are made for. */
export interface RifeOptions {
  /** Pixels of a frame. */
  width: number;
  height: number;
  signal?: AbortSignal | undefined;
  /**
   * What lies beyond the frame where its sides are no multiples of 32. Default `replicate`, which shows no dark seam. Neither is better
   * throughout: on moving textures of 112 × 80 pixels the outer 8 rows and columns reach 35.0 dB with it and 36.5 dB with the zeros
   * of the reference programs, on others it is the other way round.
   */
  edge?: 'replicate' | 'zero';
  /** Sees `blockN.feat` and `blockN.head`, `flow` and `mask`. Called between dispatches. */
  tap?: ((name: string, tensor: GpuTensor, size: Size) => Promise<void>) | undefined;
}

/** A frame as the network reads it, [paddedHeight, paddedWidth, 4] f32 in 0..1. */
export interface RifePicture extends Disposable {
  tensor: GpuTensor;
}

/**
 * Multiply-adds that may be queued before they are waited for, so that a cancel takes effect soon: 100 ms of a GPU of
 * 1 TFLOP/s, 150 ms of SwiftShader on two cores.
 */
const QUEUE_MAC = { gpu: 5e10, cpu: 5e8 };

/** Slope of LeakyReLU below zero; Practical-RIFE 4.6, `IFNet_HDv3.py`. */
const SLOPE = 0.2;

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
  return { start: (width, height, signal) => new Rife(gpu, weights, { width, height, signal }) };
}

/** RIFE 4.6 on frames of one size: flow and mask from coarse to fine, then both frames warped and blended. */
export class Rife implements Interpolator<RifePicture> {
  private readonly scope = new Scope();
  private readonly padded: Size;
  private readonly blocks: Block[];
  private readonly flow: GpuTensor;
  private readonly mask: GpuTensor;
  private readonly rgb: GpuTensor;
  private queuedMac = 0;

  constructor(
    private readonly gpu: Gpu,
    private readonly weights: RifeWeights,
    private readonly options: RifeOptions,
  ) {
    const { width, height } = options;
    const { config } = weights;
    this.padded = [padded(height, config), padded(width, config)];
    const own = (label: string, ...shape: number[]) =>
      this.scope.own(gpu.memory.tensor(`rife ${label}`, 'float32', shape));
    try {
      this.flow = own('flow', ...this.padded, 4);
      this.mask = own('mask', ...this.padded);
      this.rgb = own('rgb', 3, 1, height, width);
      this.blocks = config.channels.map((_, block) => this.makeBlock(block));
    } catch (error) {
      this.scope[Symbol.dispose]();
      throw error;
    }
  }

  async prepare({ rgb, frame }: RgbFrame): Promise<RifePicture> {
    const { width, height, edge = 'replicate' } = this.options;
    const frames = rgb.shape[1]!;
    const tensor = this.gpu.memory.tensor('rife picture', 'float32', [...this.padded, 4]);
    try {
      const shape = { frames, frame, size: [height, width], padded: this.padded, edge } as const;
      await this.submit(0, () => padPicture.run(this.gpu, shape, { rgb, y: tensor }));
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
   * The frame at a time strictly between 0, the first picture, and 1, the second. It is the same tensor every time, so it is valid
   * until the next call.
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
    await this.submit(0, () =>
      flowBlend.run(
        gpu,
        { padded: this.padded, size: [height, width] },
        { before: before.tensor, after: after.tensor, flow, mask, rgb },
      ),
    );
    return { rgb, frame: 0 };
  }

  /** One block: what the flow so far leaves open, at the block's scale. */
  private async refine(before: RifePicture, after: RifePicture, time: number, index: number): Promise<void> {
    const { gpu, weights, flow, mask, padded: size } = this;
    const { type } = weights;
    const { input, half, features, head } = this.blocks[index]!;
    const scale = weights.config.scales[index]!;
    const first = index === 0;
    const { half: halfSize, quarter } = blockSizes(size, scale);
    const name = `block${index}`;

    await this.submit(0, () =>
      flowFeatures.run(
        gpu,
        { type, size, scale, time, first },
        { before: before.tensor, after: after.tensor, flow, mask, x: input },
      ),
    );
    await this.convolve(input, `${name}.conv0.0.0`, half, halfSize, 2);
    await this.convolve(half, `${name}.conv0.1.0`, features[0], quarter, 2);
    await this.options.tap?.(`${name}.feat`, features[0], quarter);
    for (let k = 0; k < RIFE_RESIDUALS; k++) {
      await this.convolve(features[k % 2]!, `${name}.convblock.${k}.conv`, features[(k + 1) % 2]!, quarter, 1);
    }
    const { weight, bias, into } = weights.conv(`${name}.lastconv.0`);
    const deconv = { type, size: quarter, into, planes: RIFE_HEAD_PLANES } as const;
    const result = features[RIFE_RESIDUALS % 2]!;
    await this.submit(deconvShuffleMac(deconv), () =>
      deconvShuffle.run(gpu, deconv, { x: result, weight, bias, y: head }),
    );
    await this.options.tap?.(`${name}.head`, head, size);
    await this.submit(0, () => flowUpdate.run(gpu, { size, scale, first }, { head, flow, mask }));
  }

  /** A convolution to `size` pixels; the ones of stride 1 are residual. */
  private async convolve(x: GpuTensor, name: string, y: GpuTensor, size: Size, stride: 1 | 2): Promise<void> {
    const { weight, bias, into, out }: RifeConv = this.weights.conv(name);
    const shape = { type: this.weights.type, size, stride, into, out, residual: stride === 1, slope: SLOPE } as const;
    await this.submit(imageConvMac(shape), () => imageConv.run(this.gpu, shape, { x, weight, bias, y }));
  }

  private makeBlock(block: number): Block {
    const { config, type } = this.weights;
    const channels = config.channels[block]!;
    const { input, half, quarter } = blockSizes(this.padded, config.scales[block]!);
    const element = type === 'f16' ? 'float16' : 'float32';
    const bordered = (label: string, [height, width]: Size, count: number) =>
      this.scope.own(this.gpu.memory.tensor(`rife block${block} ${label}`, element, [height + 2, width + 2, count]));
    return {
      input: bordered('input', input, Math.ceil(rifeInputs(block) / 4) * 4),
      half: bordered('half', half, channels / 2),
      features: [bordered('features', quarter, channels), bordered('features', quarter, channels)],
      head: this.scope.own(this.gpu.memory.tensor(`rife block${block} head`, 'float32', [RIFE_HEAD_PLANES, ...input])),
    };
  }

  /** Submits one dispatch, and waits when enough is queued. */
  private async submit(mac: number, dispatch: () => Promise<void>): Promise<void> {
    throwIfAborted(this.options.signal);
    await dispatch();
    this.queuedMac += mac;
    if (this.queuedMac < (this.gpu.cpu ? QUEUE_MAC.cpu : QUEUE_MAC.gpu)) return;
    this.queuedMac = 0;
    await this.gpu.device.queue.onSubmittedWorkDone();
  }

  /** Frees the scratch memory. Safe to call twice. */
  [Symbol.dispose](): void {
    this.scope[Symbol.dispose]();
  }
}
