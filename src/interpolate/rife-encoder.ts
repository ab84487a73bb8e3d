import { imageDeconv, imageDeconvMac } from '../../kernels/image-deconv';
import { type PadPictureShape, padPicture } from '../../kernels/pad-picture';
import type { Gpu } from '../gpu/device';
import { type GpuTensor, Scope } from '../gpu/memory';
import { RIFE_ENCODER_WIDTH } from '../part/rife';
import type { RifeLayers } from './rife-layers';
import { encoderSizes, type Size } from './rife-sizes';

/**
 * The image encoder of RIFE 4.22.lite and later: channels that belong to a frame alone, so that both its pairs and all
 * times share them.
 */
export class RifeEncoder implements Disposable {
  private readonly scope = new Scope();
  private readonly picture: GpuTensor;
  /** Inner layers go back and forth between these. */
  private readonly inner: [GpuTensor, GpuTensor];

  /** @param size pixels of a picture, extended to what the network takes. */
  constructor(
    private readonly gpu: Gpu,
    private readonly layers: RifeLayers,
    private readonly size: Size,
  ) {
    const { input, half } = encoderSizes(size);
    const own = (label: string, at: Size, channels: number) =>
      this.scope.own(layers.bordered(`encoder ${label}`, at, channels));
    try {
      this.picture = own('picture', input, 4);
      this.inner = [own('features', half, RIFE_ENCODER_WIDTH), own('features', half, RIFE_ENCODER_WIDTH)];
    } catch (error) {
      this.scope[Symbol.dispose]();
      throw error;
    }
  }

  /** Encodes a frame into the channels of `picture` [height, width, 4 + encoded] behind its fourth. */
  async encode(
    rgb: GpuTensor,
    frame: Pick<PadPictureShape, 'frames' | 'frame' | 'size' | 'edge'>,
    picture: GpuTensor,
  ): Promise<void> {
    const { gpu, layers } = this;
    const { type } = layers.weights;
    const { half } = encoderSizes(this.size);
    const [a, b] = this.inner;
    const shape = { ...frame, padded: this.size, type, border: 1, channels: 4 } as const;
    await layers.queue.submit(0, () => padPicture.run(gpu, shape, { rgb, y: this.picture }));
    await layers.convolve(this.picture, 'encode.cnn0', a, { size: half, stride: 2, residual: false });
    await layers.convolve(a, 'encode.cnn1', b, { size: half, stride: 1, residual: false });
    await layers.convolve(b, 'encode.cnn2', a, { size: half, stride: 1, residual: false });
    const { weight, bias, into, out } = layers.weights.conv('encode.cnn3');
    const last = { type, size: half, into, out, slice: [picture.shape[2]!, 4] } as const;
    await layers.queue.submit(imageDeconvMac(last), () =>
      imageDeconv.run(gpu, last, { x: a, weight, bias, y: picture }),
    );
  }

  /** Frees the scratch memory. Safe to call twice. */
  [Symbol.dispose](): void {
    this.scope[Symbol.dispose]();
  }
}
