import { expose, transfer } from 'comlink';
import { throwIfAborted, ZoetropeError } from '../src/errors';
import type { ExpansionEngine } from '../src/expansion/engine';
import { type Gpu, requestGpu } from '../src/gpu/device';
import { Ort } from '../src/gpu/ort';
import { type OptionalParts, residentModel } from '../src/model';
import type { PartName } from '../src/part';
import { generate, type Model } from '../src/pipeline';
import { carryErrors, type JobOptions, type ModelInfo, type Report, type WorkerSide } from '../src/protocol';
import type { AvailableParts, Request } from '../src/request';
import type { TextChecker } from '../src/safety/checker';
import { type ModelCopy, openCopy } from '../src/store/copy';
import { httpFolder } from '../src/store/http';
import { openModel, openPart, type VerifiedModel, type VerifiedPart } from '../src/store/verified';
import { chooseEncoder } from '../src/video/encode';
import { encoderCandidates } from '../src/video/levels';
import { openStorage, store } from './store';

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
/** URL of the model's folder, with its slash. */
let modelFolder = '';
/** Optional parts beside the model. */
let parts: OptionalParts = {};
/** What a job may hold on the GPU. */
let budgetBytes = Number.POSITIVE_INFINITY;
let session: Promise<Session> | undefined;
/** Resolves when every job so far is over, however it ended. */
let turn: Promise<unknown> = Promise.resolve();
const jobs = new Map<string, AbortController>();

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

/** The part at `../<part>/` of the model. Whatever lies there instead, such as a server's page for what it does not have, is none. */
async function findPart(modelUrl: string, part: PartName): Promise<VerifiedPart | undefined> {
  const folder = new URL(`../${part}/`, modelUrl.endsWith('/') ? modelUrl : `${modelUrl}/`);
  try {
    return await openPart(httpFolder(folder.href), part);
  } catch (error) {
    if (error instanceof ZoetropeError && ['unreadable-source', 'bad-checkpoint'].includes(error.code))
      return undefined;
    throw error;
  }
}

function currentSession(): Promise<Session> {
  session ??= startSession().catch((error: unknown) => {
    session = undefined;
    throw error;
  });
  return session;
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

/** Runs jobs one after the other. A job that is cancelled while it waits rejects at once and never starts. */
async function inTurn<T>(signal: AbortSignal, job: () => Promise<T>): Promise<T> {
  const before = turn;
  let end: () => void = () => undefined;
  turn = Promise.all([before, new Promise<void>((resolve) => (end = resolve))]);
  try {
    await Promise.race([before, new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))]);
    throwIfAborted(signal);
    return await job();
  } finally {
    end();
  }
}

/** The rules of checker and expansion come in files of their own, which most jobs do not need. */
const RULE_CHECKER: TextChecker = {
  name: 'rules',
  check: async (text) => (await import('../src/safety/rules')).ruleChecker.check(text),
};
const RULE_ENGINE: ExpansionEngine = {
  name: 'rules',
  trusted: true,
  expand: async (prompt, context) => (await import('../src/expansion/rules')).ruleEngine.expand(prompt, context),
};

/** The engines that a job asks for; those of the page are called across the boundary. */
function expansionEngines(
  { expanders = ['rules'], pageExpanders = [], languageModel }: JobOptions,
  report: Report,
  { ort, gpu }: Session,
): ExpansionEngine[] {
  return expanders.flatMap((name) => {
    if (name === 'rules') return [RULE_ENGINE];
    if (name === 'language-model') {
      if (!languageModel) return [];
      const expand: ExpansionEngine['expand'] = async (prompt, context) => {
        const { languageModelEngine } = await import('../src/expansion/language-model');
        return languageModelEngine(languageModel, ort, gpu.f16).expand(prompt, context);
      };
      return [{ name, expand }];
    }
    if (!pageExpanders.includes(name)) return [];
    const expand: ExpansionEngine['expand'] = async (prompt, { language, instructions }) =>
      report.expand?.(name, prompt, language, instructions);
    return [{ name, expand }];
  });
}

/** The rules, then the caller's classifier. */
function textCheckers({ textClassifier }: JobOptions, ort: Ort): TextChecker[] {
  if (!textClassifier) return [RULE_CHECKER];
  const check: TextChecker['check'] = async (text, signal) => {
    const { classifierAt } = await import('../src/safety/classifier');
    return classifierAt(httpFolder(textClassifier.url), ort, textClassifier).check(text, signal);
  };
  return [RULE_CHECKER, { name: textClassifier.name, check }];
}

async function runJob(request: Request, options: JobOptions, report: Report, controller: AbortController) {
  const session = await currentSession();
  const { gpu, ort, model } = session;
  const host = {
    gpu,
    ort,
    model,
    video: globalThis,
    available: availableParts(),
    safety: textCheckers(options, ort),
    openPictures: async () => {
      const { openPictureModel } = await import('../src/safety/pictures');
      return openPictureModel(httpFolder(new URL('../frames-check/', modelFolder).href), ort);
    },
    expansion: expansionEngines(options, report, session),
    budgetBytes,
    now: () => performance.now(),
    randomSeed: () => crypto.getRandomValues(new Uint32Array(1))[0]!,
    signal: controller.signal,
  };
  const lost = gpu.lost.then((error): never => {
    controller.abort(error); // Ends what still runs on the dead device.
    throw error;
  });
  lost.catch(() => undefined);
  return Promise.race([generate(request, options, host, report), lost]);
}

const engine: WorkerSide = {
  store,

  async open(modelUrl, memoryBudgetBytes) {
    budgetBytes = memoryBudgetBytes;
    copy?.release();
    copy = undefined;
    const opening = openCopy(await openStorage(), modelUrl, httpFolder(modelUrl)).then(async (found) => {
      copy = found;
      return openModel(found.folder);
    });
    const [opened, film, rife] = await Promise.all([opening, findPart(modelUrl, 'film'), findPart(modelUrl, 'rife')]);
    // A browser without a codec should say so before a person writes a prompt.
    const [width, height] = opened.manifest.sizes['480p']['16:9'];
    const probe = { width, height, framesPerSecond: 16, quality: 'high', writeMode: 'balanced' } as const;
    await chooseEncoder(globalThis, encoderCandidates(probe));
    model = opened;
    modelFolder = modelUrl.endsWith('/') ? modelUrl : `${modelUrl}/`;
    parts = { ...(film && { film }), ...(rife && { rife }) };
    const { gpu } = await currentSession();
    return modelInfo(opened, gpu);
  },

  async generate(request, options, report) {
    const controller = new AbortController();
    jobs.set(options.id, controller);
    const job = inTurn(controller.signal, () => runJob(request, options, report, controller));
    try {
      const video = await job;
      return transfer(video, video.rgb24 ? [video.mp4, video.rgb24] : [video.mp4]);
    } finally {
      jobs.delete(options.id);
    }
  },

  cancel(id) {
    jobs.get(id)?.abort();
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

function modelInfo({ manifest, sizeBytes }: VerifiedModel, gpu: Gpu): ModelInfo {
  return {
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
