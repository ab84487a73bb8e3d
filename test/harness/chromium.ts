import { mkdirSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { findBrowser, startBrowser } from '../../src/cli/browser';
import { type StaticServer, startServer } from '../../src/cli/server';
import type { ErrorDetail } from '../../src/errors';
import type { Generation, Progress, Request, Zoetrope } from '../../src/index';

/** Chromium with the built page, for tests and benches. */

const root = resolve(import.meta.dirname, '../..');

/** The model folder that comes with the repository. */
export const demoModel = resolve(root, 'public/models/demo');

/** An error as it leaves the page. */
export interface PageError {
  code: string;
  message: string;
  detail: readonly ErrorDetail[];
}

declare global {
  /** Tests leave these in the page; `zoetrope` is the page's own. */
  var opened: Zoetrope;
  /** Gives what a promise rejects with; one that resolves is an error of the test. */
  var caught: (promise: Promise<unknown>) => Promise<PageError>;
}

/** A running browser and the server of its pages. */
export interface Chromium {
  browser: Browser;
  /** Ends with `/`. */
  url: string;
  /** Opens a page of the server; its uncaught errors are printed. */
  open(path?: string): Promise<Page>;
  /** Bytes that the page has PUT to `/upload/<name>`; gives each once. */
  take(name: string): Uint8Array<ArrayBuffer>;
  close(): Promise<void>;
}

/**
 * Starts the browser of `@sparticuz/chromium`, or an installed one, with the built page at `/` and the demo model at
 * `/models/demo/`.
 * @param folders further folders by URL prefix.
 * @param further arguments of the browser.
 */
export async function openChromium(
  folders: Record<string, string> = {},
  further: readonly string[] = [],
): Promise<Chromium> {
  const uploads = new Map<string, Uint8Array<ArrayBuffer>>();
  const server: StaticServer = await startServer({
    folders: { '/': resolve(root, 'dist/page'), '/models/demo/': demoModel, ...folders },
    receive: async (name, body) => {
      const chunks: Buffer[] = [];
      for await (const chunk of body) chunks.push(chunk);
      uploads.set(name, new Uint8Array(Buffer.concat(chunks)));
    },
  });
  const browser = await startBrowser(await findBrowser(true), further).catch(async (error) => {
    await server.close();
    throw error;
  });
  return {
    browser,
    url: server.url,
    async open(path = '?idle') {
      const page = await browser.newPage();
      page.on('pageerror', (error) => console.log(`Uncaught in the page: ${error.stack ?? error.message}`));
      await page.addInitScript(() => {
        globalThis.caught = (promise) =>
          promise.then(
            () => Promise.reject(new Error('This resolved, but should have been refused.')),
            ({ code, message, detail }: PageError) => ({ code, message, detail }),
          );
      });
      await page.goto(new URL(path, server.url).href);
      return page;
    },
    take(name) {
      const bytes = uploads.get(name);
      if (!bytes) throw new Error(`The page has put nothing to /upload/${name}.`);
      uploads.delete(name);
      return bytes;
    },
    async close() {
      await browser.close();
      await server.close();
    },
  };
}

/** Opens a model in the page for the functions below. */
export async function openModel(page: Page, model = '/models/demo/'): Promise<void> {
  await page.evaluate(async (url) => {
    globalThis.opened = await zoetrope.load({ model: url });
  }, model);
}

/** A video as a test needs it. */
export interface Made {
  mp4: Uint8Array<ArrayBuffer>;
  /** Raw frames, RGB. */
  rgb24: Uint8Array<ArrayBuffer>;
  answer: Pick<Generation, 'prompt' | 'seed' | 'request' | 'timings' | 'codec'>;
  progress: Progress[];
}

/** Makes a video in the page; rejects with the text of what the page threw. */
export async function generateIn(chromium: Chromium, page: Page, request: Request): Promise<Made> {
  const { answer, progress } = await page.evaluate(async (wanted) => {
    const progress: Progress[] = [];
    const made = await opened.generate(wanted, { rgb24: true, onProgress: (step) => progress.push(step) });
    await fetch('/upload/mp4', { method: 'PUT', body: made.video.blob });
    await fetch('/upload/rgb24', { method: 'PUT', body: made.frames!.rgb24 });
    URL.revokeObjectURL(made.video.url);
    const { prompt, seed, request, timings, codec } = made;
    return { answer: { prompt, seed, request, timings, codec }, progress };
  }, request);
  return { mp4: chromium.take('mp4'), rgb24: chromium.take('rgb24'), answer, progress };
}

/** Saves a picture of the page below `.cache/screenshots`. */
export async function screenshot(page: Page, name: string): Promise<string> {
  const folder = resolve(root, '.cache/screenshots');
  mkdirSync(folder, { recursive: true });
  const path = resolve(folder, `${name}.png`);
  await page.screenshot({ path, fullPage: true });
  return path;
}
