import type { DitConfig } from '../config';
import { throwIfAborted, ZoetropeError } from '../errors';
import type { Gpu } from '../gpu/device';
import { elementCount, type GpuTensor, Scope } from '../gpu/memory';
import type { Ort } from '../gpu/ort';
import type { BlockWeights } from '../gpu/weights';
import { WorkQueue } from '../gpu/work-queue';
import { Activations, type DitPlan } from './activations';
import { DitSessions } from './block-graphs';
import { computeAll, keptBranches, resumableAfter, type StepEvaluations } from './cache';
import { passMac, predictVelocity } from './dit';
import { type GuidanceScales, guidanceOf } from './guidance';
import { torchRandn } from './noise';
import { Residuals } from './residuals';
import { Sampler, type SamplerState } from './sampler';
import { type Schedule, type Stage, stageOf } from './schedule';
import { SOLVERS } from './solvers';
import { encodeTextKeys, type TextEmbedding, type TextKeys } from './text-keys';

/** A sampling run. */
export interface DenoisePlan {
  dit: DitPlan;
  schedule: Schedule;
  guidance: GuidanceScales;
  seed: number | bigint;
  /** [16, T, h, w]. */
  latentShape: readonly number[];
  /** What each step's evaluations do. Default: all compute. */
  evaluations?: readonly StepEvaluations[] | undefined;
}

/** What a run is carried out with. */
export interface DenoiseHost {
  gpu: Gpu;
  ort: Ort;
  config: DitConfig;
  /** An expert's weights. Called once for each stage that has steps; the caller owns them. */
  expert(stage: Stage): Promise<BlockWeights>;
  /**
   * Told before each step of an expert that another follows, and how many steps are left before, the present one among
   * them.
   */
  onNextExpert?: ((stage: Stage, stepsBefore: number) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** Told within a step, from 0, which share of its work the GPU has done. */
  onProgress?: ((step: number, share: number) => void) | undefined;
}

/** State after a step; the tensors belong to the run and are good until the listener's promise resolves. */
export interface StepReport {
  /** From 0. */
  index: number;
  stage: Stage;
  /** The latents that the next step starts from. */
  sample: GpuTensor;
  /** The step's estimate of the finished latents. */
  estimate: GpuTensor;
  /** The network's output of this step. */
  velocities: { conditional: GpuTensor; unconditional?: GpuTensor };
  /** Whether the run can go on behind this step from its latents alone: the next step reuses no residual. */
  resumable: boolean;
  /** Reads the state behind this step from the GPU. */
  save(): Promise<SamplerState>;
  /** What is kept for later steps, if anything is. */
  residuals?: Residuals | undefined;
}

/**
 * Noise to latents [16, T, h, w] in the model's normalised space.
 * @param negative null when no stage is guided.
 * @param from where to go on, with a step left; default: from the noise of `plan.seed`. The result is the same, bit for
 * bit.
 * @returns the finished latents; the caller disposes them.
 */
export async function denoise(
  plan: DenoisePlan,
  positive: TextEmbedding,
  negative: TextEmbedding | null,
  host: DenoiseHost,
  onStep: (report: StepReport) => Promise<void> = async () => undefined,
  from: SamplerState = noiseState(plan),
): Promise<GpuTensor> {
  const { gpu, config, signal } = host;
  const { schedule, dit, latentShape } = plan;
  const solver = SOLVERS[schedule.solver];
  const evaluations = plan.evaluations ?? computeAll(schedule, plan.guidance);
  const sessions = new DitSessions(config, host.ort);
  const steps = schedule.timesteps.length;
  requireState(from, steps, from.stepsDone === 0 ? ['sample'] : solver.state);
  if (!resumableAfter(evaluations, from.stepsDone - 1)) {
    throw new ZoetropeError(
      'internal',
      `Step ${from.stepsDone + 1} reuses a residual that no step before it has kept.`,
    );
  }
  using scope = new Scope();
  try {
    const sampler = scope.own(new Sampler(gpu, solver, latentShape, from.latents));
    const activations = scope.own(new Activations(gpu, config, dit, negative ? 2 : 1));
    const kept = keptBranches(evaluations);
    const residuals = kept > 0 ? scope.own(new Residuals(gpu, config, dit, kept)) : undefined;
    const velocity = () => scope.own(gpu.memory.tensor('velocity', 'float32', latentShape));
    const velocities = negative ? [velocity(), velocity()] : [velocity()];
    let stage: StageState | undefined;
    scope.own({ [Symbol.dispose]: () => stage?.[Symbol.dispose]() });
    const progress = { step: 0, doneMac: 0, totalMac: 1 };
    const queue = new WorkQueue(gpu, dit.maxMacPerDispatch, signal, (mac) => {
      progress.doneMac += mac;
      if (!signal?.aborted) host.onProgress?.(progress.step, Math.min(1, progress.doneMac / progress.totalMac));
    });
    for (let index = from.stepsDone; index < steps; index++) {
      throwIfAborted(signal);
      const name = stageOf(schedule, index);
      const guided = guidanceOf(name, plan.guidance);
      if (stage?.name !== name) {
        stage?.[Symbol.dispose]();
        stage = await enterStage(name, host, sessions, dit, guided.unconditional ? [positive, negative!] : [positive]);
      }
      const next = schedule.timesteps.findIndex((_, later) => later > index && stageOf(schedule, later) !== name);
      if (next > index) host.onNextExpert?.(stageOf(schedule, next), next - index);
      const [conditional, unconditional] = velocities.slice(0, stage.texts.length);
      const ran = unconditional ? [conditional!, unconditional] : [conditional!];
      const { conditional: first, unconditional: second } = evaluations[index]!;
      const how = unconditional ? [first, second] : [first];
      const rows = stage.texts.filter((_, branch) => how[branch] !== 'skip').map((text) => text.rows);
      Object.assign(progress, { step: index, doneMac: 0, totalMac: passMac(config, dit, rows) });
      const pass = { gpu, sessions, plan: dit, activations, residuals, signal, queue };
      const timestep = schedule.timesteps[index]!;
      await predictVelocity(pass, stage.expert, sampler.get('sample'), timestep, stage.texts, ran, how);
      const step = solver.step(schedule, index, guided.scale);
      const given = { conditional: conditional!, ...(unconditional && { unconditional }) };
      await sampler.apply(step, given);
      await queue.drain(); // A step that is reported is done.
      const estimate = sampler.get(step.estimate);
      const done = index + 1;
      const save = () => sampler.save(done, done === steps);
      const sample = sampler.get('sample');
      const resumable = resumableAfter(evaluations, index);
      await onStep({ index, stage: name, sample, estimate, velocities: given, resumable, save, residuals });
    }
    const latents = gpu.memory.tensor('latents', 'float32', latentShape);
    gpu.memory.copy(sampler.get('sample'), 0, latents, 0, latents.sizeBytes);
    return latents;
  } finally {
    await sessions.release();
  }
}

/** The state before the first step. */
function noiseState({ seed, latentShape }: DenoisePlan): SamplerState {
  return { stepsDone: 0, latents: new Map([['sample', torchRandn(seed, elementCount(latentShape))]]) };
}

/** Refuses a state that a run of `steps` steps cannot start from: a latent left out would count as zeros. */
function requireState({ stepsDone, latents }: SamplerState, steps: number, needed: readonly string[]): void {
  if (stepsDone >= 0 && stepsDone < steps && needed.every((name) => latents.has(name))) return;
  throw new ZoetropeError(
    'corrupt-data',
    `A saved state of ${stepsDone} steps with [${[...latents.keys()]}] is none of a run of ${steps} steps with [${needed}]. Discard it and start again.`,
  );
}

/**
 * The latents of a state whose steps are all done; the caller disposes them. Throws `corrupt-data` where there are
 * none.
 */
export function finishedLatents({ latentShape }: DenoisePlan, { latents }: SamplerState, gpu: Gpu): GpuTensor {
  const sample = latents.get('sample');
  if (sample?.length !== elementCount(latentShape)) {
    throw new ZoetropeError(
      'corrupt-data',
      `The saved latents have ${sample?.length ?? 'no'} values, this video's [${latentShape}]. Discard what was saved and start again.`,
    );
  }
  return gpu.memory.upload('latents', 'float32', latentShape, sample);
}

interface StageState extends Disposable {
  name: Stage;
  expert: BlockWeights;
  texts: TextKeys[];
}

/** Gets the expert and makes the keys and values of its prompts. */
async function enterStage(
  name: Stage,
  host: DenoiseHost,
  sessions: DitSessions,
  plan: DitPlan,
  embeddings: readonly TextEmbedding[],
): Promise<StageState> {
  const expert = await host.expert(name);
  const texts = await encodeTextKeys(host.gpu, sessions, expert, embeddings, plan, host.signal);
  return {
    name,
    expert,
    texts,
    [Symbol.dispose]() {
      for (const text of texts) text[Symbol.dispose]();
    },
  };
}
