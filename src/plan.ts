import type { EvaluationPlan } from './diffusion/cache';
import type { DenoisePlan } from './diffusion/denoise';
import { type Arranged, arrange, buffersOf } from './plan/arrange';
import { type LivingBuffers, type StageName, sumBytes } from './plan/buffers';
import type { InterpolatorName, Networks } from './plan/decode';
import type { DeviceBudget } from './plan/device';
import { nearestRequest, refusal } from './plan/nearest';
import { convolutionMac, operations, stageSeconds } from './plan/pace';
import type { Arrangement } from './plan/residency';
import { type PlannedModel, type PlanOptions, type RequestTask, taskOf, withoutResiduals } from './plan/task';
import { planDit } from './plan/transformer';
import { stageWork, type Work } from './plan/work';
import type { ResolvedRequest } from './request';
import type { VideoShape } from './shape';
import type { HistoryType } from './vae/memory';
import type { VideoFormat } from './video/levels';

export type { Networks } from './plan/decode';
export type { DeviceBudget, DeviceLimits } from './plan/device';
export type { Refusal } from './plan/nearest';
export type { PlannedModel, PlanOptions } from './plan/task';
export { planDit } from './plan/transformer';
export type { Work } from './plan/work';

/** A stage of a job, as the plan foresees it. */
export interface StagePlan {
  name: StageName;
  /** Most bytes that the GPU holds. */
  bytes: number;
  /** Floating-point operations. */
  flop: number;
  /** Null where the device's pace is not known. */
  seconds: number | null;
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
  weights: Arrangement;
  /** Side of the decoder's tiles in latent positions, or null for whole frames. */
  vaeTile: number | null;
  /** How the decoder keeps the past: half floats only where float32 does not fit the budget. */
  vaeHistoryType: HistoryType;
  /** What makes the frames between the decoded ones, if any are wanted. */
  interpolator: InterpolatorName | null;
  /** Pixels [height, width] of FILM's runs; null without FILM. */
  filmTile: readonly [number, number] | null;
  /** Multiply-adds of a dispatch of decoder and interpolator; undefined where the device's pace is not known. */
  convolutionMac: number | undefined;
  format: VideoFormat;
  work: Work;
  /** Stages in the order of time. */
  stages: StagePlan[];
  /** Everything that the GPU holds, and when. */
  buffers: LivingBuffers[];
  /** Most bytes that this job and later ones like it hold. */
  peakBytes: number;
  budgetBytes: number;
  /** Null where the device's pace is not known. */
  seconds: number | null;
}

/**
 * Plans a request for a model on a device. Throws `out-of-memory` when it fits neither the limits nor the budget, with
 * the nearest request that does in `detail` ({@link Refusal}), and `bad-checkpoint` for a model whose sizes do not fit
 * each other.
 */
export function planVideo(
  request: ResolvedRequest,
  model: PlannedModel,
  limits: DeviceBudget,
  options: PlanOptions = {},
): Plan {
  let task = taskOf(request, model, limits, options);
  let arranged = arrange(task, limits);
  if ('leastBytes' in arranged && task.residualBranches > 0) {
    // A run that takes longer is better than one that is refused.
    task = withoutResiduals(task, request);
    arranged = arrange(task, limits);
  }
  if ('leastBytes' in arranged) {
    const fits = (of: ResolvedRequest) =>
      !('leastBytes' in arrange(withoutResiduals(taskOf(of, model, limits, options), of), limits));
    throw refusal(request, nearestRequest(request, fits), arranged.leastBytes, limits.budgetBytes);
  }
  return compose(task, arranged, request, model, limits, options);
}

function compose(
  task: RequestTask,
  arranged: Arranged,
  request: ResolvedRequest,
  model: PlannedModel,
  limits: DeviceBudget,
  networks: Networks,
): Plan {
  const { shape, latentShape, interpolator } = task;
  const { residency, slots, textSlots, buffers, decode } = arranged;
  const predicted = stageWork(task, arranged, model, networks);
  const stages = predicted.stages.map(({ name, work }) => ({
    name,
    bytes: sumBytes(buffersOf(buffers, name)),
    flop: operations(work),
    seconds: limits.pace ? stageSeconds(work, limits.pace) : null,
  }));
  const seconds = stages.map((stage) => stage.seconds);
  return {
    shape,
    denoise: {
      dit: planDit(model.dit, shape, limits, arranged.measures),
      schedule: task.schedule,
      guidance: request,
      seed: request.seed,
      latentShape,
      evaluations: task.evaluations.steps,
    },
    evaluations: task.evaluations,
    negativePrompt: task.promptRows.length > 1,
    weights: { residency, slots, textSlots },
    vaeTile: decode.tile,
    vaeHistoryType: decode.historyType,
    interpolator,
    filmTile: decode.filmTile,
    convolutionMac: convolutionMac(limits.cpu, limits.pace?.convolutions),
    format: {
      width: shape.width,
      height: shape.height,
      framesPerSecond: shape.outputFramesPerSecond,
      quality: request.video_quality,
      writeMode: request.video_write_mode,
    },
    work: {
      text: stages[0]!.flop,
      steps: predicted.steps,
      decode: stages.at(-1)!.flop,
    },
    stages,
    buffers,
    peakBytes: Math.max(...stages.map(({ bytes }) => bytes)),
    budgetBytes: limits.budgetBytes,
    seconds: seconds.includes(null) ? null : seconds.reduce<number>((sum, each) => sum + each!, 0),
  };
}
