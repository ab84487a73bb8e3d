import { computeAll, type EvaluationPlan, keptBranches, planEvaluations } from '../diffusion/cache';
import { guidanceOf, readsNegativePrompt } from '../diffusion/guidance';
import { type Schedule, schedule } from '../diffusion/schedule';
import { SOLVERS } from '../diffusion/solvers';
import type { Manifest } from '../manifest';
import type { ResolvedRequest } from '../request';
import { checkStrides, type VideoShape, videoShape } from '../shape';
import type { Task } from './arrange';
import type { InterpolatorName, Networks } from './decode';
import { bindingLimit, type DeviceBudget } from './device';

/** What planning reads of a manifest. */
export type PlannedModel = Pick<
  Manifest,
  'sizes' | 'dit' | 'umt5' | 'vae' | 'boundary' | 'components' | 'acceleration'
>;

/** What is known beyond request, model and device. */
export interface PlanOptions extends Networks {
  /** Tokens of the prompt, and of the negative prompt. Default: as many as the text encoder takes. */
  promptRows?: readonly number[] | undefined;
}

/** {@link Task} with what the rest of the plan needs of the request. */
export interface RequestTask extends Task {
  shape: VideoShape;
  latentShape: number[];
  schedule: Schedule;
  /** What each step evaluates. */
  evaluations: EvaluationPlan;
  interpolator: InterpolatorName | null;
}

/** What a request asks of memory and time. */
export function taskOf(
  request: ResolvedRequest,
  model: PlannedModel,
  limits: DeviceBudget,
  { promptRows, film, rife }: PlanOptions,
): RequestTask {
  checkStrides(model.vae);
  const shape = videoShape(request, model.sizes);
  const steps = schedule({
    solver: 'unipc',
    steps: request.num_inference_steps,
    shift: request.shift,
    boundary: model.boundary,
  });
  const evaluations = planEvaluations(steps, request, request.acceleration, model.acceleration);
  const count = steps.timesteps.length;
  const branches = readsNegativePrompt(steps, request) ? 2 : 1;
  const rows = Array.from({ length: branches }, (_, i) => promptRows?.[i] ?? model.dit.textLen);
  const used = { high: steps.highSteps > 0, low: steps.highSteps < count };
  const latentShape = [model.vae.zDim, shape.latentFrames, shape.latentHeight, shape.latentWidth];
  const named = request.interpolator_model;
  const interpolator = shape.interpolatedFrames > 0 && named !== 'none' ? named : null;
  return {
    manifest: model,
    shape,
    sequence: shape,
    schedule: steps,
    evaluations,
    residualBranches: keptBranches(evaluations.steps),
    latentShape,
    interpolator,
    decode: {
      vae: model.vae,
      shape,
      interpolator,
      networks: { film, rife },
      f16: limits.f16,
      bindingBytes: bindingLimit(limits),
    },
    experts: (['high', 'low'] as const)
      .filter((name) => used[name])
      .map((name) => ({ name, prompts: guidanceOf(name, request).unconditional ? branches : 1 })),
    promptRows: rows,
    latents: SOLVERS[steps.solver].latents.length + branches,
    latentBytes: 4 * latentShape.reduce((product, size) => product * size, 1),
  };
}

/** The same without reusing what earlier steps gave: it takes longer, and no memory for the residuals. */
export function withoutResiduals(task: RequestTask, request: ResolvedRequest): RequestTask {
  const steps = computeAll(task.schedule, request);
  return { ...task, evaluations: { steps, computesAll: 'memory' }, residualBranches: 0 };
}
