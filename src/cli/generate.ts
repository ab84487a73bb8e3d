import { createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { basename, dirname, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { Command } from 'commander';
import type { Browser } from 'playwright-core';
import { type ErrorDetail, messageOf, ZoetropeError, type ZoetropeErrorCode } from '../errors';
import type { Generation, load } from '../index';
import type { PartName } from '../part';
import type { Progress } from '../protocol';
import type { Request } from '../request';
import { findBrowser, startBrowser } from './browser';
import { addRequestFlags, requestFromFlags } from './flags';
import { isModelFolder, modelsFolder, pageFolder } from './installation';
import { progressView } from './progress';
import { startServer } from './server';

/** `zoetrope generate`: the built page in a browser without a window, driven from here. */

/** What `zoetrope generate` takes beside the request. */
export interface GenerateArguments {
  /** MP4 file to write. */
  out: string;
  /** File for the raw frames: RGB, 8 bits, row-major, one after the other. */
  frames?: string;
  /** Model folder or URL of one. Default: the demo model of this package. */
  model?: string;
  /** Ends the job with `aborted`. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

/** The endpoint's answer with a path for a URL; `--json` prints it. */
export type Answer = Pick<Generation, 'prompt' | 'seed' | 'timings' | 'request' | 'codec'> & {
  video: { url: string; content_type: string; file_name: string; file_size: number };
};

/** What the page's script sees: the library, and a function of ours. */
interface PageScope {
  zoetrope?: { load: typeof load };
  reportProgress(progress: Progress): void;
}

/** A result or an error; errors of a page lose everything but their text on the way. */
type PageResult =
  | { answer: Omit<Answer, 'video'> & { video: Omit<Answer['video'], 'url'> } }
  | { error: { code: ZoetropeErrorCode; message: string; detail: readonly ErrorDetail[] } };

/** Makes a video and writes it. Throws `ZoetropeError`; files that were begun are removed. */
export async function runGenerate(request: Request, args: GenerateArguments): Promise<Answer> {
  const { signal } = args;
  const uploads = new Map<string, string>([[crypto.randomUUID(), resolve(args.out)]]);
  if (args.frames !== undefined) uploads.set(crypto.randomUUID(), resolve(args.frames));
  const [videoUpload, framesUpload] = uploads.keys();
  const model = locateModel(args.model);
  const server = await startServer({
    folders: {
      '/': pageFolder(),
      '/model/': model.folder ?? modelsFolder(),
      '/film/': interpolatorOf(model.folder, 'film'),
      '/rife/': interpolatorOf(model.folder, 'rife'),
    },
    receive: (name, body) => receive(uploads, name, body),
  });
  let browser: Browser | undefined;
  try {
    signal?.throwIfAborted();
    browser = await startBrowser(await findBrowser());
    const job = drive(browser, server.url, args.onProgress, {
      request,
      model: model.url ?? new URL('model/', server.url).href,
      video: `/upload/${videoUpload}`,
      frames: framesUpload === undefined ? null : `/upload/${framesUpload}`,
    });
    const result = await Promise.race([job, rejection(signal)]);
    if ('error' in result) {
      const { code, message, detail } = result.error;
      throw new ZoetropeError(code, message, { detail });
    }
    const { answer } = result;
    const url = resolve(args.out);
    return { ...answer, video: { ...answer.video, url, file_name: basename(url) } };
  } catch (error) {
    if (signal?.aborted) throw new ZoetropeError('aborted', 'The generation was cancelled.', { cause: error });
    throw error;
  } finally {
    await browser?.close().catch(() => undefined);
    await server.close();
    for (const path of uploads.values()) await rm(partOf(path), { force: true });
  }
}

/** A folder to serve, or the URL of one that is served elsewhere. */
function locateModel(model: string | undefined): { folder?: string; url?: string } {
  if (model !== undefined && /^https?:\/\//.test(model)) return { url: model.endsWith('/') ? model : `${model}/` };
  const folder = resolve(model ?? `${modelsFolder()}/demo`);
  if (isModelFolder(folder)) return { folder };
  throw new ZoetropeError(
    'unreadable-source',
    `${folder} is no model folder: it has no zoetrope.json. Make one with: zoetrope import --from <checkpoint> --to <folder>`,
  );
}

/** The interpolator beside a model, else the one of this package. */
function interpolatorOf(model: string | undefined, part: PartName): string {
  const beside = model === undefined ? undefined : join(dirname(model), part);
  return beside !== undefined && isModelFolder(beside) ? beside : join(modelsFolder(), part);
}

const partOf = (path: string) => `${path}.part`;

/** Writes an upload beside its goal and renames, so that a file by its own name is whole. */
async function receive(uploads: ReadonlyMap<string, string>, name: string, body: IncomingMessage): Promise<void> {
  const path = uploads.get(name);
  if (path === undefined) throw new ZoetropeError('unreadable-source', 'There is no such upload.');
  await pipeline(body, createWriteStream(partOf(path)));
  await rename(partOf(path), path);
}

/** Never settles without a signal. */
function rejection(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason), { once: true }));
}

interface Job {
  request: Request;
  model: string;
  /** Paths to PUT the results to. */
  video: string;
  frames: string | null;
}

/** Opens the page and runs the job in it. */
async function drive(
  browser: Browser,
  url: string,
  onProgress: GenerateArguments['onProgress'],
  job: Job,
): Promise<PageResult> {
  const problems: string[] = [];
  try {
    const page = await browser.newPage();
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('crash', () => problems.push('the page crashed'));
    await page.exposeFunction('reportProgress', (progress: Progress) => onProgress?.(progress));
    await page.goto(`${url}?idle`);
    return await page.evaluate(generateInPage, job);
  } catch (cause) {
    const why = [messageOf(cause), ...problems].join('; ');
    throw new ZoetropeError('worker-died', `The browser ended before the video was made: ${why}`, { cause });
  }
}

/** Runs inside the page, so it uses nothing of this module. */
async function generateInPage({ request, model, video: videoPath, frames: framesPath }: Job): Promise<PageResult> {
  const scope = globalThis as unknown as PageScope;
  const put = async (path: string, body: Blob | ArrayBuffer) => {
    const response = await fetch(path, { method: 'PUT', body });
    if (!response.ok) throw new Error(`the file could not be written: ${await response.text()}`);
  };
  try {
    if (!scope.zoetrope) throw new Error('the page has no globalThis.zoetrope; build it again');
    const zoetrope = await scope.zoetrope.load({ model });
    const made = await zoetrope.generate(request, {
      onProgress: (progress) => scope.reportProgress(progress),
      rgb24: framesPath !== null,
    });
    await put(videoPath, made.video.blob);
    if (framesPath !== null && made.frames) await put(framesPath, made.frames.rgb24);
    const { content_type, file_name, file_size } = made.video;
    const { prompt, seed, timings, request: used, codec } = made;
    return { answer: { video: { content_type, file_name, file_size }, prompt, seed, timings, request: used, codec } };
  } catch (error) {
    const { code, message, detail } = error as ZoetropeError;
    return { error: { code: code ?? 'internal', message: message ?? String(error), detail: detail ?? [] } };
  }
}

/** Flags of {@link generateCommand} that are not fields of the request. */
interface GenerateFlags {
  output: string;
  model?: string;
  frames?: string;
  json?: boolean;
}

/** The `generate` command. Its action rejects with `ZoetropeError`. */
export function generateCommand(): Command {
  const command = new Command('generate')
    .description('Make a video from a prompt in a browser without a window')
    .option('-o, --output <file>', 'MP4 file to write', 'zoetrope.mp4')
    .option('--model <folder or URL>', 'model to use; default: the demo model of this package')
    .option('--frames <file>', 'also write the raw frames: RGB, 8 bits, one after the other')
    .option('--json', 'print the answer, or the error, as JSON on standard output')
    .allowUnknownOption()
    .allowExcessArguments();
  return addRequestFlags(command).action(async (options: GenerateFlags & Record<string, unknown>) => {
    const request = requestFromFlags(options, command.args);
    const interrupted = new AbortController();
    const interrupt = () => interrupted.abort();
    process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
    const view = progressView(process.stderr, options.json === true);
    try {
      const answer = await runGenerate(request, {
        out: options.output,
        ...(options.frames !== undefined && { frames: options.frames }),
        ...(options.model !== undefined && { model: options.model }),
        signal: interrupted.signal,
        onProgress: view.show,
      });
      view.end();
      const { video, seed, timings } = answer;
      const summary = `${options.output}: ${video.file_size} bytes, seed ${seed}, ${(timings.totalMs / 1000).toFixed(1)} s`;
      console.log(options.json ? JSON.stringify(answer, null, 2) : summary);
    } finally {
      view.end();
      process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
    }
  });
}
