import type { IncomingMessage } from 'node:http';
import { dirname, join, resolve } from 'node:path';
import type { Browser } from 'playwright-core';
import { type ErrorDetail, messageOf, ZoetropeError, type ZoetropeErrorCode } from '../errors';
import type { load } from '../index';
import type { PartName } from '../part';
import type { Progress } from '../protocol';
import { findBrowser, startBrowser } from './browser';
import { isModelFolder, modelsFolder, pageFolder } from './installation';
import { startServer } from './server';

/** Work of the library in the built page, in a browser without a window. */

/** What the page's script sees: the library, and a function of ours. */
export interface PageScope {
  zoetrope?: { load: typeof load };
  reportProgress(progress: Progress): void;
}

/** Errors of a page lose everything but their text on the way, so a script gives back what they were. */
export type Failed = { error: { code: ZoetropeErrorCode; message: string; detail: readonly ErrorDetail[] } };

/** How a script is run. */
export interface PageJob<Job, Result> {
  /** Runs inside the page, so it uses nothing of its module. */
  script: (job: Job) => Promise<Result | Failed>;
  /** What the script is given. @param model URL of the model's folder. */
  job: (model: string) => Job;
  /** Model folder or URL of one. Default: the demo model of this package. */
  model?: string | undefined;
  /** Takes what the script PUTs to `/upload/<name>`. */
  receive?: (name: string, body: IncomingMessage) => Promise<void>;
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Ends the job with `aborted`. */
  signal?: AbortSignal | undefined;
}

/** Runs a script in the page. Throws `ZoetropeError`. */
export async function runInPage<Job, Result>(options: PageJob<Job, Result>): Promise<Result> {
  const { signal } = options;
  const model = locateModel(options.model);
  const server = await startServer({
    folders: {
      '/': pageFolder(),
      '/model/': model.folder ?? modelsFolder(),
      '/film/': interpolatorOf(model.folder, 'film'),
      '/rife/': interpolatorOf(model.folder, 'rife'),
    },
    ...(options.receive && { receive: options.receive }),
  });
  let browser: Browser | undefined;
  try {
    signal?.throwIfAborted();
    browser = await startBrowser(await findBrowser());
    const job = options.job(model.url ?? new URL('model/', server.url).href);
    const result = await Promise.race([drive(browser, server.url, options, job), rejection(signal)]);
    if (!isFailed(result)) return result;
    const { code, message, detail } = result.error;
    throw new ZoetropeError(code, message, { detail });
  } catch (error) {
    if (signal?.aborted) throw new ZoetropeError('aborted', 'The job was cancelled.', { cause: error });
    throw error;
  } finally {
    await browser?.close().catch(() => undefined);
    await server.close();
  }
}

const isFailed = (result: unknown): result is Failed =>
  typeof result === 'object' && result !== null && 'error' in result;

/** A folder to serve, or the URL of one that is served elsewhere. Throws `unreadable-source` for what is neither. */
export function locateModel(model: string | undefined): { folder?: string; url?: string } {
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

/** Never settles without a signal. */
function rejection(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason), { once: true }));
}

/** Opens the page and runs the script in it. */
async function drive<Job, Result>(
  browser: Browser,
  url: string,
  { script, onProgress }: PageJob<Job, Result>,
  job: Job,
): Promise<Result | Failed> {
  const problems: string[] = [];
  try {
    const page = await browser.newPage();
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('crash', () => problems.push('the page crashed'));
    await page.exposeFunction('reportProgress', (progress: Progress) => onProgress?.(progress));
    await page.goto(`${url}?idle`);
    return await page.evaluate(script as (job: unknown) => Promise<Result | Failed>, job);
  } catch (cause) {
    const why = [messageOf(cause), ...problems].join('; ');
    throw new ZoetropeError('worker-died', `The browser ended before the work was done: ${why}`, { cause });
  }
}
