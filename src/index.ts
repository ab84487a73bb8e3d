import { wrap } from 'comlink';
import type { FalProxy, ServeFalOptions } from '../workers/service-host';
import { addressOf } from './client/address';
import { EXPANSION_ORDER, type ExpandPrompt, type ExpansionEngineName } from './client/expansion';
import { type CalibrateOptions, calibrate, follow, type GenerateOptions, type Generation } from './client/generation';
import { createJobs, type Jobs } from './client/jobs';
import { startWorker, watchWorker } from './client/link';
import { plain } from './client/plain';
import { ZoetropeError } from './errors';
import type { Acceleration } from './manifest';
import type { LanguageModel, MemoryUse, ModelInfo, PlanReport, TextClassifier, WorkerSide } from './protocol';
import { carryErrors } from './protocol/errors';
import type { Request } from './request/fields';

export type { ExpandPrompt, ExpansionEngineName } from './client/expansion';
export type { CalibrateOptions, GenerateOptions, Generation, VideoFile } from './client/generation';
export type { Jobs, ResumeOptions } from './client/jobs';
export { type Models, models } from './client/models';
export type { ImportInput, StoreOptions } from './client/options';
export { type ErrorDetail, ZoetropeError, type ZoetropeErrorCode } from './errors';
export { ApiError, ValidationError } from './fal/api-error';
export { createFal, type Fal, type FalQueue, type SubscribeOptions } from './fal/client';
export { createHosted, type HostedAccess } from './fal/hosted';
export type { QueueStatus, RequestLog } from './fal/status';
export type { ImportOutlook, Inspection } from './import/inspect';
export type { ImportSettings, StoredPart, UnfinishedImport } from './import/protocol';
export type { Acceleration, MagnitudeRatios } from './manifest';
export type {
  EvaluationCounts,
  LanguageModel,
  LogEntry,
  MemoryUse,
  ModelInfo,
  PlannedSize,
  PlannedStage,
  PlanReport,
  Preview,
  Progress,
  Stage,
  StageTimings,
  StorageUse,
  StoredJob,
  StoredModel,
  StoreProgress,
  TextClassifier,
  Timings,
  Verification,
} from './protocol';
export { type Request, type RequestField, type ResolvedRequest, requestFields } from './request/fields';

/** How to open a model. */
export interface LoadOptions {
  /**
   * URL of a model folder, the one that holds `zoetrope.json`; relative to the page. Where {@link models} has stored
   * the same model it is read from there, and without network too. Nothing is stored by loading. `stored:<id>` opens a
   * stored model by its id, the only address of an imported one.
   */
  model: string;
  /**
   * URL of the folder that holds the optional parts (`rife/`, `film/`, `frames-check/`). A part that is not there is
   * looked for in this browser's storage. Default: the folder that the model's lies in; for `stored:` models, `models/`
   * beside the page.
   */
  parts?: string;
  /**
   * Bytes that a job may hold on the GPU, above 0; Infinity for no bound. Where the whole model does not fit, networks
   * take turns or are streamed block by block, and further measures are taken; a request that does not fit even so is
   * refused with `out-of-memory`, before anything is downloaded for it. Default: 8 GB, or 70 % of the machine's memory
   * where the browser tells that it has less than 8 GiB, since WebGPU does not tell what the GPU has.
   */
  memoryBudgetBytes?: number;
  /** Rewrites prompts where a request says `enable_prompt_expansion`. Default: none of yours. */
  expandPrompt?: ExpandPrompt;
  /**
   * A language model that rewrites prompts, `url` relative to the page; fetched only when a request asks for it.
   * Default: none.
   */
  languageModel?: LanguageModel;
  /**
   * Judges prompts behind the rules where a request says `enable_safety_checker`; `url` relative to the page. Default:
   * none.
   */
  textClassifier?: TextClassifier;
  /**
   * Which engines of prompt expansion are asked, in order. Default: yours, the browser's own model where it is there,
   * {@link languageModel}, the rules.
   */
  expansion?: readonly ExpansionEngineName[];
  /** The engine's worker. Default: the one that ships with the package. */
  worker?: Worker;
}

/** An opened model in a worker of its own. */
export interface Zoetrope {
  readonly model: ModelInfo;
  /**
   * Makes a video. Jobs run one after the other. Rejects with {@link ZoetropeError} only. A lost GPU device is replaced
   * and the job goes on; after a crash of the tab it is among {@link jobs}.
   */
  generate(request: Request, options?: GenerateOptions): Promise<Generation>;
  /**
   * What a request would take in GPU memory and time, and how it would be held, or why it is refused and what fits.
   * Nothing is downloaded for it. The first call measures the device for about a second. Throws `bad-request` and
   * `missing-component`.
   */
  plan(request: Request): Promise<PlanReport>;
  /**
   * Videos that are not finished, of all tabs of this site: those that were interrupted, and those that wait in line.
   */
  readonly jobs: Jobs;
  /**
   * Measures what `acceleration: "regular"` goes by, for the `acceleration` of the model's `zoetrope.json`: runs the
   * request's steps once with every one computed, and makes no video. {@link ZoetropeError} `bad-request` where a
   * guidance scale is 1 or an expert has fewer than two steps.
   */
  calibrate(request: Request, options?: CalibrateOptions): Promise<Acceleration>;
  /** GPU buffers in bytes, now and at their highest. */
  memory(): Promise<MemoryUse>;
  /** Frees the GPU device with everything on it. A running job goes on from its last step on a new one. */
  reset(): Promise<void>;
  /** Ends the worker; pending jobs reject with `worker-died`. One that ran can be continued. */
  close(): void;
}

carryErrors();

/**
 * Opens a model folder in a new worker. Throws `unsupported-device` without WebGPU, `unsupported-codec` without a video
 * encoder, `unreadable-source`, `corrupt-data` or `bad-checkpoint` when the folder is not usable, `out-of-memory` where
 * no request fits.
 */
export async function load({
  model,
  parts,
  memoryBudgetBytes,
  expandPrompt,
  expansion = EXPANSION_ORDER,
  textClassifier,
  languageModel,
  worker: given,
}: LoadOptions): Promise<Zoetrope> {
  if (memoryBudgetBytes !== undefined && !(memoryBudgetBytes > 0)) {
    throw new ZoetropeError('bad-request', `memoryBudgetBytes is a number above 0, got ${memoryBudgetBytes}.`);
  }
  const address = addressOf(model);
  const partsAddress = partsUrl(address, parts);
  const worker = given ?? startWorker();
  const engine = wrap<WorkerSide>(worker);
  const { call, kill } = watchWorker(worker, 'Load the model again.');
  try {
    const info = await call(engine.open(address, memoryBudgetBytes ?? null, partsAddress));
    const prompts = { expansion, expandPrompt, textClassifier, languageModel };
    return {
      model: info,
      generate: async (request, options) => {
        const sent = plain(request);
        return follow(engine, call, prompts, crypto.randomUUID(), options, (job, report) =>
          engine.generate(sent, job, report),
        );
      },
      plan: async (request) => call(engine.plan(plain(request))),
      jobs: createJobs(engine, call, info, (id, options) =>
        follow(engine, call, prompts, id, options, (job, report) => engine.resume(job, report)),
      ),
      calibrate: async (request, options) => calibrate(engine, call, plain(request), options),
      memory: () => call(engine.memory()),
      reset: () => call(engine.reset()),
      close: () => kill('The engine was closed.'),
    };
  } catch (error) {
    kill('The model could not be opened.');
    throw error;
  }
}

/** Where the optional parts of the model at an address are looked for. */
function partsUrl(model: string, parts: string | undefined): string {
  if (parts !== undefined) return addressOf(parts);
  if (model.startsWith('stored:')) return addressOf('models/');
  return addressOf('../', model.endsWith('/') ? model : `${model}/`);
}

/**
 * Answers fal's queue API under `api/fal/proxy` of this site by the given engine, so that the unmodified
 * `@fal-ai/client` runs on it: `fal.config({ proxyUrl })`. Needs `service.js` of this package beside the page. Throws
 * `unsupported-device` without service workers, `unreadable-source` without `service.js`, `bad-request` where it lies
 * elsewhere than beside the page or above it.
 */
export async function serveFal(zoetrope: Zoetrope, options: ServeFalOptions = {}): Promise<FalProxy> {
  const host = await import('../workers/service-host'); // fetched by those who use it only
  return host.serveFal(zoetrope, options);
}
