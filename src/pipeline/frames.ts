import { i420, i420Bytes } from '../../kernels/i420';
import { throwIfAborted } from '../errors';
import type { Gpu } from '../gpu/device';
import type { GpuTensor } from '../gpu/memory';
import type { InterpolatorModel, RgbFrame } from '../interpolate/interpolator';
import { retime } from '../interpolate/retime';
import type { Plan } from '../plan';
import type { VaeWeights } from '../vae/decoder';
import { createVaeStream } from '../vae/stream';
import type { I420Frame } from '../video/encode';

/** Latents to pictures for the encoder, as a stream: decoded, with new frames between, converted. */

/** What a stream of frames needs of a plan, of a host and of a model. */
type StreamPlan = Pick<Plan, 'shape' | 'vaeTile' | 'interpolator'> &
  Partial<Pick<Plan, 'filmTile' | 'vaeHistoryType' | 'convolutionMac'>>;
interface StreamHost {
  gpu: Gpu;
  signal: AbortSignal;
}
interface StreamParts {
  vae(): Promise<VaeWeights>;
  interpolator(kind: 'film' | 'rife'): Promise<InterpolatorModel>;
}

/**
 * The frames of the finished video as the encoder takes them. All of it is a stream: nothing is decoded before a frame
 * of it is asked for, and peak memory does not depend on the length of the clip.
 */
export function videoFrames(
  latents: GpuTensor,
  plan: StreamPlan,
  host: StreamHost,
  parts: StreamParts,
  raw?: RawFrames,
): AsyncGenerator<I420Frame> {
  const decoded = decodeFrames(latents, plan, host, parts); // RGB on the GPU
  const retimed = interpolateFrames(decoded, plan, host, parts); // and the frames between
  return convertFrames(retimed, plan, host, raw);
}

/** Latents to frames, one latent frame at a time; its frames are freed before the next latent frame is decoded. */
async function* decodeFrames(
  latents: GpuTensor,
  plan: StreamPlan,
  { gpu, signal }: StreamHost,
  parts: StreamParts,
): AsyncGenerator<RgbFrame> {
  const { latentFrames, latentHeight, latentWidth, frames } = plan.shape;
  const frameBytes = latentHeight * latentWidth * 4;
  const weights = await parts.vae();
  const { zDim } = weights.config;
  using stream = createVaeStream(gpu, weights, {
    latentHeight,
    latentWidth,
    tile: plan.vaeTile,
    historyType: plan.vaeHistoryType,
    maxMacPerDispatch: plan.convolutionMac,
    signal,
  });
  using latent = gpu.memory.tensor('latent frame', 'float32', [zDim, latentHeight, latentWidth]);
  let made = 0;
  for (let t = 0; t < latentFrames && made < frames; t++) {
    throwIfAborted(signal);
    gpu.memory.gather(latents, t * frameBytes, latentFrames * frameBytes, latent, frameBytes, zDim);
    using rgb = await stream.decode(latent); // f32 [3, 1 or 4, H, W]
    const count = rgb.shape[1]!;
    for (let frame = 0; frame < count && made < frames; frame++, made++) yield { rgb, frame };
  }
}

/** The frames with new ones between them, where the plan has an interpolator. */
async function* interpolateFrames(
  frames: AsyncGenerator<RgbFrame>,
  { shape, interpolator: kind, filmTile, convolutionMac }: StreamPlan,
  { signal }: StreamHost,
  parts: StreamParts,
): AsyncGenerator<RgbFrame> {
  if (kind === null) return yield* frames;
  const model = await parts.interpolator(kind);
  const { width, height } = shape;
  const tile = filmTile ?? undefined;
  using interpolator = model.start({ width, height, tile, maxMacPerDispatch: convolutionMac, signal });
  yield* retime(frames, interpolator, shape.interpolatedFrames);
}

/** Frames as the encoder takes them. */
async function* convertFrames(
  frames: AsyncGenerator<RgbFrame>,
  { shape: { width, height } }: StreamPlan,
  { gpu }: StreamHost,
  raw: RawFrames | undefined,
): AsyncGenerator<I420Frame> {
  using picture = gpu.memory.tensor('picture', 'uint8', [i420Bytes(width, height)]);
  for await (const { rgb, frame } of frames) {
    await i420.run(gpu, { width, height, frames: rgb.shape[1]!, frame }, { rgb, out: picture });
    await raw?.take(gpu, rgb, frame);
    yield { data: await gpu.memory.read(picture), width, height };
  }
}

/** RGB24 frames for whoever wants to look at them before encoding: round((clamp(x, -1, 1) + 1) / 2 * 255). */
export class RawFrames {
  readonly bytes: Uint8Array<ArrayBuffer>;
  private filled = 0;

  constructor(private readonly plan: Plan) {
    const { width, height, outputFrames } = plan.shape;
    this.bytes = new Uint8Array(width * height * 3 * outputFrames);
  }

  /** Takes one frame of decoded colours [3, frames, H, W]. */
  async take(gpu: Gpu, rgb: GpuTensor, frame: number): Promise<void> {
    const size = this.plan.shape.width * this.plan.shape.height;
    using planes = gpu.memory.tensor('raw frame', 'float32', [3, size]);
    gpu.memory.gather(rgb, frame * size * 4, rgb.shape[1]! * size * 4, planes, size * 4, 3);
    const values = await gpu.memory.readFloats(planes);
    for (let i = 0; i < size; i++) {
      for (let color = 0; color < 3; color++) {
        const value = Math.max(-1, Math.min(1, values[color * size + i]!));
        this.bytes[this.filled++] = Math.round(((value + 1) / 2) * 255);
      }
    }
  }
}
