import { type CausalConv, causalConv, causalConvLaunches, causalConvMac } from '../../kernels/causal-conv';
import { channelNorm } from '../../kernels/channel-norm';
import { cropPlanes } from '../../kernels/crop-planes';
import { denormalize } from '../../kernels/denormalize';
import { spatialAttention, spatialAttentionLaunches } from '../../kernels/spatial-attention';
import { throwIfAborted } from '../errors';
import type { Gpu } from '../gpu/device';
import type { GpuTensor } from '../gpu/memory';
import type { VaeWeights } from './decoder';
import { HISTORY } from './memory';
import type { Region } from './tiles';

/** Element type of activations and weights. */
const TYPE = 'f32';

/** Pixels of a frame. */
export type Size = readonly [height: number, width: number];

/**
 * Frames on the GPU, channels last, each with a border of one pixel of zeros: [frames, height + 2, width + 2, channels]
 * f32.
 */
export class Frames implements Disposable {
  readonly tensor: GpuTensor;

  constructor(
    gpu: Gpu,
    label: string,
    readonly frames: number,
    readonly size: Size,
    readonly channels: number,
  ) {
    this.tensor = gpu.memory.tensor(label, 'float32', [frames, size[0] + 2, size[1] + 2, channels]);
  }

  /** Positions of one frame, border included. */
  get positions(): number {
    return (this.size[0] + 2) * (this.size[1] + 2);
  }

  /** Bytes of one frame. */
  get frameBytes(): number {
    return this.positions * this.channels * 4;
  }

  [Symbol.dispose](): void {
    this.tensor[Symbol.dispose]();
  }
}

/** The last two input frames of each convolution over three frames, by the convolution's name; zeros at first. */
export class Histories implements Disposable {
  private readonly frames = new Map<string, Frames>();

  /** @param size pixels of the frames whose past is kept. */
  constructor(
    private readonly gpu: Gpu,
    readonly size: Size,
  ) {}

  /** Adds a convolution that has not seen a frame yet. */
  add(conv: string, channels: number): void {
    this.frames.set(conv, new Frames(this.gpu, `${conv} history`, HISTORY, this.size, channels));
  }

  /** The history of a convolution. */
  of(conv: string): Frames {
    return this.frames.get(conv)!;
  }

  [Symbol.dispose](): void {
    for (const frames of this.frames.values()) frames[Symbol.dispose]();
    this.frames.clear();
  }
}

/**
 * Multiply-adds of one dispatch, and of what may be queued before it is waited for, so that no driver's watchdog fires
 * and a cancel takes effect soon. A GPU of 1 TFLOP/s does 5e10 in 100 ms; SwiftShader on two cores does 5e8 in 150 ms.
 */
const DISPATCH_MAC = { gpu: 5e10, cpu: 5e8 };

/** The frames between two layers. Replacing them frees the ones before. */
export class Current implements Disposable {
  constructor(public frames: Frames) {}

  /** Takes ownership of `next`. */
  replace(next: Frames): void {
    this.frames[Symbol.dispose]();
    this.frames = next;
  }

  [Symbol.dispose](): void {
    this.frames[Symbol.dispose]();
  }
}

/** The decoder's layers, by the names of their weights. What a layer makes for itself it frees, also when it throws. */
export class Layers {
  private queuedMac = 0;
  private readonly limitMac: number;

  constructor(
    readonly gpu: Gpu,
    readonly weights: VaeWeights,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.limitMac = gpu.cpu ? DISPATCH_MAC.cpu : DISPATCH_MAC.gpu;
  }

  /** A normalised latent frame [zDim, h, w] as the decoder takes it: z * std + mean. */
  async denormalize(z: GpuTensor, [height, width]: Size): Promise<Frames> {
    const channels = this.weights.config.zDim;
    return this.make('latent', 1, [height, width], channels, async ({ tensor: y }) => {
      const [scale, mean] = [this.weights.vector('latents.scale'), this.weights.vector('latents.mean')];
      const shape = { type: TYPE, height, width, channels } as const;
      await this.submit(0, () => denormalize.run(this.gpu, shape, { z, scale, mean, y }));
    });
  }

  /** A convolution of single pixels of single frames, no history. */
  pointwise(x: Frames, name: string): Promise<Frames> {
    return this.make(name, x.frames, x.size, this.weights.conv(name).out, (y) => this.convolve(x, name, y, {}));
  }

  /** A convolution over three frames. */
  async causal(x: Frames, name: string, past: Histories): Promise<Frames> {
    using sequence = this.withPast(x, past.of(name));
    return await this.causalOf(sequence, name, past);
  }

  /** x + conv(silu(norm(conv(silu(norm(x)))))), x through a 1 × 1 convolution first where the channels change. */
  async residual(current: Current, name: string, past: Histories): Promise<void> {
    using first = await this.normed(current.frames, `${name}.residual.0`, past.of(`${name}.residual.2`));
    using y = await this.causalOf(first, `${name}.residual.2`, past);
    first[Symbol.dispose]();
    using second = await this.normed(y, `${name}.residual.3`, past.of(`${name}.residual.6`));
    y[Symbol.dispose]();
    const shortcut = `${name}.shortcut`;
    if (this.weights.hasConv(shortcut)) current.replace(await this.pointwise(current.frames, shortcut));
    await this.convolvePast(second, `${name}.residual.6`, past, current.frames, true);
  }

  /** x + proj(attention(qkv(norm(x)))) over the positions of each frame; takes one frame. */
  async attention(x: Frames, name: string): Promise<void> {
    const { size, channels } = x;
    const [height, width] = size;
    using normed = await this.make(name, 1, size, channels, (y) => this.norm(x, `${name}.norm`, y, false));
    using qkv = await this.pointwise(normed, `${name}.to_qkv`);
    normed[Symbol.dispose]();
    using attended = await this.make(name, 1, size, channels, async (y) => {
      const launches = spatialAttentionLaunches({ type: TYPE, height, width, channels }, this.limitMac);
      for (const launch of launches) {
        const mac = Math.min(this.limitMac, 2 * (height * width) ** 2 * channels);
        await this.submit(mac, () => spatialAttention.run(this.gpu, launch, { qkv: qkv.tensor, y: y.tensor }));
      }
    });
    qkv[Symbol.dispose]();
    await this.convolve(attended, `${name}.proj`, x, { accumulate: true });
  }

  /** Doubles the number of frames: the convolution makes two from each. */
  async doubleFrames(current: Current, name: string, past: Histories): Promise<void> {
    const x = current.frames;
    using sequence = this.withPast(x, past.of(name));
    const doubled = await this.make(name, 2 * x.frames, x.size, x.channels, (y) =>
      this.convolvePast(sequence, name, past, y, false, 2),
    );
    current.replace(doubled);
  }

  /**
   * Doubles height and width and halves the channels; makes `to` from x, which covers `from`, each in its own level's
   * pixels.
   */
  resample(x: Frames, name: string, from: Region, to: Region): Promise<Frames> {
    const doubledFrom = [to.top - 2 * from.top, to.left - 2 * from.left] as const;
    const size = [to.height, to.width] as const;
    return this.make(name, x.frames, size, this.weights.conv(name).out, (y) =>
      this.convolve(x, name, y, { doubledFrom }),
    );
  }

  /** Norm, SiLU and the convolution to colours, of which there are four, the last one zero. */
  async head(current: Current, past: Histories): Promise<void> {
    using normed = await this.normed(current.frames, 'decoder.head.0', past.of('decoder.head.2'));
    current.replace(await this.causalOf(normed, 'decoder.head.2', past));
  }

  /** Copies the colours of `core`, in pixels of the whole picture, out of a tile that covers `from`. */
  async store(x: Frames, from: Region, core: Region, rgb: GpuTensor): Promise<void> {
    const [, , height, width] = rgb.shape as [number, number, number, number];
    const shape = {
      type: TYPE,
      frames: x.frames,
      from: x.size,
      fromAt: [core.top - from.top, core.left - from.left],
      to: [height, width],
      toAt: [core.top, core.left],
      size: [core.height, core.width],
    } as const;
    await this.submit(0, () => cropPlanes.run(this.gpu, shape, { x: x.tensor, y: rgb }));
  }

  /** Makes frames and fills them; frees them when that throws. */
  private async make(
    label: string,
    frames: number,
    size: Size,
    channels: number,
    fill: (made: Frames) => Promise<void>,
  ): Promise<Frames> {
    const made = new Frames(this.gpu, label, frames, size, channels);
    try {
      await fill(made);
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  /** The last two frames of the past, then those of x. */
  private withPast(x: Frames, history: Frames): Frames {
    const sequence = new Frames(this.gpu, 'sequence', HISTORY + x.frames, x.size, x.channels);
    const { memory } = this.gpu;
    memory.copy(history.tensor, 0, sequence.tensor, 0, HISTORY * x.frameBytes);
    memory.copy(x.tensor, 0, sequence.tensor, HISTORY * x.frameBytes, x.frames * x.frameBytes);
    return sequence;
  }

  /** The last two frames of the past, then silu(norm(x)). */
  private normed(x: Frames, norm: string, history: Frames): Promise<Frames> {
    return this.make(norm, HISTORY + x.frames, x.size, x.channels, async (sequence) => {
      this.gpu.memory.copy(history.tensor, 0, sequence.tensor, 0, HISTORY * x.frameBytes);
      await this.norm(x, norm, sequence, true);
    });
  }

  /** Norm over channels into the last frames of y. */
  private async norm(x: Frames, name: string, y: Frames, silu: boolean): Promise<void> {
    const positions = x.frames * x.positions;
    const first = (y.frames - x.frames) * x.positions;
    const gamma = this.weights.vector(`${name}.gamma`);
    const shape = { type: TYPE, positions, channels: x.channels, first, silu } as const;
    await this.submit(0, () => channelNorm.run(this.gpu, shape, { x: x.tensor, gamma, y: y.tensor }));
  }

  /** A convolution over three frames of a sequence that begins with the past. */
  private causalOf(sequence: Frames, name: string, past: Histories): Promise<Frames> {
    const { out } = this.weights.conv(name);
    return this.make(name, sequence.frames - HISTORY, sequence.size, out, (y) =>
      this.convolvePast(sequence, name, past, y, false),
    );
  }

  /** Convolves a sequence that begins with the past; its last frames are the past of the next. */
  private async convolvePast(
    sequence: Frames,
    name: string,
    past: Histories,
    y: Frames,
    accumulate: boolean,
    parts: 1 | 2 = 1,
  ): Promise<void> {
    await this.convolve(sequence, name, y, { accumulate, parts });
    const begin = (sequence.frames - HISTORY) * sequence.frameBytes;
    this.gpu.memory.copy(sequence.tensor, begin, past.of(name).tensor, 0, HISTORY * sequence.frameBytes);
  }

  /** One convolution in launches of bounded work. */
  private async convolve(
    x: Frames,
    name: string,
    y: Frames,
    options: Pick<CausalConv, 'accumulate' | 'parts' | 'doubledFrom'>,
  ): Promise<void> {
    const { weight, bias, into, out, taps, kernel } = this.weights.conv(name);
    const frames = x.frames - taps + 1;
    const conv: CausalConv = { type: TYPE, frames, from: x.size, into, to: y.size, out, taps, kernel, ...options };
    const launches = causalConvLaunches(conv, this.limitMac);
    const mac = causalConvMac(conv) / launches.length;
    for (const launch of launches) {
      await this.submit(mac, () => causalConv.run(this.gpu, launch, { x: x.tensor, weight, bias, y: y.tensor }));
    }
  }

  /** Submits one dispatch, and waits when enough is queued. */
  private async submit(mac: number, dispatch: () => Promise<void>): Promise<void> {
    throwIfAborted(this.signal);
    await dispatch();
    this.queuedMac += mac;
    if (this.queuedMac < this.limitMac) return;
    this.queuedMac = 0;
    await this.gpu.device.queue.onSubmittedWorkDone();
  }
}
