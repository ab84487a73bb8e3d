import { countEvaluations, resumableAfter } from './diffusion/cache';
import { type DenoiseHost, denoise, finishedLatents, type StepReport } from './diffusion/denoise';
import { previewFrames } from './diffusion/preview';
import type { SamplerState } from './diffusion/sampler';
import type { Stage as Expert } from './diffusion/schedule';
import { unlessAborted, ZoetropeError } from './errors';
import type { ExpansionEngine } from './expansion/engine';
import type { Gpu } from './gpu/device';
import type { HostModel, Ort } from './gpu/ort';
import type { BlockWeights } from './gpu/weights';
import type { InterpolatorModel } from './interpolate/interpolator';
import type { Manifest, TensorSource } from './manifest';
import { RawFrames, videoFrames } from './pipeline/frames';
import { type Networks, type Plan, planVideo } from './plan';
import { accelerationMessage } from './plan/acceleration';
import { deviceBudget } from './plan/device';
import type { Pace } from './plan/pace';
import { ProgressMeter, StageClock } from './progress';
import type { GeneratedVideo, JobOptions, Report, StreamCosts } from './protocol';
import { type AvailableParts, type Request, type ResolvedRequest, resolveRequest } from './request';
import type { TextChecker } from './safety/checker';
import { cleanPrompt } from './text/clean';
import type { Tokenizer } from './text/tokenizer';
import { encodeTexts } from './text/umt5';
import type { VaeWeights } from './vae/decoder';
import { chooseEncoder, type I420Frame, type VideoHost } from './video/encode';
import { type EncodedVideo, encodeMp4, MP4_CONTENT_TYPE, saveMp4 } from './video/file';
import { encoderCandidates } from './video/levels';
import type { ByteSink } from './video/mp4';

/**
 * A model whose parts come when they are asked for. Whether they stay is the residency's business, not the pipeline's.
 */
export interface Model {
  readonly manifest: Manifest;
  /** The interpolators that are there; a plan counts their bytes. */
  readonly networks: Networks;
  /** Says which weights may be on the GPU together, before a job asks for any. */
  arrange(weights: Plan['weights']): void;
  tokenizer(load: LoadOptions): Promise<Tokenizer>;
  textEncoder(load: LoadOptions): Promise<{ weights: BlockWeights; source: TensorSource }>;
  expert(stage: Expert, load: LoadOptions): Promise<BlockWeights>;
  /**
   * Says that an expert will be asked for, so that as much of it is read meanwhile as its residency has room for: all
   * of it where all weights stay, the first blocks in the slots of the present one where that streams, nothing where
   * experts change places.
   * @param stepsBefore steps that the present expert has left.
   */
  prefetchExpert(stage: Expert, stepsBefore: number, load: LoadOptions): void;
  vae(load: LoadOptions): Promise<VaeWeights>;
  /** What streaming has cost since the model was opened. */
  streamCosts(): StreamCosts;
  /** Throws `missing-component` where the network is not there. */
  interpolator(kind: 'film' | 'rife', load: LoadOptions): Promise<InterpolatorModel>;
}

/** How a part is loaded. */
export interface LoadOptions {
  signal: AbortSignal;
  /** Bytes of the part that are there, of how many. */
  onProgress(doneBytes: number, totalBytes: number): void;
}

/** What a job decides when it begins: a job that goes on takes it over. */
export interface Decided {
  request: ResolvedRequest;
  /** The prompt that is used, checked and expanded. */
  prompt: string;
}

/** Where a job keeps what it takes to go on after a crash. A disk that refuses ends no job. */
export interface Checkpoint {
  /** Undefined for a job that begins. */
  readonly decided: Decided | undefined;
  decide(decided: Decided): Promise<void>;
  /** The newest state; undefined before the first one. */
  load(): Promise<SamplerState | undefined>;
  /** @param read the state behind a step; called where there is a place for it. */
  save(read: () => Promise<SamplerState>): Promise<void>;
}

/** Everything that a generation touches outside itself. */
export interface Host {
  gpu: Gpu;
  ort: Ort;
  model: Model;
  video: VideoHost;
  available: AvailableParts;
  /** Judges of a prompt where the request asks for them; each must let it pass. */
  safety: readonly TextChecker[];
  /** The classifier of `checkOutput`, opened anew; whoever asks releases it. */
  openPictures(): Promise<HostModel>;
  /** Engines of prompt expansion in the order of asking. */
  expansion: readonly ExpansionEngine[];
  checkpoint: Checkpoint;
  /** Bytes of GPU memory that a job may hold; Infinity for no bound. */
  budgetBytes: number;
  /** Opens the file that the caller wants the video in; absent when it is to be given back. */
  openFile?(): Promise<ByteSink>;
  /** How fast the device is; absent where nobody has measured. */
  pace?: Pace | undefined;
  /** Milliseconds, any origin. */
  now(): number;
  /** A whole number from 0 to 2^32 - 1. */
  randomSeed(): number;
  signal: AbortSignal;
}

/** What of {@link JobOptions} a generation itself looks at. */
type GenerateOptions = Pick<JobOptions, 'previews' | 'rgb24' | 'checkOutput'>;

/** A prompt to an MP4. Rejects before the next dispatch once `host.signal` fires. */
export function generate(
  request: Request,
  options: GenerateOptions,
  host: Host,
  report: Report,
): Promise<GeneratedVideo> {
  return host.gpu.job(host.signal, () => makeVideo(request, options, host, report));
}

/** The whole story. */
async function makeVideo(
  request: Request,
  options: GenerateOptions,
  host: Host,
  report: Report,
): Promise<GeneratedVideo> {
  const { gpu, signal, checkpoint } = host;
  const { request: resolved, prompt } = checkpoint.decided ?? (await decide(request, host, report));
  const fresh = planFor(resolved, host);
  const saved = await checkpoint.load();
  const plan = saved ? planBehind(saved, resolved, fresh, host) : fresh;
  const acceleration = accelerationMessage(plan.evaluations);
  if (acceleration) report.log({ level: 'info', message: acceleration });
  host.model.arrange(plan.weights);
  const settings = await chooseEncoder(host.video, encoderCandidates(plan.format), signal);
  const meter = new ProgressMeter(plan.work, host.now, report.progress);
  const clock = new StageClock(host.now);
  const parts = new Parts(host, meter, clock);
  const costsBefore = host.model.streamCosts();

  const steps = plan.denoise.schedule.timesteps.length;
  if (saved) report.log({ level: 'info', message: `Going on behind step ${saved.stepsDone} of ${steps}.` });
  const sample = async () => {
    const prompts = plan.negativePrompt ? [prompt, resolved.negative_prompt] : [prompt];
    const texts = await clock.time('textMs', () => encodePrompts(prompts, host, parts, meter)); // f32 [n, textDim] each
    meter.report('diffusion', saved?.stepsDone ?? 0, steps);
    const onStep = async (step: StepReport) => {
      if (step.resumable) await checkpoint.save(step.save); // before anybody hears that the step is done
      await showStep(step, plan, options.previews, host, meter, report);
    };
    return clock.time('diffusionMs', () =>
      denoise(plan.denoise, texts[0]!, texts[1] ?? null, denoiseHost(host, parts, plan, meter), onStep, saved),
    );
  };
  const latents = saved?.stepsDone === steps ? finishedLatents(plan.denoise, saved, gpu) : await sample(); // f32 [16, T, h, w]
  try {
    const streaming = costsSince(costsBefore, host.model.streamCosts());
    if (streaming.blocks > 0) report.log({ level: 'info', message: streamingMessage(streaming) });
    const raw = options.rgb24 ? new RawFrames(plan) : undefined;
    meter.report('decode', 0, plan.shape.outputFrames);
    const encoded: EncodedVideo & { data?: ArrayBuffer } = await clock.time('decodeMs', async () => {
      const made = videoFrames(latents, plan, host, parts, raw); // I420, one by one
      const frames = options.checkOutput ? lookAt(made, plan.shape.outputFrames, host) : made;
      const encoding = {
        host: host.video,
        settings,
        frameCount: plan.shape.outputFrames,
        writeMode: plan.format.writeMode,
      };
      const onProgress = (done: number) => meter.report('decode', done, plan.shape.outputFrames);
      const sink = await host.openFile?.();
      return sink
        ? saveMp4(frames, encoding, sink, signal, onProgress)
        : encodeMp4(frames, encoding, signal, onProgress);
    });
    return {
      ...(encoded.data && { mp4: encoded.data }),
      codec: encoded.codecString,
      contentType: MP4_CONTENT_TYPE,
      fileName: `zoetrope-${resolved.seed}.mp4`,
      width: encoded.width,
      height: encoded.height,
      frames: encoded.frames,
      framesPerSecond: encoded.framesPerSecond,
      prompt,
      seed: resolved.seed,
      request: resolved,
      timings: { ...clock.timings(), evaluations: countEvaluations(plan.evaluations.steps), streaming },
      ...(raw && { rgb24: raw.bytes.buffer }),
    };
  } finally {
    latents[Symbol.dispose]();
  }
}

function costsSince(before: StreamCosts, now: StreamCosts): StreamCosts {
  return {
    uploadedBytes: now.uploadedBytes - before.uploadedBytes,
    stallMs: now.stallMs - before.stallMs,
    blocks: now.blocks - before.blocks,
    ready: now.ready - before.ready,
  };
}

function streamingMessage({ uploadedBytes, stallMs, blocks, ready }: StreamCosts): string {
  return `Streamed ${(uploadedBytes / 1e6).toFixed(1)} MB of weights; waited ${(stallMs / 1000).toFixed(1)} s for them, ${ready} of ${blocks} blocks were there when they were needed.`;
}

/** The model's parts, with the time and progress of loading them accounted to the job that needs them. */
export class Parts {
  constructor(
    private readonly host: Host,
    private readonly meter: ProgressMeter,
    private readonly clock: StageClock,
  ) {}

  tokenizer = () => this.load((options) => this.host.model.tokenizer(options));
  textEncoder = () => this.load((options) => this.host.model.textEncoder(options));
  expert = (stage: Expert) => this.load((options) => this.host.model.expert(stage, options));
  vae = () => this.load((options) => this.host.model.vae(options));
  interpolator = (kind: 'film' | 'rife') => this.load((options) => this.host.model.interpolator(kind, options));

  private load<T>(part: (options: LoadOptions) => Promise<T>): Promise<T> {
    const { signal } = this.host;
    const onProgress = (done: number, total: number) => {
      if (!signal.aborted) this.meter.report('load', done, total);
    };
    // A server that does not answer keeps nobody who has cancelled.
    return this.clock.time('loadMs', () => unlessAborted(part({ signal, onProgress }), signal));
  }
}

/** How the request is carried out on the host's device. Throws `out-of-memory` where it does not fit. */
function planFor(request: ResolvedRequest, { gpu, model, budgetBytes, pace }: Host): Plan {
  return planVideo(request, model.manifest, deviceBudget(gpu, budgetBytes, pace), model.networks);
}

/**
 * The plan of a run that goes on: one that had no room for residuals kept steps behind which another would reuse them.
 */
function planBehind({ stepsDone }: SamplerState, request: ResolvedRequest, plan: Plan, host: Host): Plan {
  if (resumableAfter(plan.evaluations.steps, stepsDone - 1)) return plan;
  const whole = planFor({ ...request, acceleration: 'none' }, host);
  return { ...whole, evaluations: { ...whole.evaluations, computesAll: 'memory' } };
}

/** Settles what the request leaves open, and the prompt, and keeps both. */
async function decide(request: Request, host: Host, report: Report): Promise<Decided> {
  const resolved = resolveRequest(request, host.available, host.randomSeed);
  for (const message of resolutionLog(request, resolved)) report.log({ level: 'info', message });
  planFor(resolved, host); // refuses what does not fit before anything is fetched for it
  const prompt = await preparePrompt(resolved, host, report); // checked and expanded, where the request asks for it
  await host.checkpoint.decide({ request: resolved, prompt });
  return { request: resolved, prompt };
}

/**
 * The prompt to use, before any work on the GPU: refused if the safety checker is asked for and objects, then expanded
 * if that is asked for. Throws `content-policy-violation`, `aborted`.
 */
async function preparePrompt(request: ResolvedRequest, host: Host, report: Report): Promise<string> {
  const { prompt, enable_safety_checker, enable_prompt_expansion } = request;
  if (!enable_safety_checker && !enable_prompt_expansion) return prompt;
  const [{ objectionTo, requireSafePrompt }, { expandPrompt }] = await Promise.all([
    import('./safety/checker'),
    import('./expansion/engine'),
  ]); // few need them
  const { safety, expansion, signal } = host;
  const checkers = enable_safety_checker ? safety : [];
  await requireSafePrompt(prompt, checkers, signal);
  if (!enable_prompt_expansion) return prompt;
  const accept = async (text: string) =>
    (await objectionTo(text, checkers, signal)) ? 'was flagged by the content checker' : undefined;
  const expanded = await expandPrompt(prompt, expansion, (entry) => report.log(entry), signal, accept);
  return expanded.prompt;
}

/** The frames as they come, with some of them looked at. Throws `content-policy-violation` behind the last one. */
async function* lookAt(frames: AsyncGenerator<I420Frame>, count: number, host: Host): AsyncGenerator<I420Frame> {
  const { checkFrames } = await import('./safety/pictures'); // few need it
  const model = await host.openPictures();
  try {
    yield* checkFrames(frames, count, model);
  } finally {
    await model.release();
  }
}

/** What the caller left open and what became of it. */
function resolutionLog(request: Request, resolved: { interpolator_model: string }): string[] {
  const lines: string[] = [];
  const wantsFrames = (request.num_interpolated_frames ?? 0) > 0;
  if (request.interpolator_model === undefined) {
    lines.push(
      resolved.interpolator_model === 'none' && wantsFrames
        ? 'num_interpolated_frames has no effect: this model folder holds no interpolator.'
        : `interpolator_model was left out: using ${resolved.interpolator_model}.`,
    );
  }
  return lines;
}

/** Cleans, tokenises and encodes prompts, with the same weights in one go. */
export async function encodePrompts(prompts: readonly string[], host: Host, parts: Parts, meter: ProgressMeter) {
  const { gpu, ort, model, signal } = host;
  const tokenizer = await parts.tokenizer();
  const config = model.manifest.umt5;
  if (tokenizer.idCount > config.vocabSize) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `The tokenizer gives ids up to ${tokenizer.idCount - 1}, the text encoder has ${config.vocabSize} rows. They are of different models; import the checkpoint again.`,
    );
  }
  const { weights, source } = await parts.textEncoder();
  meter.report('text', 0, prompts.length);
  const cleaned = await Promise.all(prompts.map(cleanPrompt));
  const ids = cleaned.map((prompt) => tokenizer.encode(prompt));
  const encoded = await encodeTexts({ gpu, ort, config, weights, source, signal }, ids);
  meter.report('text', prompts.length, prompts.length);
  return encoded;
}

/** A sampling run's view of the host. */
export function denoiseHost(
  { gpu, ort, model, signal }: Host,
  parts: Parts,
  plan: Plan,
  meter: ProgressMeter,
): DenoiseHost {
  const steps = plan.denoise.schedule.timesteps.length;
  const onProgress = (step: number, share: number) => meter.report('diffusion', step, steps, share);
  const onNextExpert = (stage: Expert, stepsBefore: number) =>
    model.prefetchExpert(stage, stepsBefore, { signal, onProgress: () => undefined });
  const expert = (stage: Expert) => parts.expert(stage);
  return { gpu, ort, config: model.manifest.dit, expert, onNextExpert, signal, onProgress };
}

/** Progress, and the preview of the step's estimate if somebody looks. */
async function showStep(
  { index, estimate }: StepReport,
  plan: Plan,
  previews: boolean,
  { gpu, model }: Host,
  meter: ProgressMeter,
  report: Report,
): Promise<void> {
  const steps = plan.denoise.schedule.timesteps.length;
  meter.report('diffusion', index + 1, steps);
  if (!previews) return;
  const { latentShape } = plan.denoise;
  const frames = previewFrames(await gpu.memory.readFloats(estimate), latentShape, model.manifest.preview);
  report.preview({ step: index + 1, width: plan.shape.latentWidth, height: plan.shape.latentHeight, frames });
}
