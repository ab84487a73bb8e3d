import { type DitConfig, patchChannels, type Umt5Config, type VaeConfig, vaeLevels } from '../config';
import type { Evaluation, StepEvaluations } from '../diffusion/cache';
import { stageOf } from '../diffusion/schedule';
import { filmMac } from '../interpolate/film-mac';
import { rifeEncoderMac, rifeMac } from '../interpolate/rife-sizes';
import { FILM_STYLE, type FilmConfig } from '../part/film';
import { RIFE_46 } from '../part/rife';
import type { VideoShape } from '../shape';
import type { Arranged } from './arrange';
import { type StageName, sumBytes } from './buffers';
import type { InterpolatorName, Networks } from './decode';
import { Memo } from './memo';
import type { StageWork } from './pace';
import { modelBytes } from './residency';
import type { PlannedModel, RequestTask } from './task';

/** Predicted floating-point operations (a multiply-add counts as two), for progress and estimates. */
export interface Work {
  text: number;
  /** Each step. */
  steps: number[];
  /** The whole decode, interpolation included. */
  decode: number;
}

/** Rows of text that work is predicted for where the prompt is not known; the usual prompt has fewer. */
const TYPICAL_ROWS = 64;

/** Matrix products of the text encoder for one prompt. */
export function textWork({ dModel, dFf, numHeads, dKv, numLayers }: Umt5Config): number {
  return 2 * TYPICAL_ROWS * numLayers * (4 * dModel * numHeads * dKv + 3 * dModel * dFf);
}

/**
 * One pass of the transformer: linear layers; self-attention and cross-attention.
 * @param sweeps over the tokens in each block's self-attention.
 */
export function passWork(
  { dim, ffnDim, numLayers }: DitConfig,
  tokens: number,
  sweeps = 1,
): { products: number; attention: number } {
  // q, k, v and o of self-attention, q and o of cross-attention; each further sweep projects q, k and v again.
  const square = 6 + 3 * (sweeps - 1);
  return {
    products: numLayers * 2 * tokens * (square * dim * dim + 2 * dim * ffnDim),
    attention: numLayers * 4 * tokens * (tokens + TYPICAL_ROWS) * dim,
  };
}

/** Convolutions of the decoder, position by position. */
export function decodeWork(config: VaeConfig, shape: VideoShape): number {
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

const filmMemory = new Memo<FilmConfig, number>();

/** Convolutions of the interpolator, over the whole clip. */
export function interpolationWork(
  { width, height, frames, interpolatedFrames }: VideoShape,
  interpolator: InterpolatorName | null,
  { film = FILM_STYLE, rife = RIFE_46 }: Networks,
): number {
  if (interpolator === null) return 0;
  const made = (frames - 1) * interpolatedFrames;
  if (interpolator === 'film') {
    return 2 * made * filmMemory.of(film, `${width} ${height}`, () => filmMac(film, width, height));
  }
  return 2 * (made * rifeMac(rife, width, height) + frames * rifeEncoderMac(rife, width, height));
}

/** Operations of one evaluation; where the blocks are left out, embedding and head remain. */
function evaluationWork(how: Evaluation, config: DitConfig, tokens: number, sweeps: number) {
  if (how === 'absent') return { products: 0, attention: 0 };
  if (how === 'skip') return { products: 4 * tokens * config.dim * patchChannels(config), attention: 0 };
  return passWork(config, tokens, sweeps);
}

/** Operations of a step, all its evaluations together. */
function stepWork({ conditional, unconditional }: StepEvaluations, config: DitConfig, tokens: number, sweeps: number) {
  const [first, second] = [conditional, unconditional].map((how) => evaluationWork(how, config, tokens, sweeps));
  return { products: first!.products + second!.products, attention: first!.attention + second!.attention };
}

/** What each stage computes, and the weights that it needs. */
export function stageWork(
  task: RequestTask,
  { residency, measures, textSlots, decode }: Arranged,
  model: PlannedModel,
  networks: Networks,
): { stages: { name: StageName; work: StageWork }[]; steps: number[] } {
  const { shape, interpolator, schedule, evaluations } = task;
  const bytes = modelBytes(model.components);
  const none = { products: 0, attention: 0, convolutions: 0, overlapped: false };
  const steps = evaluations.steps.map((step) => stepWork(step, model.dit, shape.tokens, measures.sweeps));
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const experts = task.experts.map(({ name }) => {
    const indices = [...steps.keys()].filter((index) => stageOf(schedule, index) === name);
    const overlapped = residency === 'streamed';
    // Each block is needed once for every branch that computes, or once for all of them.
    const sweepsOf = ({ conditional, unconditional }: StepEvaluations) => {
      const computed = [conditional, unconditional].filter((how) => how === 'compute' || how === 'keep').length;
      return measures.branchOrder === 'branch-major' ? computed : Math.min(1, computed);
    };
    // One sweep more makes the keys of the text, where they are kept.
    const streamed =
      sum(indices.map((index) => sweepsOf(evaluations.steps[index]!))) + (measures.textKeys === 'kept' ? 1 : 0);
    const work = {
      ...none,
      products: sum(indices.map((index) => steps[index]!.products)),
      attention: sum(indices.map((index) => steps[index]!.attention)),
      uploadBytes: (overlapped ? streamed : 1) * (bytes[name]?.total ?? 0),
      overlapped,
    };
    return { name, work };
  });
  const text = {
    ...none,
    products: task.promptRows.length * textWork(model.umt5),
    uploadBytes: bytes.text_encoder?.total ?? 0,
    overlapped: textSlots !== null,
  };
  const convolutions = decodeWork(model.vae, shape) + interpolationWork(shape, interpolator, networks);
  const decoding = { ...none, convolutions, uploadBytes: sumBytes(decode.weights) };
  return {
    stages: [{ name: 'text', work: text }, ...experts, { name: 'decode', work: decoding }],
    steps: steps.map(({ products, attention }) => products + attention),
  };
}
