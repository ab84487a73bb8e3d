/** From a request's labels and counts to pixels, latents and tokens. Pure arithmetic. */
import type { VaeConfig } from './config';
import { ZoetropeError } from './errors';
import type { AspectRatio, Resolution, Sizes } from './manifest';
import type { ResolvedRequest } from './request';

/** Pixels per latent cell along height and width; Wan 2.1 VAE, `vae_stride` (4, 8, 8) of Wan2.2 `wan_t2v_A14B.py`. */
export const VAE_STRIDE = 8;
/** Frames per latent frame after the first, which stands for one frame alone; same source. */
export const VAE_TEMPORAL_STRIDE = 4;
/** Latent cells per token along height and width; `patch_size` (1, 2, 2), same source. */
export const PATCH = 2;
/** Width and height are multiples of this. */
export const SIZE_MULTIPLE = VAE_STRIDE * PATCH;

/** The part of a request that decides sizes. */
export type ShapeRequest = Pick<
  ResolvedRequest,
  | 'num_frames'
  | 'frames_per_second'
  | 'resolution'
  | 'aspect_ratio'
  | 'interpolator_model'
  | 'num_interpolated_frames'
  | 'adjust_fps_for_interpolation'
>;

/** All sizes of one generation. */
export interface VideoShape {
  /** Pixels, multiples of 16. */
  width: number;
  height: number;
  /** Frames that were asked for; the decoder's first so many are kept. */
  frames: number;
  /** Frames that the model makes: the next 4k + 1. */
  generatedFrames: number;
  /** Generated frames that are dropped at the end, 0 to 3. */
  surplusFrames: number;
  /** Latents are [channels, latentFrames, latentHeight, latentWidth]. */
  latentFrames: number;
  latentHeight: number;
  latentWidth: number;
  /** Length of the transformer's sequence. */
  tokens: number;
  /** New frames inside each pair of frames, 0 to 4. */
  interpolatedFrames: number;
  /** Frames of the finished video, interpolated ones included: N + (N - 1) n. */
  outputFrames: number;
  /** Frames per second of the finished video, a whole number from 4 to 300. */
  outputFramesPerSecond: number;
}

/**
 * Sizes of the video that `request` asks for from a model that offers `sizes`.
 *
 * The model makes 4k + 1 frames only. A count in between is met by generating the next one and dropping the surplus,
 * so the caller gets the number that was promised; diffusers and the official code round down instead.
 * Throws `bad-checkpoint` if the model's size for the labels is missing or not a multiple of 16.
 */
export function videoShape(request: ShapeRequest, sizes: Sizes): VideoShape {
  const { num_frames: frames, resolution, aspect_ratio, num_interpolated_frames } = request;
  const [width, height] = pixelSize(resolution, aspect_ratio, sizes);
  const latentFrames = Math.ceil((frames - 1) / VAE_TEMPORAL_STRIDE) + 1;
  const generatedFrames = (latentFrames - 1) * VAE_TEMPORAL_STRIDE + 1;
  const latentHeight = height / VAE_STRIDE;
  const latentWidth = width / VAE_STRIDE;
  const between = request.interpolator_model === 'none' ? 0 : num_interpolated_frames;
  return {
    width,
    height,
    frames,
    generatedFrames,
    surplusFrames: generatedFrames - frames,
    latentFrames,
    latentHeight,
    latentWidth,
    tokens: latentFrames * (latentHeight / PATCH) * (latentWidth / PATCH),
    interpolatedFrames: between,
    outputFrames: frames + (frames - 1) * between,
    outputFramesPerSecond: request.frames_per_second * (request.adjust_fps_for_interpolation ? between + 1 : 1),
  };
}

/**
 * Refuses a decoder of other strides than those that a {@link VideoShape} counts with: its pictures, or their number,
 * would be others than those that were planned for. Throws `bad-checkpoint`.
 */
export function checkStrides({ dimMult, temporalUpsample }: Pick<VaeConfig, 'dimMult' | 'temporalUpsample'>): void {
  const pixels = 2 ** (dimMult.length - 1);
  const frames = 2 ** temporalUpsample.filter(Boolean).length;
  if (pixels === VAE_STRIDE && frames === VAE_TEMPORAL_STRIDE) return;
  throw new ZoetropeError(
    'bad-checkpoint',
    `The video decoder makes ${pixels} × ${pixels} pixels and ${frames} frames of each latent, 8 × 8 and 4 were expected. Import the VAE of Wan 2.1.`,
  );
}

/** Pixels of a pair of labels. The manifest comes from a file, so its numbers are checked here. */
function pixelSize(resolution: Resolution, aspectRatio: AspectRatio, sizes: Sizes): [width: number, height: number] {
  const size = sizes[resolution]?.[aspectRatio];
  const fits = (pixels: number | undefined) =>
    pixels !== undefined && Number.isInteger(pixels) && pixels > 0 && pixels % SIZE_MULTIPLE === 0;
  if (!size || !fits(size[0]) || !fits(size[1])) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `The model's size for ${resolution} at ${aspectRatio} is ${size ? `${size[0]}×${size[1]}` : 'missing'}; ` +
        `width and height are positive multiples of ${SIZE_MULTIPLE}. Correct "sizes" in zoetrope.json.`,
    );
  }
  return [size[0], size[1]];
}
