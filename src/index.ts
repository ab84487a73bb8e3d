import { proxy, type Remote, wrap } from 'comlink';
import type { FalProxy, ServeFalOptions } from '../workers/service-host';
import { EXPANSION_ORDER, type ExpandPrompt, type ExpansionEngineName, pageEngines } from './client/expansion';
import { guard, startWorker, watchDeath } from './client/link';
import { throwIfAborted, ZoetropeError } from './errors';
import {
  carryErrors,
  type Engine,
  type LanguageModel,
  type LogEntry,
  type MemoryUse,
  type ModelInfo,
  type Preview,
  type Progress,
  type TextClassifier,
  type Timings,
} from './protocol';
import { parseRequest, type Request, type ResolvedRequest } from './request';

export type { ExpandPrompt, ExpansionEngineName } from './client/expansion';
export { type Models, models, type StoreOptions } from './client/models';
export { type ErrorDetail, ZoetropeError, type ZoetropeErrorCode } from './errors';
export { ApiError, ValidationError } from './fal/api-error';
export { createFal, type Fal, type FalQueue, type SubscribeOptions } from './fal/client';
export { createHosted, type HostedAccess } from './fal/hosted';
export type { QueueStatus, RequestLog } from './fal/status';
export type {
  EvaluationCounts,
  LanguageModel,
  LogEntry,
  MemoryUse,
  ModelInfo,
  Preview,
  Progress,
  Stage,
  StageTimings,
  StorageUse,
  StoredModel,
  StoreProgress,
  TextClassifier,
  Timings,
  Verification,
} from './protocol';
export { type Request, type RequestField, type ResolvedRequest, requestFields } from './request';

/** How to open a model. */
export interface LoadOptions {
  /**
   * URL of a model folder, the one that holds `zoetrope.json`; relative to the page. Where {@link models} has stored the same model
   * it is read from there, and without network too. Nothing is stored by loading.
   */
  model: string;
  /**
   * Bytes that a job may hold on the GPU in our own buffers, above 0; ONNX Runtime's scratch memory comes on top. Where the whole
   * model does not fit, networks take turns or are streamed block by block; a request that does not fit even so is refused
   * with `out-of-memory`. Default: no bound, since WebGPU does not tell how much there is.
   */
  memoryBudgetBytes?: number;
  /** Rewrites prompts where a request says `enable_prompt_expansion`. Default: none of yours. */
  expandPrompt?: ExpandPrompt;
  /** A language model that rewrites prompts, `url` relative to the page; fetched only when a request asks for it. Default: none. */
  languageModel?: LanguageModel;
  /** Judges prompts behind the rules where a request says `enable_safety_checker`; `url` relative to the page. Default: none. */
  textClassifier?: TextClassifier;
  /** Which engines of prompt expansion are asked, in order. Default: yours, the browser's own model where it is there, {@link languageModel}, the rules. */
  expansion?: readonly ExpansionEngineName[];
  /** The engine's worker. Default: the one that ships with the package. */
  worker?: Worker;
}

/** What {@link LoadOptions} says about prompts. */
interface PromptOptions {
  expansion?: readonly ExpansionEngineName[];
  expandPrompt?: ExpandPrompt | undefined;
  textClassifier?: TextClassifier | undefined;
  languageModel?: LanguageModel | undefined;
}

/** Per-job extras. */
export interface GenerateOptions {
  /** Ends the job with the code `aborted`, within a step. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  /** Called after every step with small pictures of the clip as it forms. Previews are made only when this is given. */
  onPreview?: (preview: Preview) => void;
  onLog?: (entry: LogEntry) => void;
  /** Also give back the raw RGB24 frames. Default false. */
  rgb24?: boolean;
  /**
   * Look at eight frames and reject with `content-policy-violation` where they are flagged; an extra of ours, which needs the classifier's
   * files at `../frames-check/` of the model. Default false.
   */
  checkOutput?: boolean;
}

/** A file in the shape of fal's answer; `url` is a blob URL that lives until `URL.revokeObjectURL` or the end of the page. */
export interface VideoFile {
  url: string;
  content_type: string;
  file_name: string;
  file_size: number;
  /** The bytes themselves. Not part of fal's answer. */
  blob: Blob;
}

/** The endpoint's answer `{ video, prompt, seed }`, and what we add to it. */
export interface Generation {
  video: VideoFile;
  /** The prompt that was used. */
  prompt: string;
  seed: number;
  timings: Timings;
  /** Every field as it was used. */
  request: ResolvedRequest;
  /** WebCodecs codec string of the video. */
  codec: string;
  /** The finished video, interpolated frames included. */
  width: number;
  height: number;
  frameCount: number;
  framesPerSecond: number;
  /** Raw frames, RGB, 8 bits, row-major; only with {@link GenerateOptions.rgb24}. */
  frames?: { width: number; height: number; count: number; rgb24: ArrayBuffer };
}

/** An opened model in a worker of its own. */
export interface Zoetrope {
  readonly model: ModelInfo;
  /** Makes a video. Jobs run one after the other. Rejects with {@link ZoetropeError} only. */
  generate(request: Request, options?: GenerateOptions): Promise<Generation>;
  /** GPU buffers in bytes, now and at their highest. */
  memory(): Promise<MemoryUse>;
  /** Frees the GPU device with everything on it. A running job rejects with `device-lost`; the next one starts afresh. */
  reset(): Promise<void>;
  /** Ends the worker; pending jobs reject with `worker-died`. */
  close(): void;
}

carryErrors();

/**
 * Opens a model folder in a new worker. Throws `unsupported-device` without WebGPU, `unsupported-codec` without a video
 * encoder, `unreadable-source`, `corrupt-data` or `bad-checkpoint` when the folder is not usable.
 */
export async function load({
  model,
  memoryBudgetBytes = Number.POSITIVE_INFINITY,
  expandPrompt,
  expansion = EXPANSION_ORDER,
  textClassifier,
  languageModel,
  worker = startWorker(),
}: LoadOptions): Promise<Zoetrope> {
  if (!(memoryBudgetBytes > 0)) {
    throw new ZoetropeError('bad-request', `memoryBudgetBytes is a number above 0, got ${memoryBudgetBytes}.`);
  }
  const engine = wrap<Engine>(worker);
  const death = watchDeath(worker, 'Load the model again.');
  /** comlink never settles calls to a dead worker, so every call races against its death. */
  const call = <T>(pending: Promise<T>): Promise<T> => Promise.race([pending, death.promise]);
  try {
    const info = await call(engine.open(new URL(model, document.baseURI).href, memoryBudgetBytes));
    return {
      model: info,
      generate: (request, options) =>
        generate(engine, call, { expansion, expandPrompt, textClassifier, languageModel }, request, options),
      memory: () => call(engine.memory()),
      reset: () => call(engine.reset()),
      close: () => {
        worker.terminate();
        death.kill('The engine was closed.');
      },
    };
  } catch (error) {
    worker.terminate();
    throw error;
  }
}

/**
 * Answers fal's queue API under `api/fal/proxy` of this site by the given engine, so that the unmodified `@fal-ai/client` runs on it:
 * `fal.config({ proxyUrl })`. Needs `service.js` of this package beside the page. Throws `unsupported-device` without service workers.
 */
export async function serveFal(zoetrope: Zoetrope, options: ServeFalOptions = {}): Promise<FalProxy> {
  const host = await import('../workers/service-host'); // fetched by those who use it only
  return host.serveFal(zoetrope, options);
}

/** The absolute URL of a folder, with its slash. */
function folderUrl(url: string): string {
  const { href } = new URL(url, document.baseURI);
  return href.endsWith('/') ? href : `${href}/`;
}

async function generate(
  engine: Remote<Engine>,
  call: <T>(pending: Promise<T>) => Promise<T>,
  { expansion = EXPANSION_ORDER, expandPrompt, textClassifier, languageModel }: PromptOptions,
  request: Request,
  options: GenerateOptions = {},
): Promise<Generation> {
  const { signal, onProgress, onPreview, onLog, rgb24 = false, checkOutput = false } = options;
  const checked = parseRequest(request);
  throwIfAborted(signal);
  const id = crypto.randomUUID();
  const cancel = () => void engine.cancel(id).catch(() => undefined);
  signal?.addEventListener('abort', cancel, { once: true });
  const engines = pageEngines(expandPrompt);
  const report = proxy({
    progress: guard(onProgress),
    preview: guard(onPreview),
    log: guard(onLog),
    expand: async (name: string, prompt: string, language: 'en' | 'zh', instructions: string) =>
      engines.get(name)?.expand(prompt, { language, instructions, signal }),
  });
  try {
    const expanders = { expanders: expansion, pageExpanders: [...engines.keys()] };
    const models = {
      ...(textClassifier && { textClassifier: { ...textClassifier, url: folderUrl(textClassifier.url) } }),
      ...(languageModel && { languageModel: { ...languageModel, url: folderUrl(languageModel.url) } }),
    };
    const previews = onPreview !== undefined;
    const made = await call(
      engine.generate(checked, { id, previews, rgb24, checkOutput, ...expanders, ...models }, report),
    );
    const blob = new Blob([made.mp4], { type: made.contentType });
    return {
      video: {
        url: URL.createObjectURL(blob),
        content_type: made.contentType,
        file_name: made.fileName,
        file_size: blob.size,
        blob,
      },
      prompt: made.prompt,
      seed: made.seed,
      timings: made.timings,
      request: made.request,
      codec: made.codec,
      width: made.width,
      height: made.height,
      frameCount: made.frames,
      framesPerSecond: made.framesPerSecond,
      ...(made.rgb24 && {
        frames: { width: made.width, height: made.height, count: made.frames, rgb24: made.rgb24 },
      }),
    };
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}
