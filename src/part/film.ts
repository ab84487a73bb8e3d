import type { Shapes } from '../config';
import { ZoetropeError } from '../errors';
import type { TensorEntry } from '../manifest';

/** The network FILM ("Frame Interpolation for Large Motion"), its sizes and the tensors that it is made of. */

/**
 * Levels of the image pyramid; this and the next three: the released network,
 * `frame_interpolation/training/config/film_net-Style.gin`.
 */
export const FILM_LEVELS = 7;
/** Finest levels that are fused into a picture. */
export const FILM_FUSION_LEVELS = 5;
/** Finest levels with a flow predictor of their own; the others share one. */
export const FILM_OWN_PREDICTORS = 3;
/** Stages of the feature extractor, which begins anew at every level. */
export const FILM_STAGES = 4;
/** Convolutions of 3 × 3 in a flow predictor, before two of 1 × 1. */
export const FILM_FLOW_CONVS = 3;

/** Pictures have sides of multiples of this: the coarsest level is a 64th. */
export const FILM_MULTIPLE = 2 ** (FILM_LEVELS - 1);

/** What may differ between networks of this architecture. */
export interface FilmConfig {
  /** Name for people. */
  name: string;
  /** Channels of the extractor's first stage; each further one has twice as many. A multiple of 4. */
  filters: number;
  /** Channels of the flow predictors, the finest level's first, the shared one last. Multiples of 4. */
  flowFilters: readonly [number, number, number, number];
}

/** The released "Style" network. */
export const FILM_STYLE: FilmConfig = { name: 'FILM', filters: 64, flowFilters: [32, 64, 128, 256] };

/** Channels of a stage of the extractor. */
export function filmStageChannels({ filters }: FilmConfig, stage: number): number {
  return filters * 2 ** stage;
}

/** Channels of the features of a level: what the stages that reach it make, the first stage's first. */
export function filmFeatures(config: FilmConfig, level: number): number {
  let channels = 0;
  for (let stage = 0; stage < FILM_STAGES && stage <= level; stage++) channels += filmStageChannels(config, stage);
  return channels;
}

/** Prefix of the names of the predictor that makes a level's flow. */
export function filmPredictor(level: number): string {
  if (level >= FILM_OWN_PREDICTORS) return 'predict_flow._predictor._convs';
  return `predict_flow._predictors.${FILM_OWN_PREDICTORS - 1 - level}._convs`;
}

/** Channels of the predictor that makes a level's flow. */
export function filmFlowFilters({ flowFilters }: FilmConfig, level: number): number {
  return flowFilters[Math.min(level, FILM_OWN_PREDICTORS)]!;
}

/** Channels that both warped frames and flows have at a level of the fusion: pictures and features, and two flows. */
export function filmAligned(config: FilmConfig, level: number): number {
  return 2 * (3 + filmFeatures(config, level)) + 4;
}

/** Prefix of the names of the fusion's convolutions that make a level. */
export function filmFusion(level: number): string {
  return `fuse.convs.${FILM_FUSION_LEVELS - 2 - level}`;
}

/** Every tensor of the network by its name in the PyTorch port, `dajes/frame-interpolation-pytorch`. */
export function filmShapes(config: FilmConfig): Shapes {
  const shapes: Shapes = new Map();
  const conv = (name: string, out: number, into: number, kernel: number) => {
    shapes.set(`${name}.weight`, [out, into, kernel, kernel]);
    shapes.set(`${name}.bias`, [out]);
  };
  for (let stage = 0; stage < FILM_STAGES; stage++) {
    const channels = filmStageChannels(config, stage);
    const name = `extract.extract_sublevels.convs.${stage}`;
    conv(`${name}.0.0`, channels, stage === 0 ? 3 : channels / 2, 3);
    conv(`${name}.1.0`, channels, channels, 3);
  }
  for (let level = FILM_OWN_PREDICTORS; level >= 0; level--) {
    const filters = filmFlowFilters(config, level);
    const name = filmPredictor(level);
    for (let i = 0; i < FILM_FLOW_CONVS; i++) {
      conv(`${name}.${i}.0`, filters, i === 0 ? 2 * filmFeatures(config, level) : filters, 3);
    }
    conv(`${name}.${FILM_FLOW_CONVS}.0`, filters / 2, filters, 1);
    conv(`${name}.${FILM_FLOW_CONVS + 1}.0`, 2, filters / 2, 1);
  }
  for (let level = FILM_FUSION_LEVELS - 2; level >= 0; level--) {
    const channels = filmStageChannels(config, level);
    const coarser = level === FILM_FUSION_LEVELS - 2;
    const name = filmFusion(level);
    conv(`${name}.0.0`, channels, coarser ? filmAligned(config, level + 1) : 2 * channels, 2);
    conv(`${name}.1.0`, channels, filmAligned(config, level) + channels, 3);
    conv(`${name}.2.0`, channels, channels, 3);
  }
  conv('fuse.output_conv', 3, config.filters, 1);
  return shapes;
}

/**
 * The network that these tensors are of, by the sizes of its first layers; whether all the others fit is for whoever
 * compares them with {@link filmShapes}. Throws `bad-checkpoint` for tensors that are not FILM's and for channels that
 * do not come in fours.
 */
export function filmConfig(entries: ReadonlyMap<string, TensorEntry>): FilmConfig {
  const outOf = (name: string): number => {
    const out = entries.get(`${name}.weight`)?.shape[0];
    if (out !== undefined && out >= 4 && out % 4 === 0 && out <= 4096) return out;
    throw new ZoetropeError(
      'bad-checkpoint',
      `The interpolator is no FILM network: "${name}.weight" ${out === undefined ? 'is missing' : `makes ${out} channels, a multiple of 4 was expected`}. Use film_net_fp16.safetensors.`,
    );
  };
  const filters = outOf('extract.extract_sublevels.convs.0.0.0');
  const flow = (level: number) => outOf(`${filmPredictor(level)}.0.0`);
  const flowFilters = [flow(0), flow(1), flow(2), flow(3)] as const;
  const released = filters === FILM_STYLE.filters && flowFilters.every((n, i) => n === FILM_STYLE.flowFilters[i]);
  return { name: released ? FILM_STYLE.name : `FILM of ${filters} filters`, filters, flowFilters };
}
