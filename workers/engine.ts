import { expose, transfer } from 'comlink';
import { messageOf, throwIfAborted, ZoetropeError } from '../src/errors';
import { type Gpu, requestGpu } from '../src/gpu/device';
import { Ort } from '../src/gpu/ort';
import { type OptionalParts, residentModel } from '../src/model';
import { generate, type Host, type Model } from '../src/pipeline';
import { planVideo, type Refusal } from '../src/plan';
import { deviceBudget, estimateBudget } from '../src/plan/device';
import type { Pace } from '../src/plan/pace';
import type { GeneratedVideo, JobList, JobOptions, LogEntry, ModelInfo, Report, WorkerSide } from '../src/protocol';
import { carryErrors } from '../src/protocol/errors';
import { keep, recovering, type Seen, steadyReport } from '../src/recovery';
import { type AvailableParts, parseRequest, type Request, resolveRequest } from '../src/request';
import { type ModelCopy, openCopy, openStored, storedId } from '../src/store/copy';
import type { StoreHost } from '../src/store/disk';
import { httpFolder } from '../src/store/http';
import type { NewJob } from '../src/store/jobs';
import { findPart } from '../src/store/parts';
import { sleep } from '../src/store/patience';
import { openModel, type VerifiedModel } from '../src/store/verified';
import { chooseEncoder } from '../src/video/encode';
import { encoderCandidates } from '../src/video/levels';
import type { ByteSink } from '../src/video/mp4';
import { keeping, onJobs, type Running } from './jobs';
import { cancelJob, inLine, inTurn, isIdle } from './line';
import { expansionEngines, textCheckers } from './prompts';
import { openStorage } from './store-host';

/** The engine's worker: device, runtime and model live here, and one job runs at a time. */

/** A device with what was put on it. Lost as a whole, made anew as a whole. */
interface Session {
  gpu: Gpu;
  ort: Ort;
  model: Model;
}

let model: VerifiedModel | undefined;
/** Where the model is read from. */
let copy: ModelCopy | undefined;
/** URL of the model's folder with its slash, or `stored:<id>`. */
let modelAddress = '';
/** URL of the folder of optional parts, with its slash. */
let partsFolder = '';
/** Optional parts that were found. */
let parts: OptionalParts = {};
/** Ends the use of parts that are read from the store. */
let releaseParts: (() => void)[] = [];
/** What a job may hold on the GPU. */
let budgetBytes = Number.POSITIVE_INFINITY;
let session: Promise<Session> | undefined;

function openedModel(): VerifiedModel {
  if (!model) throw new ZoetropeError('internal', 'No model is open. Call open() first.');
  return model;
}

/** Optional parts that were found. */
function availableParts(): AvailableParts {
  return {
    film: parts.film !== undefined,
    rife: parts.rife !== undefined,
    promptExpansion: true,
    safetyChecker: true,
  };
}

async function findParts(storage: StoreHost | undefined): Promise<void> {
  for (const release of releaseParts) release();
  parts = {};
  releaseParts = [];
  const [film, rife] = await Promise.all([
    findPart(storage, partsFolder, 'film'),
    findPart(storage, partsFolder, 'rife'),
  ]);
  parts = { ...(film && { film: film.part }), ...(rife && { rife: rife.part }) };
  releaseParts = [film, rife].flatMap((found) => (found ? [found.release] : []));
}

function currentSession(): Promise<Session> {
  session ??= startSession().catch((error: unknown) => {
    session = undefined;
    throw error;
  });
  return session;
}

/** How fast devices are, by their names: a device that was lost comes back with the same name. */
const paces = new Map<string, Pace>();

/** Measures a device once. The caller sees to it that nothing else runs on it. */
async function paceOf({ gpu, ort }: Session, signal: AbortSignal): Promise<Pace> {
  const known = paces.get(gpu.name);
  if (known) return known;
  const { measurePace } = await import('../src/probe');
  const pace = await gpu.job(signal, () => measurePace(gpu, ort, () => performance.now()));
  paces.set(gpu.name, pace);
  return pace;
}

/** Refuses a model none of whose requests fits. Throws `out-of-memory`. */
function requireRoom({ manifest }: VerifiedModel, gpu: Gpu): void {
  const nothing = { film: false, rife: false, promptExpansion: false, safetyChecker: false };
  const least = { prompt: '', num_frames: 17, resolution: '480p', guidance_scale: 1, guidance_scale_2: 1 } as const;
  try {
    planVideo(
      resolveRequest(least, nothing, () => 0),
      manifest,
      deviceBudget(gpu, budgetBytes, undefined),
    );
  } catch (error) {
    // Another shape of picture may still fit.
    const [problem] = error instanceof ZoetropeError ? error.detail : [];
    if ((problem?.ctx as Refusal | undefined)?.nearest) return;
    throw error;
  }
}

async function startSession(): Promise<Session> {
  const opened = openedModel();
  const [{ default: module }, gpu] = await Promise.all([import('../src/gpu/ort-build'), requestGpu(navigator.gpu)]);
  const ort = new Ort(module, gpu);
  const made = { gpu, ort, model: residentModel(gpu, opened, parts) };
  void gpu.lost.then(() => {
    session = undefined;
  });
  return made;
}

/** Milliseconds between asking for an adapter again, which a browser offers when its GPU process has started anew. */
const ADAPTER_WAIT_MS = 1000;
/** How often it is asked for after a loss. */
const ADAPTER_TRIES = 5;
/** How long the remains of an attempt may take to notice that their device is gone. */
const REMAINS_MS = 10_000;

/** A session after lost devices. Throws `device-lost` where the browser gives no adapter any more. */
async function sessionAfter(losses: number, signal: AbortSignal): Promise<Session> {
  for (let tries = 1; ; tries++) {
    try {
      throwIfAborted(signal);
      return await currentSession();
    } catch (error) {
      const gone = error instanceof ZoetropeError && error.code === 'unsupported-device';
      if (!gone || losses === 0) throw error;
      if (tries < ADAPTER_TRIES) {
        await sleep(ADAPTER_WAIT_MS, signal);
        continue;
      }
      throw new ZoetropeError(
        'device-lost',
        `The GPU device was lost, and the browser offers no GPU any more: ${error.message} What was computed is kept. Restart the browser and continue.`,
        { cause: error },
      );
    }
  }
}

/** Throws `storage-unavailable` where the page was not given leave to write to the file. */
async function openFile(handle: FileSystemFileHandle): Promise<ByteSink> {
  try {
    return await handle.createWritable();
  } catch (cause) {
    throw new ZoetropeError(
      'storage-unavailable',
      `The file "${handle.name}" cannot be written to: ${messageOf(cause)}. Ask the person for it with showSaveFilePicker().`,
      { cause },
    );
  }
}

/** Runs a job until it is done, across lost devices and once across a device that ran out of memory. */
async function runJob<T>(
  work: (host: Host, report: Report) => Promise<T>,
  options: JobOptions,
  given: Report,
  signal: AbortSignal,
  running: Running,
): Promise<T> {
  const now = () => performance.now();
  const report = steadyReport(given, now);
  const log = (entry: LogEntry) => report.log(entry);
  const seenNow: { seen?: Seen } = {};
  const checkpoint = keep(running.job, log, () => {
    running.stepsKept++;
    if (seenNow.seen) seenNow.seen.stepsKept++;
  });
  const attempt = async (budget: number, seen: Seen, losses: number) => {
    seenNow.seen = seen;
    const session = await sessionAfter(losses, signal);
    const { gpu, ort, model } = session;
    const lost = new AbortController();
    const host: Host = {
      gpu,
      ort,
      model,
      video: globalThis,
      available: availableParts(),
      safety: textCheckers(options, ort),
      openPictures: async () => {
        const { openPictureModel } = await import('../src/safety/pictures');
        return openPictureModel(httpFolder(new URL('frames-check/', partsFolder).href), ort);
      },
      expansion: expansionEngines(options, report, session),
      checkpoint: {
        ...checkpoint,
        decided: checkpoint.decided,
        load() {
          seen.planned = true; // It is asked for when the plan stands.
          return checkpoint.load();
        },
      },
      budgetBytes: budget,
      ...(options.saveTo && { openFile: () => openFile(options.saveTo!) }),
      // On CPU drivers work is bounded without it.
      pace: gpu.cpu ? paces.get(gpu.name) : await paceOf(session, signal),
      now,
      randomSeed: () => crypto.getRandomValues(new Uint32Array(1))[0]!,
      signal: AbortSignal.any([signal, lost.signal]),
    };
    const loss = gpu.lost.then((error): never => {
      lost.abort(error); // Ends what still runs on the dead device.
      throw error;
    });
    loss.catch(() => undefined);
    const result = work(host, report);
    try {
      return await Promise.race([result, loss]);
    } finally {
      seen.peakBytes = gpu.memory.jobPeakBytes;
      await Promise.race([result.catch(() => undefined), sleep(REMAINS_MS, signal)]);
    }
  };
  return recovering(attempt, { budgetBytes, log, release: () => engine.reset() });
}

/** What a new job is kept as. */
function newJob(id: string, request: Request, checkOutput: boolean): NewJob {
  const opened = openedModel();
  return { id, request, checkOutput, model: { id: opened.id, name: opened.manifest.name, url: modelAddress } };
}

/** Runs the kept job that `options.id` names, or `created`, to its video. */
async function runKept(
  request: Request,
  options: JobOptions,
  report: Report,
  signal: AbortSignal,
  created?: NewJob,
): Promise<GeneratedVideo> {
  const work = (host: Host, steady: Report) => generate(request, options, host, steady);
  const run = (running: Running) => runJob(work, options, report, signal, running);
  const video = await keeping(options.id, signal, (entry) => report.log(entry), run, created);
  const buffers = [video.mp4, video.rgb24].filter((buffer) => buffer !== undefined);
  return transfer(video, buffers);
}

const jobList: JobList = {
  list: () => onJobs((kept) => kept.list()),
  async add(request, checkOutput) {
    const job = newJob(crypto.randomUUID(), parseRequest(request), checkOutput);
    await onJobs((kept) => kept.add(job));
    return job.id;
  },
  move: (id, position) => onJobs((kept) => kept.move(id, position)),
  async remove(id) {
    cancelJob(id);
    await onJobs((kept) => kept.remove(id));
  },
};

const engine: WorkerSide = {
  jobs: jobList,

  async open(modelUrl, memoryBudgetBytes, partsUrl) {
    const { deviceMemory } = navigator as Navigator & { deviceMemory?: number };
    budgetBytes = memoryBudgetBytes ?? estimateBudget(deviceMemory);
    copy?.release();
    copy = undefined;
    const storage = await openStorage();
    const id = storedId(modelUrl);
    partsFolder = partsUrl.endsWith('/') ? partsUrl : `${partsUrl}/`;
    const found = id === undefined ? openCopy(storage, modelUrl, httpFolder(modelUrl)) : openStored(storage, id);
    const opening = found.then(async (found) => {
      copy = found;
      return openModel(found.folder);
    });
    const [opened] = await Promise.all([opening, findParts(storage)]);
    // A browser without a codec should say so before a person writes a prompt.
    const [width, height] = opened.manifest.sizes['480p']['16:9'];
    const probe = { width, height, framesPerSecond: 16, quality: 'high', writeMode: 'balanced' } as const;
    await chooseEncoder(globalThis, encoderCandidates(probe));
    model = opened;
    modelAddress = id !== undefined || modelUrl.endsWith('/') ? modelUrl : `${modelUrl}/`;
    const { gpu } = await currentSession();
    requireRoom(opened, gpu);
    return modelInfo(opened, gpu);
  },

  async plan(request) {
    const resolved = resolveRequest(request, availableParts(), () => 0);
    const current = await currentSession();
    const measure = ({ signal } = new AbortController()) => inTurn(signal, () => paceOf(current, signal));
    // A job that runs is not waited for, and would be measured along.
    const pace = paces.get(current.gpu.name) ?? (isIdle() ? await measure() : undefined);
    const { reportPlan } = await import('../src/plan/report');
    const { gpu, model: held } = current;
    return reportPlan(resolved, held.manifest, deviceBudget(gpu, budgetBytes, pace), 'on this GPU', held.networks);
  },

  async generate(given, options, report) {
    const request = parseRequest(given); // refused at once, before its turn
    return inLine(options.id, (signal) => {
      const job = newJob(options.id, request, options.checkOutput ?? false);
      return runKept(request, options, report, signal, job);
    });
  },

  resume: (options, report) =>
    inLine(options.id, async (signal) => {
      const { request, checkOutput, model: needed } = await onJobs((kept) => kept.find(options.id));
      if (needed.id !== openedModel().id) {
        throw new ZoetropeError(
          'bad-checkpoint',
          `This video belongs to the model "${needed.name}" at ${needed.url}, which is not the one that is open. Load that one.`,
        );
      }
      return runKept(request, { ...options, checkOutput }, report, signal);
    }),

  async calibrate(given, options, report) {
    const request = parseRequest(given);
    return inLine(options.id, (signal) => {
      const work = async (host: Host, steady: Report) =>
        (await import('../src/calibration')).calibrate(request, host, steady);
      return runJob(work, options, report, signal, { job: undefined, stepsKept: 0 });
    });
  },

  cancel(id) {
    cancelJob(id);
  },

  async memory() {
    const { gpu } = await currentSession();
    const { liveBytes, peakBytes, runtimeBytes, stagingBytes, devicePeakBytes } = gpu.memory;
    return { liveBytes, peakBytes, runtimeBytes, stagingBytes, devicePeakBytes };
  },

  async reset() {
    const current = await session?.catch(() => undefined);
    current?.gpu.destroy();
    await current?.gpu.lost;
  },
};

function modelInfo({ id, manifest, sizeBytes }: VerifiedModel, gpu: Gpu): ModelInfo {
  return {
    id,
    name: manifest.name,
    variant: manifest.variant,
    license: manifest.license,
    sizes: manifest.sizes,
    recommended: manifest.recommended,
    available: availableParts(),
    sizeBytes,
    gpu: gpu.name,
    f16: gpu.f16,
    ...(copy?.storedId !== undefined && { storedId: copy.storedId }),
  };
}

carryErrors();
expose(engine);
