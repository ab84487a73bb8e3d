import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { ManifestFile } from '../../src/manifest';
import { type Chromium, demoModel, generateIn, openChromium, openModel } from '../harness/chromium';

/** The shortest job there is. */
const QUICK = {
  prompt: 'a red circle',
  seed: 1,
  num_frames: 17,
  num_inference_steps: 2,
  aspect_ratio: '1:1',
  num_interpolated_frames: 0,
} as const;

/** Largest file of the demo model: a shard of weights. */
function largestShard(): ManifestFile {
  const { components } = JSON.parse(readFileSync(join(demoModel, 'zoetrope.json'), 'utf8'));
  const files = Object.values(components).flat() as ManifestFile[];
  return files.reduce((largest, file) => (file.sizeBytes > largest.sizeBytes ? file : largest));
}

describe('the engine', () => {
  let chromium: Chromium;
  let page: Page;
  let scratch: string;

  beforeAll(async () => {
    scratch = mkdtempSync(join(tmpdir(), 'zoetrope-models-'));
    const { path } = largestShard();
    const shard = readFileSync(join(demoModel, path));
    for (const name of ['flipped', 'cut', 'gone']) cpSync(demoModel, join(scratch, name), { recursive: true });
    const flipped = Buffer.from(shard);
    flipped[flipped.length >> 1]! ^= 1;
    writeFileSync(join(scratch, 'flipped', path), flipped);
    writeFileSync(join(scratch, 'cut', path), shard.subarray(0, shard.length - 1));
    rmSync(join(scratch, 'gone', path));
    cpSync(demoModel, join(scratch, 'other'), { recursive: true });
    const manifest = join(scratch, 'other/zoetrope.json');
    writeFileSync(manifest, JSON.stringify({ ...JSON.parse(readFileSync(manifest, 'utf8')), name: 'another' }));
    chromium = await openChromium({ '/broken/': scratch });
  });

  afterAll(async () => {
    await chromium?.close();
    rmSync(scratch, { recursive: true });
  });

  beforeEach(async () => {
    page = await chromium.open();
  });

  afterEach(() => page.close());

  it('cancels within a step, frees what the job had, and generates again', async () => {
    await openModel(page);
    const first = await generateIn(chromium, page, QUICK);
    const level = (await page.evaluate(() => opened.memory())).liveBytes;
    expect(level).toBeGreaterThan(0);
    const { error, waitedMs } = await page.evaluate(async (request) => {
      const controller = new AbortController();
      let abortedAt = Number.NaN;
      const error = await caught(
        opened.generate(
          { ...request, num_inference_steps: 20 },
          {
            signal: controller.signal,
            onProgress({ stage, done }) {
              if (stage !== 'diffusion' || done !== 1 || !Number.isNaN(abortedAt)) return;
              abortedAt = 0;
              // The second step runs by then: steps take longer than this.
              setTimeout(() => {
                abortedAt = performance.now();
                controller.abort();
              }, 100);
            },
          },
        ),
      );
      return { error, waitedMs: performance.now() - abortedAt };
    }, QUICK);
    expect(error.code).toBe('aborted');
    console.log(
      `Cancelled after ${Math.round(waitedMs)} ms; steps take ${Math.round(first.answer.timings.diffusionMs / 2)} ms`,
    );
    expect(waitedMs).toBeLessThan(first.answer.timings.diffusionMs / 2);
    expect((await page.evaluate(() => opened.memory())).liveBytes).toBe(level);
    const again = await generateIn(chromium, page, QUICK);
    expect(Buffer.compare(again.rgb24, first.rgb24)).toBe(0);
    expect((await page.evaluate(() => opened.memory())).liveBytes).toBe(level);
  });

  it('cancels a job that waits without touching the one that runs', async () => {
    await openModel(page);
    const { error, prompt } = await page.evaluate(async (request) => {
      const controller = new AbortController();
      const running = opened.generate(request);
      const waiting = caught(opened.generate({ ...request, prompt: 'another' }, { signal: controller.signal }));
      controller.abort();
      return { error: await waiting, prompt: (await running).prompt };
    }, QUICK);
    expect(error.code).toBe('aborted');
    expect(prompt).toBe(QUICK.prompt);
  });

  it('runs a kept job once at a time and with its own model, and forgets one that runs when it is removed', async () => {
    await openModel(page);
    const removed = await page.evaluate(async (request) => {
      let began: () => void = () => undefined;
      const begun = new Promise<void>((resolve) => (began = resolve));
      const job = caught(opened.generate(request, { onProgress: began }));
      await begun;
      const { id, state } = (await opened.jobs.list())[0]!;
      const twice = await caught(opened.jobs.continue(id));
      await opened.jobs.remove(id);
      return { state, twice: twice.code, job: (await job).code, left: await opened.jobs.list() };
    }, QUICK);
    expect(removed).toEqual({ state: 'running', twice: 'job-in-use', job: 'aborted', left: [] });
    const others = await page.evaluate(async (request) => {
      const { id } = await opened.jobs.add(request);
      const other = await zoetrope.load({ model: '/broken/other/' });
      const { code } = await caught(other.jobs.continue(id));
      const next = (await other.jobs.next()) ?? 'none';
      await other.jobs.remove(id);
      other.close();
      return { code, next, left: await opened.jobs.list() };
    }, QUICK);
    expect(others).toEqual({ code: 'bad-checkpoint', next: 'none', left: [] });
  });

  it('makes the same frames within a budget that only streamed weights fit, and refuses one that nothing fits', async () => {
    await openModel(page);
    const free = await generateIn(chromium, page, QUICK);
    const peak = (await page.evaluate(() => opened.memory())).peakBytes;
    await page.evaluate(async () => {
      opened.close();
      globalThis.opened = await zoetrope.load({ model: '/models/demo/', memoryBudgetBytes: 16e6 });
    });
    const bounded = await generateIn(chromium, page, QUICK);
    expect(Buffer.compare(bounded.rgb24, free.rgb24)).toBe(0);
    const bytes = (await page.evaluate(() => opened.memory())).peakBytes;
    console.log(`${(peak / 1e6).toFixed(1)} MB without a budget, ${(bytes / 1e6).toFixed(1)} MB with one of 16`);
    expect(bytes).toBeLessThan(16e6);
    expect(peak).toBeGreaterThan(16e6);
    const refused = await page.evaluate(async (request) => {
      opened.close();
      globalThis.opened = await zoetrope.load({ model: '/models/demo/', memoryBudgetBytes: 12.5e6 });
      const long = { ...request, num_frames: 121, aspect_ratio: '16:9' } as const;
      return { error: await caught(opened.generate(long)), report: await opened.plan(long) };
    }, QUICK);
    expect(refused.error.code).toBe('out-of-memory');
    expect(refused.report).toMatchObject({ fits: false, budgetBytes: 12.5e6, summary: refused.error.message });
    expect(refused.report.refused!.nearest).not.toBeNull();
    const tiny = await page.evaluate(() => {
      opened.close();
      return caught(zoetrope.load({ model: '/models/demo/', memoryBudgetBytes: 5e6 }));
    });
    expect(tiny).toMatchObject({ code: 'out-of-memory', message: expect.stringContaining('No other size') });
    await page.evaluate(() => opened.close());
  });

  it('goes on from the last step with a new device when the device goes, with the same frames', async () => {
    await openModel(page);
    const undisturbed = await generateIn(chromium, page, QUICK);
    const { rgb24, logs, steps } = await page.evaluate(async (request) => {
      const logs: string[] = [];
      const steps: number[] = [];
      let lost = false;
      const made = await opened.generate(request, {
        rgb24: true,
        onLog: ({ message }) => logs.push(message),
        onProgress: ({ stage, done }) => {
          if (stage !== 'diffusion') return;
          steps.push(done);
          if (done === 1 && !lost) void opened.reset();
          lost ||= done === 1;
        },
      });
      return { rgb24: [...new Uint8Array(made.frames!.rgb24)], logs, steps };
    }, QUICK);
    expect(Buffer.compare(Buffer.from(rgb24), undisturbed.rgb24)).toBe(0);
    const told = logs.filter((line) => /lost|Going on/.test(line));
    expect(told).toEqual([expect.stringContaining('device was lost'), 'Going on behind step 1 of 2.']);
    expect([...new Set(steps)]).toEqual([0, 1, 2]);
    expect(steps).toEqual(steps.toSorted()); // the first step was not begun again
    expect(await page.evaluate(() => opened.jobs.list())).toEqual([]);
  });

  it('refuses bad requests with details', async () => {
    await openModel(page);
    const local = await page.evaluate(
      (request) => caught(opened.generate({ ...request, num_frames: 16, shift: Number.NaN, extra: 1 } as never)),
      QUICK,
    );
    expect(local.code).toBe('bad-request');
    expect(local.detail.map(({ loc, type }) => [loc[1], type])).toEqual([
      ['num_frames', 'greater_than_equal'],
      ['shift', 'finite_number'],
      ['extra', 'extra_forbidden'],
    ]);
  });

  it('sends errors through the worker’s boundary with code and details', async () => {
    await openModel(page);
    const error = await page.evaluate(
      (request) => caught(opened.generate({ ...request, interpolator_model: 'film' })),
      QUICK,
    );
    expect(error.code).toBe('missing-component');
    expect(error.detail.map(({ loc, type }) => [loc[1], type])).toEqual([['interpolator_model', 'missing_component']]);
  });

  it.each([
    ['/broken/flipped/', 'corrupt-data'],
    ['/broken/cut/', 'corrupt-data'],
    ['/broken/gone/', 'unreadable-source'],
  ])('refuses %s as %s and names the file', async (model, code) => {
    const error = await page.evaluate(
      async ([url, request]) =>
        caught(
          zoetrope.load({ model: url }).then(async (broken) => {
            await broken.generate(request).finally(() => broken.close());
          }),
        ),
      [model, QUICK] as const,
    );
    expect(error.code).toBe(code);
    expect(error.message).toContain(largestShard().path);
  });

  it('refuses a folder that is no model', async () => {
    const error = await page.evaluate(() => caught(zoetrope.load({ model: '/nothing/' })));
    expect(error.code).toBe('unreadable-source');
    expect(error.message).toContain('/nothing/');
  });

  it('rejects pending calls when the worker dies', async () => {
    const failed = await page.evaluate(() =>
      caught(zoetrope.load({ model: '/models/demo/', worker: new Worker('/nothing.js', { type: 'module' }) })),
    );
    expect(failed.code).toBe('worker-died');
    const thrown = await page.evaluate(() => {
      const script = URL.createObjectURL(new Blob(['throw new Error("out of luck")'], { type: 'text/javascript' }));
      return caught(zoetrope.load({ model: '/models/demo/', worker: new Worker(script, { type: 'module' }) }));
    });
    expect(thrown).toMatchObject({ code: 'worker-died', message: expect.stringContaining('out of luck') });
  });

  it('rejects the job that runs when it is closed', async () => {
    await openModel(page);
    const error = await page.evaluate((request) => {
      const job = caught(opened.generate(request));
      setTimeout(() => opened.close(), 100);
      return job;
    }, QUICK);
    expect(error.code).toBe('worker-died');
  });
});
