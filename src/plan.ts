import { type DitConfig, patchChannels, type Umt5Config, type VaeConfig, vaeLevels } from './config';
import { activationBytes, type DitPlan, headBytes } from './diffusion/activations';
import { type Evaluation, type EvaluationPlan, planEvaluations } from './diffusion/cache';
import type { DenoisePlan } from './diffusion/denoise';
import { readsNegativePrompt } from './diffusion/guidance';
import { residualBytes } from './diffusion/residuals';
import { schedule } from './diffusion/schedule';
import { SOLVERS } from './diffusion/solvers';
import { ZoetropeError } from './errors';
import { filmMac } from './interpolate/film-mac';
import { rifeMac } from './interpolate/rife-sizes';
import type { Manifest } from './manifest';
import { RIFE_46 } from './part';
import { FILM_STYLE } from './part/film';
import { withResiduals } from './plan/acceleration';
import { chooseResidency, textKeyBytes, type WeightResidency } from './plan/residency';
import type { ResolvedRequest } from './request';
import { type VideoShape, videoShape } from './shape';
import { chooseTile, decoderBytes } from './vae/memory';
import type { VideoFormat } from './video/levels';

/** What the plan has to know of a device. */
export interface DeviceLimits {
  /** Largest storage binding in bytes; WebGPU guarantees 128 MiB. */
  maxStorageBufferBindingSize: number;
  /** Largest buffer in bytes; WebGPU guarantees 256 MiB. */
  maxBufferSize: number;
  /** Half floats for attention. */
  f16: boolean;
  /** A CPU driver. */
  cpu: boolean;
}

/** {@link DeviceLimits} and what a job may hold of them. */
export interface DeviceBudget extends DeviceLimits {
  /** Bytes of GPU memory that our buffers may take; Infinity where nobody has set a budget, since WebGPU tells none. */
  budgetBytes: number;
}

/** Predicted floating-point operations (a multiply-add counts as two), for progress and estimates. */
export interface Work {
  text: number;
  /** Each step. */
  steps: number[];
  /** The whole decode, interpolation included. */
  decode: number;
}

/** Everything about a generation that can be decided before the GPU is touched. */
export interface Plan {
  shape: VideoShape;
  denoise: DenoisePlan;
  /** What each step evaluates; `denoise` carries it out. */
  evaluations: EvaluationPlan;
  /** Whether any stage reads the negative prompt. */
  negativePrompt: boolean;
  /** Which weights are on the GPU together. */
  residency: WeightResidency;
  /** Side of the decoder's tiles in latent positions, or null for whole frames. */
  vaeTile: number | null;
  /** What makes the frames between the decoded ones, if any are wanted. */
  interpolator: Exclude<ResolvedRequest['interpolator_model'], 'none'> | null;
  format: VideoFormat;
  work: Work;
}

/** Most tokens in a chunk: beyond this a matrix product gains nothing and cancelling takes longer. */
const MAX_CHUNK = 4096;
/** Chunks are multiples of this, the tile of ONNX Runtime's and our kernels. */
const CHUNK_STEP = 64;
/**
 * Multiply-adds in one attention dispatch. A GPU of 1 TFLOP/s does the first in 100 ms, far below the two seconds of
 * Windows' watchdog; SwiftShader at about 1 GFLOP/s does the second in 400 ms.
 */
const MAX_MAC_GPU = 5e10;
const MAX_MAC_CPU = 2e8;

/** Plans a request for a model on a device. Throws `out-of-memory` when it fits neither the limits nor the budget. */
export function planVideo(
  request: ResolvedRequest,
  manifest: Pick<Manifest, 'sizes' | 'dit' | 'umt5' | 'vae' | 'boundary' | 'components' | 'acceleration'>,
  limits: DeviceBudget,
): Plan {
  const shape = videoShape(request, manifest.sizes);
  const dit = planDit(manifest.dit, shape, limits);
  const steps = schedule({
    solver: 'unipc',
    steps: request.num_inference_steps,
    shift: request.shift,
    boundary: manifest.boundary,
  });
  const latentShape = [manifest.vae.zDim, shape.latentFrames, shape.latentHeight, shape.latentWidth];
  const negativePrompt = readsNegativePrompt(steps, request);
  const vaeTile = chooseTile(manifest.vae, shape.latentHeight, shape.latentWidth, bindingLimit(limits));
  const branches = negativePrompt ? 2 : 1;
  const latentBytes = 4 * latentShape.reduce((product, size) => product * size, 1);
  const working = {
    diffusion:
      activationBytes(manifest.dit, dit, branches) +
      textKeyBytes(manifest.dit, dit, branches) +
      (SOLVERS[steps.solver].latents.length + branches + 1) * latentBytes,
    decode:
      latentBytes +
      decoderBytes(manifest.vae, shape.latentHeight, shape.latentWidth, vaeTile, shape.latentFrames).peak +
      2 * shape.width * shape.height,
  };
  const { evaluations, arrangement: residency } = withResiduals(
    planEvaluations(steps, request, request.acceleration, manifest.acceleration),
    steps,
    request,
    (kept) => residualBytes(manifest.dit, dit, kept),
    (extra) =>
      chooseResidency(manifest.components, { ...working, diffusion: working.diffusion + extra }, limits.budgetBytes),
  );
  return {
    shape,
    denoise: {
      dit,
      schedule: steps,
      guidance: request,
      seed: request.seed,
      latentShape,
      evaluations: evaluations.steps,
    },
    evaluations,
    negativePrompt,
    residency,
    vaeTile,
    interpolator:
      shape.interpolatedFrames > 0 && request.interpolator_model !== 'none' ? request.interpolator_model : null,
    format: {
      width: shape.width,
      height: shape.height,
      framesPerSecond: shape.outputFramesPerSecond,
      quality: request.video_quality,
      writeMode: request.video_write_mode,
    },
    work: {
      text: (negativePrompt ? 2 : 1) * textWork(manifest.umt5),
      steps: evaluations.steps.map(({ conditional, unconditional }) =>
        [conditional, unconditional].reduce((sum, how) => sum + evaluationWork(how, manifest.dit, shape.tokens), 0),
      ),
      decode: decodeWork(manifest.vae, shape) + interpolationWork(shape, request.interpolator_model),
    },
  };
}

/** Bytes that one tensor may have. */
function bindingLimit({ maxStorageBufferBindingSize, maxBufferSize }: DeviceLimits): number {
  return Math.min(maxStorageBufferBindingSize, maxBufferSize);
}

/** Cuts the sequence into token chunks and the heads into groups, so that every binding fits the device. */
export function planDit(
  config: DitConfig,
  shape: Pick<VideoShape, 'tokens' | 'latentFrames' | 'latentHeight' | 'latentWidth'>,
  limits: DeviceLimits,
): DitPlan {
  const { tokens } = shape;
  const binding = bindingLimit(limits);
  const type = limits.f16 ? 'f16' : 'f32';
  const widest = Math.max(config.ffnDim, config.dim) * 4;
  const fitting = Math.floor(binding / widest / CHUNK_STEP) * CHUNK_STEP;
  const headsFitting = Math.floor(binding / headBytes(tokens, type));
  if (fitting < CHUNK_STEP || headsFitting < 1) {
    throw new ZoetropeError(
      'out-of-memory',
      `${tokens} tokens of width ${config.dim} do not fit this device's bindings of ${binding} bytes. Use a smaller resolution or fewer frames.`,
    );
  }
  // Chunks of equal length where possible: the same sessions serve them all, and the last is not a sliver.
  const count = Math.ceil(tokens / Math.min(fitting, MAX_CHUNK));
  const length = Math.min(tokens, Math.ceil(tokens / count / CHUNK_STEP) * CHUNK_STEP);
  const groups = Math.ceil(config.numHeads / headsFitting);
  const groupHeads = Math.ceil(config.numHeads / groups);
  const headGroups = ranges(config.numHeads, groupHeads);
  return {
    grid: [shape.latentFrames, shape.latentHeight / 2, shape.latentWidth / 2],
    tokens,
    type,
    chunks: ranges(tokens, length).map(({ index, begin, size }) => ({ index, begin, tokens: size })),
    headGroups: headGroups.map(({ index, begin, size }) => ({ index, begin, heads: size })),
    groupsPerSweep: headGroups.length,
    branchOrder: 'layer-major',
    textKeys: 'kept',
    maxMacPerDispatch: limits.cpu ? MAX_MAC_CPU : MAX_MAC_GPU,
  };
}

function ranges(total: number, length: number): { index: number; begin: number; size: number }[] {
  return Array.from({ length: Math.ceil(total / length) }, (_, index) => {
    const begin = index * length;
    return { index, begin, size: Math.min(length, total - begin) };
  });
}

/** Rows of text that work is predicted for; the usual prompt has fewer. */
const TYPICAL_ROWS = 64;

/** Matrix products of the text encoder for one prompt. */
function textWork({ dModel, dFf, numHeads, dKv, numLayers }: Umt5Config): number {
  return 2 * TYPICAL_ROWS * numLayers * (4 * dModel * numHeads * dKv + 3 * dModel * dFf);
}

/** One pass of the transformer: linear layers, self-attention and cross-attention. */
function passWork({ dim, ffnDim, numLayers }: DitConfig, tokens: number): number {
  const linear = 2 * tokens * (6 * dim * dim + 2 * dim * ffnDim);
  return numLayers * (linear + 4 * tokens * tokens * dim + 4 * tokens * TYPICAL_ROWS * dim);
}

/** One evaluation; where the blocks are left out, embedding and head remain. */
function evaluationWork(how: Evaluation, config: DitConfig, tokens: number): number {
  if (how === 'absent') return 0;
  if (how === 'skip') return 4 * tokens * config.dim * patchChannels(config);
  return passWork(config, tokens);
}

/** Convolutions of the decoder, position by position. */
function decodeWork(config: VaeConfig, shape: VideoShape): number {
  const { latentHeight, latentWidth, latentFrames, generatedFrames } = shape;
  const levels = vaeLevels(config);
  let frames = latentFrames;
  let total = 0;
  for (const [index, { channels, blocks, upsample }] of levels.entries()) {
    const positions = latentHeight * latentWidth * 4 ** index * frames;
    const convolutions = 2 * blocks.length + (index === 0 ? 4 : 0);
    total += positions * convolutions * channels * channels * 27 * 2;
    if (upsample?.temporal) frames = Math.min(generatedFrames, 2 * frames - 1);
    if (upsample) total += positions * 4 * channels * (channels / 2) * 9 * 2;
  }
  return total;
}

/** Convolutions of the released networks; which one lies beside the model is not known here. */
function interpolationWork(
  { width, height, frames, interpolatedFrames }: VideoShape,
  model: ResolvedRequest['interpolator_model'],
): number {
  const mac = model === 'film' ? filmMac(FILM_STYLE, width, height) : rifeMac(RIFE_46, width, height);
  return 2 * (frames - 1) * interpolatedFrames * mac;
}
