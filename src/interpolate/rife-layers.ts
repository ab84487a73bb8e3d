import { imageConv, imageConvMac } from '../../kernels/image-conv';
import type { Gpu } from '../gpu/device';
import { type DispatchOptions, DispatchQueue } from '../gpu/dispatch-queue';
import type { GpuTensor } from '../gpu/memory';
import type { Size } from './rife-sizes';
import type { RifeWeights } from './rife-weights';

/** Slope of LeakyReLU below zero; Practical-RIFE 4.6 and later, `IFNet_HDv3.py`. */
const SLOPE = 0.2;

/** RIFE's convolutions on a device, and its way of submitting dispatches. */
export class RifeLayers {
  readonly queue: DispatchQueue;

  constructor(
    private readonly gpu: Gpu,
    readonly weights: RifeWeights,
    options: DispatchOptions,
  ) {
    this.queue = new DispatchQueue(gpu, options);
  }

  /**
   * A tensor [height + 2, width + 2, channels] of the weights' type, channels last, with a border of zeros that no
   * kernel writes. The caller disposes it.
   */
  bordered(label: string, [height, width]: Size, channels: number): GpuTensor {
    const element = this.weights.type === 'f16' ? 'float16' : 'float32';
    return this.gpu.memory.tensor(`rife ${label}`, element, [height + 2, width + 2, channels]);
  }

  /** A convolution with LeakyReLU to `size` pixels; residual where x is added before the activation. */
  async convolve(
    x: GpuTensor,
    name: string,
    y: GpuTensor,
    how: { size: Size; stride: 1 | 2; residual: boolean },
  ): Promise<void> {
    const { type } = this.weights;
    const { weight, bias, into, out } = this.weights.conv(name);
    const shape = { type, into, out, slope: SLOPE, ...how } as const;
    await this.queue.submit(imageConvMac(shape), () => imageConv.run(this.gpu, shape, { x, weight, bias, y }));
  }
}
