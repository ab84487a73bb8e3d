import { type ProxyMarked, proxy, type Remote } from 'comlink';
import { throwIfAborted } from '../errors';
import type { Acceleration } from '../manifest';
import type {
  GeneratedVideo,
  JobOptions,
  LanguageModel,
  LogEntry,
  Preview,
  Progress,
  Report,
  TextClassifier,
  Timings,
  WorkerSide,
} from '../protocol';
import type { Request, ResolvedRequest } from '../request';
import { addressOf } from './address';
import { type ExpandPrompt, type ExpansionEngineName, pageEngines } from './expansion';
import { guard } from './link';

/** A job as the page follows it, and what comes of it. */

/** What `LoadOptions` says about prompts. */
export interface PromptOptions {
  expansion: readonly ExpansionEngineName[];
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
   * Write the video to this file, from `showSaveFilePicker()` or the origin's own file system; `video.blob` is then
   * that file. With `video_write_mode: "fast"` it is a fragmented MP4 that grows while frames are made, so that no copy
   * of it is in memory. What the file held before stays if the job does not end well. Default: the video is kept in
   * memory.
   */
  saveTo?: FileSystemFileHandle;
  /**
   * Look at eight frames and reject with `content-policy-violation` where they are flagged; an extra of ours, which
   * needs the classifier's files at `../frames-check/` of the model. Default false.
   */
  checkOutput?: boolean;
}

/**
 * A file in the shape of fal's answer; `url` is a blob URL that lives until `URL.revokeObjectURL` or the end of the
 * page.
 */
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

/** The absolute URL of a folder, with its slash. */
function folderUrl(url: string): string {
  const href = addressOf(url);
  return href.endsWith('/') ? href : `${href}/`;
}

/** Follows a job from its start to its video. @param start sends it to the engine. */
export async function follow(
  engine: Remote<WorkerSide>,
  call: <T>(pending: Promise<T>) => Promise<T>,
  { expansion, expandPrompt, textClassifier, languageModel }: PromptOptions,
  id: string,
  options: GenerateOptions = {},
  start: (job: JobOptions, report: Report & ProxyMarked) => Promise<GeneratedVideo>,
): Promise<Generation> {
  const { signal, onProgress, onPreview, onLog, rgb24 = false, checkOutput = false, saveTo } = options;
  throwIfAborted(signal);
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
    const file = saveTo && { saveTo };
    const made = await call(start({ id, previews, rgb24, checkOutput, ...expanders, ...models, ...file }, report));
    const blob = made.mp4 ? new Blob([made.mp4], { type: made.contentType }) : await call(saveTo!.getFile());
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

/** Extras of a measurement. */
export type CalibrateOptions = Pick<GenerateOptions, 'signal' | 'onProgress'>;

/** Follows a measurement to its ratios. */
export async function calibrate(
  engine: Remote<WorkerSide>,
  call: <T>(pending: Promise<T>) => Promise<T>,
  request: Request,
  { signal, onProgress }: CalibrateOptions = {},
): Promise<Acceleration> {
  throwIfAborted(signal);
  const id = crypto.randomUUID();
  const cancel = () => void engine.cancel(id).catch(() => undefined);
  signal?.addEventListener('abort', cancel, { once: true });
  const report = proxy({ progress: guard(onProgress), preview: () => undefined, log: () => undefined });
  try {
    return await call(engine.calibrate(request, { id, previews: false, rgb24: false }, report));
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}
