import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Chromium, openChromium } from '../harness/chromium';
import { DECODED, languageModelFiles } from '../harness/language-model';
import { CLASSIFIER, CLASSIFIER_TOKENIZER, classifierModel } from '../harness/text-classifier';

/** Models of the caller's that read or write prompts, by URL, beside the engine in its worker. */

/** The shortest job there is. */
const QUICK = {
  prompt: 'a red circle',
  seed: 1,
  num_frames: 17,
  num_inference_steps: 2,
  aspect_ratio: '1:1',
  interpolator_model: 'none',
} as const;

let folder: string;
let chromium: Chromium;
let page: Page;
/** Requests that left the site, and paths that were fetched. */
const strays: string[] = [];
const fetched = new Set<string>();

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'zoetrope-prompts-'));
  const write = (path: string, bytes: Uint8Array | string) => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), bytes);
  };
  write('classifier/tokenizer.json', JSON.stringify(CLASSIFIER_TOKENIZER));
  write('classifier/model.onnx', classifierModel());
  for (const [path, bytes] of languageModelFiles()) write(`writer/${path}`, bytes);
  chromium = await openChromium({ '/prompts/': folder });
  page = await chromium.open();
  page.context().on('request', (request) => {
    const { protocol, host, pathname } = new URL(request.url());
    fetched.add(pathname);
    if (protocol.startsWith('http') && host !== new URL(chromium.url).host) strays.push(request.url());
  });
  await page.evaluate(async (classifier) => {
    globalThis.opened = await zoetrope.load({
      model: '/models/demo/',
      textClassifier: { ...classifier, url: '/prompts/classifier' },
      languageModel: { url: '/prompts/writer', dtype: 'fp32' },
    });
  }, CLASSIFIER);
});

afterAll(async () => {
  await chromium?.close();
  rmSync(folder, { recursive: true });
});

it('asks the classifier behind the rules', async () => {
  const refused = await page.evaluate(
    (quick) => caught(opened.generate({ ...quick, prompt: 'a bad', enable_safety_checker: true })),
    QUICK,
  );
  expect(refused).toMatchObject({ code: 'content-policy-violation', message: expect.stringContaining('tiny') });
  expect([...fetched]).toEqual(expect.arrayContaining(['/prompts/classifier/model.onnx']));
});

it('expands by the language model on the engine’s device, and lets go of its memory', async () => {
  expect([...fetched].some((path) => path.startsWith('/prompts/writer/'))).toBe(false); // not before it is wanted
  const seen = await page.evaluate(async (quick) => {
    const logs: string[] = [];
    const run = () =>
      opened.generate({ ...quick, enable_prompt_expansion: true }, { onLog: ({ message }) => void logs.push(message) });
    const first = await run();
    const between = await opened.memory();
    const second = await run();
    return {
      logs,
      prompts: [first.prompt, second.prompt],
      live: [between, await opened.memory()].map((use) => use.liveBytes),
    };
  }, QUICK);
  expect(seen.logs.filter((line) => line.includes('expan'))).toEqual(
    Array(2).fill('The prompt was expanded by "language-model".'),
  );
  expect(seen.prompts).toEqual([DECODED, DECODED]);
  expect(seen.live[1]).toBe(seen.live[0]);
  expect(strays).toEqual([]);
});

it('goes on with the rules where the language model cannot be had', async () => {
  const { logs, prompt } = await page.evaluate(async (quick) => {
    const logs: string[] = [];
    const other = await zoetrope.load({ model: '/models/demo/', languageModel: { url: '/prompts/nothing/' } });
    const { prompt } = await other.generate(
      { ...quick, enable_prompt_expansion: true },
      { onLog: ({ message }) => void logs.push(message) },
    );
    other.close();
    return { logs, prompt };
  }, QUICK);
  expect(prompt).toMatch(/^Daylight, .* a red circle\. /);
  expect(logs).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/^Prompt expansion by "language-model" failed: /),
      'The prompt was expanded by "rules".',
    ]),
  );
});

it('cancels while a function does not answer, or a model does not come', async () => {
  await page.context().route('**/prompts/never/**', () => undefined);
  const ends = await page.evaluate(async (quick) => {
    const asked: string[] = [];
    const other = await zoetrope.load({
      model: '/models/demo/',
      languageModel: { url: '/prompts/never/' },
      expandPrompt: async () => {
        asked.push('function');
        return asked.length === 1 ? new Promise<never>(() => undefined) : undefined;
      },
    });
    const end = async () => {
      const controller = new AbortController();
      const job = caught(other.generate({ ...quick, enable_prompt_expansion: true }, { signal: controller.signal }));
      const before = asked.length;
      for (let n = 0; n < 500 && asked.length === before; n++) await new Promise((resolve) => setTimeout(resolve, 20));
      await new Promise((resolve) => setTimeout(resolve, 500)); // the language model is asked for its files
      controller.abort();
      const late = new Promise<string>((resolve) => setTimeout(resolve, 10_000, 'waits for ever'));
      return Promise.race([job.then(({ code }) => code), late]);
    };
    const ends = [await end(), await end()];
    other.close();
    return ends;
  }, QUICK);
  expect(ends).toEqual(['aborted', 'aborted']);
});
