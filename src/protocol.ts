import type { ZoetropeError } from './errors';
import type { Acceleration, Sizes } from './manifest';
import type { PlanReport } from './protocol/plan';
import type { AvailableParts, Request, ResolvedRequest } from './request';

export type { PlannedSize, PlannedStage, PlanReport } from './protocol/plan';

/** The one interface that crosses the worker boundary. */

/**
 * What a job is doing, in order. `load` fetches, verifies and uploads weights, and may come again at the expert switch.
 */
export type Stage = 'load' | 'text' | 'diffusion' | 'decode';

/** How far a job is. */
export interface Progress {
  stage: Stage;
  /** Units done within the stage: bytes of `load`, prompts of `text`, steps of `diffusion`, frames of `decode`. */
  done: number;
  /** Units of the stage in all. */
  total: number;
  /** Share of the whole job's predicted work that is done, 0 to 1, never falling. */
  fraction: number;
  /** Milliseconds since the job began. */
  elapsedMs: number;
  /** Milliseconds that the rest will probably take; null until a pace is known. */
  remainingMs: number | null;
}

/** A look at the video while it is still noise: one small picture for each latent frame, RGBA, row-major. */
export interface Preview {
  /** Steps done, from 1. */
  step: number;
  width: number;
  height: number;
  frames: Uint8ClampedArray<ArrayBuffer>[];
}

/** Something the caller may want to know that is neither progress nor an error, e.g. what a left-out field became. */
export interface LogEntry {
  level: 'info' | 'warning';
  message: string;
}

/** Wall-clock milliseconds of a job's stages. */
export interface StageTimings {
  loadMs: number;
  textMs: number;
  diffusionMs: number;
  decodeMs: number;
  totalMs: number;
}

/** Evaluations of the diffusion experts in a run: one a step for each guidance branch that runs. */
export interface EvaluationCounts {
  total: number;
  /** Those that ran the experts' blocks; the others reused what an earlier step gave. */
  computed: number;
  /** Steps, from 0, whose evaluation was left out, for each guidance branch. */
  skipped: { conditional: number[]; unconditional: number[] };
}

/** What streaming weights block by block has cost. */
export interface StreamCosts {
  /** Bytes read and uploaded. */
  uploadedBytes: number;
  /** Milliseconds that the computation waited for a block. */
  stallMs: number;
  /** Blocks asked for, and how many of them were there already. */
  blocks: number;
  ready: number;
}

/** What a job took. */
export interface Timings extends StageTimings {
  evaluations: EvaluationCounts;
  /** Of all networks that were streamed; zeros where none was. */
  streaming: StreamCosts;
}

/** A model folder, opened: what the page shows and the request form needs. */
export interface ModelInfo {
  name: string;
  variant: string;
  license: string;
  sizes: Sizes;
  /** Settings to propose; the endpoint's defaults stay what they are. */
  recommended: Partial<Request>;
  /** Optional parts that are there. */
  available: AvailableParts;
  /** Bytes of all files. */
  sizeBytes: number;
  /** The GPU as the browser names it. */
  gpu: string;
  /** Whether half floats are used for attention. */
  f16: boolean;
  /** SHA-256 of its manifest. */
  id: string;
  /** {@link StoredModel.id} of the stored copy that is read; absent when the model comes from its URL. */
  storedId?: string;
}

/** What the engine gives back for a request. */
export interface GeneratedVideo {
  /** The file; absent when it was written to {@link JobOptions.saveTo}. */
  mp4?: ArrayBuffer;
  /** E.g. `avc1.64000a`. */
  codec: string;
  contentType: 'video/mp4';
  fileName: string;
  width: number;
  height: number;
  frames: number;
  framesPerSecond: number;
  /** The prompt that was used. */
  prompt: string;
  seed: number;
  /** Every field as it was used. */
  request: ResolvedRequest;
  timings: Timings;
  /** Raw frames, RGB, 8 bits, row-major, one after the other; only when asked for. */
  rgb24?: ArrayBuffer;
}

/** Callbacks of one job; each crosses the boundary as a comlink proxy. */
export interface Report {
  progress(progress: Progress): void;
  preview(preview: Preview): void;
  log(entry: LogEntry): void;
  /**
   * Asks an engine of the page's to expand a prompt; undefined when it cannot be had. Only for
   * {@link JobOptions.pageExpanders}.
   */
  expand?(engine: string, prompt: string, language: 'en' | 'zh', instructions: string): Promise<string | undefined>;
}

/**
 * A text classifier for `enable_safety_checker`: `tokenizer.json` (WordPiece) and `model.onnx` at a URL, and what its
 * labels mean.
 */
export interface TextClassifier {
  /** Folder of the two files. */
  url: string;
  /** Shown in refusals. */
  name: string;
  /** Labels in the order of the model's outputs. */
  labels: readonly string[];
  /** Score from which a label refuses a text, 0 to 1; labels without one never do. */
  thresholds: Readonly<Record<string, number>>;
  /** `sigmoid`: labels are independent; `softmax`: they exclude each other. */
  activation: 'sigmoid' | 'softmax';
  /** Most tokens that the model takes; text beyond them is judged in further pieces. */
  maxTokens: number;
}

/**
 * A causal language model for `enable_prompt_expansion`, exported to ONNX as transformers.js reads it: `config.json`,
 * `tokenizer.json`, `tokenizer_config.json` with a chat template, and `onnx/model_<dtype>.onnx` below a URL.
 */
export interface LanguageModel {
  /** Folder of the files. */
  url: string;
  /** Which weights: part of the file's name. Default: `q4f16` where the GPU has half floats, else `q4`. */
  dtype?: 'fp32' | 'fp16' | 'q8' | 'q4' | 'q4f16';
}

/** Extras of a job that are not part of the endpoint's request. */
export interface JobOptions {
  /** {@link StoredJob.id}; for {@link Engine.cancel}. */
  id: string;
  /** Make previews. */
  previews: boolean;
  /** Give back the raw frames too. */
  rgb24: boolean;
  /** Write the video to this file instead of giving it back. Default: give it back. */
  saveTo?: FileSystemFileHandle;
  /** Look at the frames and refuse the video where they are flagged. Default false. */
  checkOutput?: boolean;
  /** Judges prompts behind the rules where the request asks for the checker. Its `url` is absolute. Default: none. */
  textClassifier?: TextClassifier;
  /** The model behind the engine `language-model`. Its `url` is absolute and ends with a slash. Default: none. */
  languageModel?: LanguageModel;
  /** Engines of prompt expansion in their order; those of `pageExpanders` are in the page. Default: the rules alone. */
  expanders?: readonly string[];
  pageExpanders?: readonly string[];
}

/** Buffers on the GPU, in bytes, as the ledger counts them. */
export interface MemoryUse {
  /** Tensors that exist now, ONNX Runtime's scratch among them. */
  liveBytes: number;
  /** Most bytes of tensors at a time since the engine started. */
  peakBytes: number;
  /** Other buffers that exist now: parameters of kernels, ONNX Runtime's uniforms. Some kilobytes. */
  runtimeBytes: number;
  /** Buffers that exist now to carry data between CPU and GPU. */
  stagingBytes: number;
  /** Most bytes of all buffers of the device at a time since the engine started. */
  devicePeakBytes: number;
}

/** The worker's side. Every rejection is a {@link ZoetropeError}. */
export interface Engine {
  /**
   * Opens a model and checks device and encoder; weights are loaded by the first job.
   * @param modelUrl of its folder, or `stored:<id>`.
   * @param memoryBudgetBytes what a job may hold on the GPU; Infinity for no bound, null for an estimate. Throws
   * `out-of-memory`   where no request of the model fits.
   * @param partsUrl of the folder that holds the optional parts' folders.
   */
  open(modelUrl: string, memoryBudgetBytes: number | null, partsUrl: string): Promise<ModelInfo>;
  /** What a request would take, before anything is downloaded for it. */
  plan(request: Request): Promise<PlanReport>;
  /**
   * Makes a video. One job runs at a time; later ones wait. What it takes to go on after a crash is kept until it ends.
   */
  generate(request: Request, options: JobOptions, report: Report): Promise<GeneratedVideo>;
  /** Runs the kept job that `options.id` names, from the last step that was kept. */
  resume(options: JobOptions, report: Report): Promise<GeneratedVideo>;
  /**
   * Measures what `acceleration` goes by: a run of the request's steps without a video. Takes its turn among the jobs.
   */
  calibrate(request: Request, options: JobOptions, report: Report): Promise<Acceleration>;
  /** Ends a job with `aborted`: at once if it waits, after the dispatch in flight if it runs. */
  cancel(id: string): void;
  memory(): Promise<MemoryUse>;
  /** Destroys the device and what is on it: a running job goes on from its last step on a new one. */
  reset(): Promise<void>;
}

/** A model in the browser's storage. */
export interface StoredModel {
  /** SHA-256 of its manifest: the same model has the same id wherever it came from. */
  id: string;
  /** Of the manifest, as {@link license} and {@link quantization}; the id where the manifest is damaged. */
  name: string;
  license: string;
  quantization: string;
  /** Model folder that it came from; null when it was imported here, or when that is not known any more. */
  url: string | null;
  /** Bytes of all files. */
  sizeBytes: number;
  /** Bytes of the pieces that are there, each verified when it came. */
  storedBytes: number;
  /**
   * `partial`: a download was paused, or a verification found bad pieces. `damaged`: the manifest itself is gone or
   * changed.
   */
  state: 'complete' | 'partial' | 'damaged';
  /** Being downloaded, verified or repaired, here or in another tab. */
  busy: boolean;
}

/** A video of this origin that is not finished. */
export interface StoredJob {
  id: string;
  /** `running`: in whatever tab. `interrupted`: it has begun, and the tab, the browser or the GPU went away. */
  state: 'waiting' | 'running' | 'interrupted';
  /**
   * Every field as it is used once the job has begun, with the seed that was drawn; before that, as it was asked for.
   */
  request: Request;
  /** Milliseconds since 1970. */
  createdMs: number;
  /** Steps that need not be computed again, of `request.num_inference_steps`. */
  stepsDone: number;
  /** What the job needs to be opened: SHA-256 of its manifest, its name, and where it was. */
  model: { id: string; name: string; url: string };
  /** Bytes on the disk. */
  storedBytes: number;
}

/** Storage of this origin. */
export interface StorageUse {
  usedBytes: number;
  /** What the browser lets this origin use in all. */
  quotaBytes: number;
  /** Whether the browser keeps what is stored when the disk gets full. */
  persisted: boolean;
}

/** How far a download, import, verification or repair is. */
export interface StoreProgress {
  /** {@link StoredModel.id}, or of an import the id of `UnfinishedImport`. */
  id: string;
  name: string;
  /**
   * `waiting`: another tab downloads or imports the same model. `retrying`: the server failed or asks for patience, see
   * {@link note}. Bytes of `importing` are the sources', all others the model's.
   */
  state: 'waiting' | 'downloading' | 'retrying' | 'verifying' | 'importing';
  doneBytes: number;
  totalBytes: number;
  /** Over the last ten seconds; null until it is known. */
  bytesPerSecond: number | null;
  /** Milliseconds that the rest will probably take; null until a pace is known. */
  remainingMs: number | null;
  /** Sentence for a person; empty when there is nothing to say. */
  note: string;
}

/** What a verification found. */
export interface Verification {
  /** Whether every piece is there and as the manifest states. */
  complete: boolean;
  /** Pieces that were not as stated and will be fetched again by a repair. */
  broken: { path: string; begin: number; end: number }[];
  /** Bytes that were read and are as stated. */
  verifiedBytes: number;
}

/** The store of models, in a worker of its own. Every rejection is a {@link ZoetropeError}. */
export interface ModelStore {
  list(): Promise<StoredModel[]>;
  storage(): Promise<StorageUse>;
  /**
   * Downloads a model folder, or continues to. Gives the {@link StoredModel.id}. `job` identifies the work for
   * {@link stop}.
   */
  download(url: string, job: string, report: (progress: StoreProgress) => void): Promise<string>;
  verify(id: string, job: string, report: (progress: StoreProgress) => void): Promise<Verification>;
  /** Verifies, and fetches what is broken or missing from where the model came from. */
  repair(id: string, job: string, report: (progress: StoreProgress) => void): Promise<Verification>;
  delete(id: string): Promise<void>;
  /** Ends the work with `aborted`. What is verified stays. */
  stop(job: string): void;
}

/** The worker's list of unfinished jobs. Every rejection is a {@link ZoetropeError}. */
export interface JobList {
  list(): Promise<StoredJob[]>;
  /** Puts a request for the open model at the end of the line. Gives the {@link StoredJob.id}. */
  add(request: Request, checkOutput: boolean): Promise<string>;
  move(id: string, position: number): Promise<void>;
  /** Forgets a job; one that runs in this worker ends with `aborted`. */
  remove(id: string): Promise<void>;
}

/** What the engine's worker exposes. */
export interface WorkerSide extends Engine {
  readonly jobs: JobList;
}
