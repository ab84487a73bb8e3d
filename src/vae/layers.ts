import { type CausalConv, causalConv, causalConvLaunches, causalConvMac } from '../../kernels/causal-conv';
import { channelNorm } from '../../kernels/channel-norm';
import { cropPlanes } from '../../kernels/crop-planes';
import { denormalize } from '../../kernels/denormalize';
import { keepFrames } from '../../kernels/keep-frames';
import { spatialAttention, spatialAttentionLaunches } from '../../kernels/spatial-attention';
import type { Gpu } from '../gpu/device';
import { type DispatchOptions, DispatchQueue } from '../gpu/dispatch-queue';
import type { GpuTensor } from '../gpu/memory';
import type { VaeWeights } from './decoder';
import { HISTORY, type HistoryType } from './memory';
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

/**
 * The last two input frames of a convolution over three frames, [2, height + 2, width + 2, channels]; zeros at first.
 */
export interface History {
  readonly tensor: GpuTensor;
  readonly size: Size;
  readonly type: HistoryType;
  /** Which of the two lies further back: a single new frame takes its place, and nothing is moved. */
  older: 0 | 1;
}

/** The histories of a level's convolutions, by the convolution's name. */
export class Histories implements Disposable {
  private readonly histories = new Map<string, History>();

  /**
   * @param size pixels of the frames whose past is kept.
   * @param type how what follows a norm is kept.
   */
  constructor(
    private readonly gpu: Gpu,
    readonly size: Size,
    private readonly type: HistoryType,
  ) {}

  /** Adds a convolution of what follows a norm. */
  add(conv: string, channels: number): void {
    this.make(conv, channels, this.type);
  }

  /** Adds a convolution of values that no norm bounds: always float32. They are a fortieth of all histories. */
  addUnbounded(conv: string, channels: number): void {
    this.make(conv, channels, 'f32');
  }

  /** The history of a convolution. */
  of(conv: string): History {
    return this.histories.get(conv)!;
  }

  private make(conv: string, channels: number, type: HistoryType): void {
    const [height, width] = this.size;
    const shape = [HISTORY, height + 2, width + 2, channels];
    const tensor = this.gpu.memory.tensor(`${conv} history`, type === 'f16' ? 'float16' : 'float32', shape);
    this.histories.set(conv, { tensor, size: this.size, type, older: 0 });
  }

  [Symbol.dispose](): void {
    for (const { tensor } of this.histories.values()) tensor[Symbol.dispose]();
    this.histories.clear();
  }
}

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
  private readonly queue: DispatchQueue;

  constructor(
    readonly gpu: Gpu,
    readonly weights: VaeWeights,
    options: DispatchOptions,
  ) {
    this.queue = new DispatchQueue(gpu, options);
  }

  /** A normalised latent frame [zDim, h, w] as the decoder takes it: z * std + mean. */
  async denormalize(z: GpuTensor, [height, width]: Size): Promise<Frames> {
    const channels = this.weights.config.zDim;
    return this.make('latent', 1, [height, width], channels, async ({ tensor: y }) => {
      const [scale, mean] = [this.weights.vector('latents.scale'), this.weights.vector('latents.mean')];
      const shape = { type: TYPE, height, width, channels } as const;
      await this.queue.submit(0, () => denormalize.run(this.gpu, shape, { z, scale, mean, y }));
    });
  }

  /** A convolution of single pixels of single frames, no history. */
  pointwise(x: Frames, name: string): Promise<Frames> {
    return this.make(name, x.frames, x.size, this.weights.conv(name).out, (y) =>
      this.convolve(x, name, y, { frames: x.frames }),
    );
  }

  /** A convolution over three frames. */
  causal(x: Frames, name: string, past: Histories): Promise<Frames> {
    const { out } = this.weights.conv(name);
    return this.make(name, x.frames, x.size, out, (y) => this.convolvePast(x, name, past, y, {}));
  }

  /** x + conv(silu(norm(conv(silu(norm(x)))))), x through a 1 × 1 convolution first where the channels change. */
  async residual(current: Current, name: string, past: Histories): Promise<void> {
    using first = await this.normed(current.frames, `${name}.residual.0`, true);
    using y = await this.causal(first, `${name}.residual.2`, past);
    first[Symbol.dispose]();
    using second = await this.normed(y, `${name}.residual.3`, true);
    y[Symbol.dispose]();
    const shortcut = `${name}.shortcut`;
    if (this.weights.hasConv(shortcut)) current.replace(await this.pointwise(current.frames, shortcut));
    await this.convolvePast(second, `${name}.residual.6`, past, current.frames, { accumulate: true });
  }

  /** x + proj(attention(qkv(norm(x)))) over the positions of each frame; takes one frame. */
  async attention(x: Frames, name: string): Promise<void> {
    const { size, channels } = x;
    const [height, width] = size;
    using normed = await this.normed(x, `${name}.norm`, false);
    using qkv = await this.pointwise(normed, `${name}.to_qkv`);
    normed[Symbol.dispose]();
    using attended = await this.make(name, 1, size, channels, async (y) => {
      const launches = spatialAttentionLaunches({ type: TYPE, height, width, channels }, this.queue.maxMac);
      for (const launch of launches) {
        const mac = Math.min(this.queue.maxMac, 2 * (height * width) ** 2 * channels);
        await this.queue.submit(mac, () => spatialAttention.run(this.gpu, launch, { qkv: qkv.tensor, y: y.tensor }));
      }
    });
    qkv[Symbol.dispose]();
    await this.convolve(attended, `${name}.proj`, x, { frames: 1, accumulate: true });
  }

  /** Doubles the number of frames: the convolution makes two from each. */
  async doubleFrames(current: Current, name: string, past: Histories): Promise<void> {
    const x = current.frames;
    const doubled = await this.make(name, 2 * x.frames, x.size, x.channels, (y) =>
      this.convolvePast(x, name, past, y, { parts: 2 }),
    );
    current.replace(doubled);
  }

  /**
   * Doubles height and width and halves the channels; makes `to` from x, which covers `from`, each in its own level's
   * pixels.
   * @param frame makes this frame alone; all when absent.
   */
  resample(x: Frames, name: string, from: Region, to: Region, frame?: number): Promise<Frames> {
    const doubledFrom = [to.top - 2 * from.top, to.left - 2 * from.left] as const;
    const size = [to.height, to.width] as const;
    const frames = frame === undefined ? x.frames : 1;
    return this.make(name, frames, size, this.weights.conv(name).out, (y) =>
      this.convolve(x, name, y, { doubledFrom, frames, firstFrame: frame ?? 0 }),
    );
  }

  /** Norm, SiLU and the convolution to colours, of which there are four, the last one zero. */
  async head(current: Current, past: Histories): Promise<void> {
    using normed = await this.normed(current.frames, 'decoder.head.0', true);
    current.replace(await this.causal(normed, 'decoder.head.2', past));
  }

  /**
   * Copies the colours of `core`, in pixels of the whole picture, out of a tile that covers `from`, to frames of rgb.
   */
  async store(x: Frames, from: Region, core: Region, rgb: GpuTensor, toFrame: number): Promise<void> {
    const [, toFrames, height, width] = rgb.shape as [number, number, number, number];
    const shape = {
      type: TYPE,
      frames: x.frames,
      toFrames,
      toFrame,
      from: x.size,
      fromAt: [core.top - from.top, core.left - from.left],
      to: [height, width],
      toAt: [core.top, core.left],
      size: [core.height, core.width],
    } as const;
    await this.queue.submit(0, () => cropPlanes.run(this.gpu, shape, { x: x.tensor, y: rgb }));
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

  /** The norm over channels, and SiLU where wanted. */
  private normed(x: Frames, name: string, silu: boolean): Promise<Frames> {
    const positions = x.frames * x.positions;
    const gamma = this.weights.vector(`${name}.gamma`);
    const shape = { type: TYPE, positions, channels: x.channels, silu } as const;
    return this.make(name, x.frames, x.size, x.channels, ({ tensor: y }) =>
      this.queue.submit(0, () => channelNorm.run(this.gpu, shape, { x: x.tensor, gamma, y })),
    );
  }

  /** A convolution over three frames into y; its last two input frames are the past of the next. */
  private async convolvePast(
    x: Frames,
    name: string,
    past: Histories,
    y: Frames,
    options: Pick<CausalConv, 'accumulate' | 'parts'>,
  ): Promise<void> {
    const history = past.of(name);
    const conv = { ...options, frames: x.frames };
    await this.convolve(history, name, y, conv);
    await this.convolve(x, name, y, conv);
    const count = Math.min(x.frames, HISTORY);
    const [from, place] = [x.frames - count, count === 1 ? history.older : 0];
    await this.keep(x, from, count, history, place);
    history.older = count === 1 && place === 0 ? 1 : 0;
  }

  /** Writes `count` frames of x over the frames of a history from `place` on. */
  private async keep(x: Frames, from: number, count: number, { tensor, type }: History, place: number): Promise<void> {
    if (type === 'f32') {
      const { frameBytes } = x;
      this.gpu.memory.copy(x.tensor, from * frameBytes, tensor, place * frameBytes, count * frameBytes);
      return;
    }
    const quads = (x.positions * x.channels) / 4;
    const shape = { quads: count * quads, first: from * quads, place: place * quads };
    await this.queue.submit(0, () => keepFrames.run(this.gpu, shape, { x: x.tensor, y: tensor }));
  }

  /** What the frames of x, or those of a history, contribute to y, in launches of bounded work; the history's first. */
  private async convolve(
    x: Frames | History,
    name: string,
    y: Frames,
    options: Partial<CausalConv> & { frames: number },
  ): Promise<void> {
    const { weight, bias, into, out, taps, kernel } = this.weights.conv(name);
    const past = 'older' in x ? { type: x.type, older: x.older } : undefined;
    const conv: CausalConv = { type: TYPE, from: x.size, into, to: y.size, out, taps, kernel, ...options };
    const launches = causalConvLaunches(conv, this.queue.maxMac, past);
    const mac = causalConvMac(past ? { ...conv, past } : conv) / launches.length;
    for (const launch of launches) {
      await this.queue.submit(mac, () => causalConv.run(this.gpu, launch, { x: x.tensor, weight, bias, y: y.tensor }));
    }
  }
}
