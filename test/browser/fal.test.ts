import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Zoetrope, ZoetropeError } from '../../src/index';
import { type BuiltModule, buildModule } from '../harness/build-module';
import { type Chromium, demoModel, openChromium } from '../harness/chromium';

type Official = typeof import('../harness/fal-client');

declare global {
  /** The official client and the queue's name for our endpoint, in the page. */
  var official: Official;
  /** What comes of a stream whose beginning is read. */
  var rest: Promise<unknown>;
  /** What the page expands prompts by. */
  var expand: () => Promise<string>;
}

const ENDPOINT = 'fal-ai/wan/v2.2-a14b/text-to-video';

/** The shortest job there is. */
const QUICK = {
  prompt: 'a red circle',
  seed: 1,
  num_frames: 17,
  num_inference_steps: 2,
  aspect_ratio: '1:1',
  interpolator_model: 'none',
} as const;

/** One that is still running when it is cancelled. */
const LONG = { ...QUICK, num_inference_steps: 40 };

/**
 * What the endpoint's page shows as its example, https://fal.ai/models/fal-ai/wan/v2.2-a14b/text-to-video/api, read
 * there in 2026.
 */
const EXAMPLE = `
const result = await fal.subscribe("fal-ai/wan/v2.2-a14b/text-to-video", {
  input: {
    prompt: "A close-up of a young woman smiling gently in the rain, raindrops glistening on her face and eyelashes. The video captures the delicate details of her expression and the water droplets, with soft light reflecting off her skin in the rainy atmosphere."
  },
  logs: true,
  onQueueUpdate: (update) => {
    if (update.status === "IN_PROGRESS") {
      update.logs.map((log) => log.message).forEach(console.log);
    }
  },
});
console.log(result.data);
console.log(result.requestId);
`;

/**
 * The demo model offering 32 by 32 pixels for every size: 81 frames in 27 steps, as the example leaves them, in half a
 * minute.
 */
function smallModel(): { folder: string } & Disposable {
  const folder = mkdtempSync(join(tmpdir(), 'zoetrope-small-'));
  cpSync(demoModel, join(folder, 'small'), { recursive: true });
  const path = join(folder, 'small/zoetrope.json');
  const manifest = JSON.parse(readFileSync(path, 'utf8'));
  for (const label of Object.keys(manifest.sizes)) {
    for (const aspect of Object.keys(manifest.sizes[label])) manifest.sizes[label][aspect] = [32, 32];
  }
  writeFileSync(path, JSON.stringify(manifest));
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
}

describe('the official client against the engine of a page', () => {
  let client: BuiltModule;
  let chromium: Chromium;
  let page: Page;

  beforeAll(async () => {
    client = await buildModule('fal-client');
    chromium = await openChromium({ '/client/': client.folder });
    page = await chromium.open();
    page.on('request', (request) => {
      const { protocol, host, pathname } = new URL(request.url());
      fetched.add(pathname);
      if (protocol.startsWith('http') && host !== new URL(chromium.url).host) strays.push(request.url());
    });
    await page.evaluate(async () => {
      globalThis.opened = await zoetrope.load({ model: '/models/demo/', expandPrompt: () => globalThis.expand() });
    });
    // A string, since the tests' compiler has its own way with imports.
    await page.evaluate("import('/client/module.js').then((client) => { globalThis.official = client; })");
    await page.evaluate(async () => {
      await zoetrope.serveFal(opened);
    });
  });

  afterAll(async () => {
    await chromium?.close();
    client?.[Symbol.dispose]();
  });

  /** Requests that left the site. */
  const strays: string[] = [];
  const fetched = new Set<string>();

  it('subscribes with logs and updates', async () => {
    const seen = await page.evaluate(
      async ([endpoint, input]) => {
        const { fal } = official;
        fal.config({ proxyUrl: '/api/fal/proxy' });
        const updates: string[] = [];
        const lines: string[] = [];
        let enqueued = '';
        const result = await fal.subscribe(endpoint as 'fal-ai/wan/v2.2-a14b/text-to-video', {
          input,
          logs: true,
          pollInterval: 100,
          onEnqueue: (id) => {
            enqueued = id;
          },
          onQueueUpdate: (update) => {
            updates.push(update.status);
            if (update.status === 'IN_PROGRESS')
              update.logs.map((log) => log.message).forEach((line) => void lines.push(line));
          },
        });
        const data = result.data as { video: { url: string; file_size: number }; prompt: string; seed: number };
        const bytes = (await (await fetch(data.video.url)).arrayBuffer()).byteLength;
        return { updates, lines, data, bytes, same: enqueued === result.requestId };
      },
      [ENDPOINT, QUICK] as const,
    );
    expect(seen.data).toMatchObject({
      prompt: QUICK.prompt,
      seed: 1,
      video: { content_type: 'video/mp4', file_size: seen.bytes },
      request: { num_inference_steps: 2 },
    });
    expect(seen.bytes).toBeGreaterThan(500);
    expect(seen.same).toBe(true);
    expect(new Set(seen.updates)).toEqual(new Set(['IN_PROGRESS', 'COMPLETED']));
    expect(seen.lines).toContain('diffusion: step 1 of 2');
  });

  it('gives bad requests as ValidationError with every problem', async () => {
    const error = await page.evaluate(
      (endpoint) =>
        official.fal.subscribe(endpoint, { input: { prompt: 5, num_frames: 16, what: 1 }, pollInterval: 50 }).then(
          () => undefined,
          (reason: InstanceType<Official['ValidationError']>) => ({
            refused: reason instanceof official.ValidationError,
            status: reason.status,
            fields: reason.fieldErrors.map(({ loc, type }) => [loc.join('.'), type]),
            frames: reason.getFieldErrors('num_frames'),
          }),
        ),
      ENDPOINT as string,
    );
    expect(error).toMatchObject({
      refused: true,
      status: 422,
      fields: [
        ['body.prompt', 'string_type'],
        ['body.num_frames', 'greater_than_equal'],
        ['body.what', 'extra_forbidden'],
      ],
      frames: [{ msg: 'Input should be greater than or equal to 17' }],
    });
  });

  it('refuses unsafe prompts in fal’s form', async () => {
    const error = await page.evaluate(
      ([endpoint, quick]) =>
        official.fal
          .subscribe(endpoint, {
            input: { ...quick, prompt: 'a nude woman', enable_safety_checker: true },
            pollInterval: 50,
          })
          .catch((reason) => ({ status: reason.status, detail: reason.body.detail })),
      [ENDPOINT as string, QUICK] as const,
    );
    expect(error).toMatchObject({
      status: 422,
      detail: [{ loc: ['body', 'prompt'], type: 'content_policy_violation', input: 'a nude woman' }],
    });
  });

  it('expands checked prompts by the page’s function, else by rules, and answers with the prompt used; looks at frames', async () => {
    const long =
      'Daylight, soft light, wide shot. A red circle moves slowly to the right on a black background, and it keeps its size.';
    const seen = await page.evaluate(
      async ([quick, text]) => {
        const logs: string[] = [];
        const run = () =>
          opened.generate(
            { ...quick, enable_prompt_expansion: true, enable_safety_checker: true },
            { onLog: ({ message }) => void logs.push(message), rgb24: true, checkOutput: true },
          );
        globalThis.expand = async () => `Prompt: "${text}"`;
        const first = await run();
        globalThis.expand = async () => {
          throw new Error('no such model');
        };
        const second = await run();
        const [a, b] = [first, second].map(({ frames }) => new Uint8Array(frames!.rgb24));
        return {
          logs: logs.filter((line) => line.includes('rompt')),
          prompts: [first.prompt, second.prompt, second.request.prompt],
          used: a!.some((value, i) => value !== b![i]),
        };
      },
      [QUICK, long] as const,
    );
    expect(fetched).toContain('/models/frames-check/group1-shard2of2'); // by the frames' check
    expect(seen.prompts[0]).toBe(long);
    expect(seen.prompts[1]).toMatch(/^Daylight, .* a red circle\. /);
    expect(seen.prompts[2]).toBe('a red circle');
    expect(seen.used).toBe(true);
    expect(seen.logs).toEqual([
      'The prompt was expanded by "user".',
      'Prompt expansion by "user" failed: no such model',
      'The prompt was expanded by "rules".',
    ]);
  });

  it('queues two clients, streams a status, and cancels while queued and while running', async () => {
    const seen = await page.evaluate(
      async ([endpoint, long, quick]) => {
        const config = { proxyUrl: '/api/fal/proxy' };
        const [one, two] = [official.createFalClient(config).queue, official.createFalClient(config).queue];
        const running = (await one.submit(endpoint, { input: long })).request_id;
        const queued = (await two.submit(endpoint, { input: quick })).request_id;
        const last = (await two.submit(endpoint, { input: { ...quick, seed: 2 } })).request_id;
        const stream = await one.streamStatus(endpoint, { requestId: running, logs: true });
        const streamed: string[] = [];
        let step: () => void = () => undefined;
        const stepped = new Promise<void>((resolve) => (step = resolve));
        stream.on('data', (status) => {
          streamed.push(status.status);
          if (
            'logs' in status &&
            status.logs.some((log: { message: string }) => log.message.startsWith('diffusion: step'))
          )
            step();
        });
        await stepped;
        const places = await Promise.all([queued, last].map((requestId) => two.status(endpoint, { requestId })));
        const early = await one.result(endpoint, { requestId: running }).catch(({ status }) => status);
        await two.cancel(endpoint, { requestId: queued });
        const moved = await two.status(endpoint, { requestId: last });
        const asked = performance.now();
        await one.cancel(endpoint, { requestId: running });
        const ended = await stream.done();
        const waitedMs = performance.now() - asked;
        await two.subscribeToStatus(endpoint, { requestId: last, pollInterval: 100 });
        const { data } = await two.result(endpoint, { requestId: last });
        const failed = await Promise.all(
          [running, queued].map((requestId) =>
            one
              .result(endpoint, { requestId })
              .catch(({ name, status, body }) => ({ name, status, type: body.error_type })),
          ),
        );
        const again = await one.cancel(endpoint, { requestId: running }).catch(({ status }) => status);
        const unknown = await one.status(endpoint, { requestId: 'nobody' }).catch(({ status }) => status);
        return { streamed, places, early, moved, ended, waitedMs, data, failed, again, unknown };
      },
      [ENDPOINT as string, LONG, QUICK] as const,
    );
    expect([seen.streamed[0], seen.streamed.at(-1), seen.ended.status]).toEqual([
      'IN_PROGRESS',
      'COMPLETED',
      'COMPLETED',
    ]);
    expect(seen.places).toMatchObject([
      { status: 'IN_QUEUE', queue_position: 0 },
      { status: 'IN_QUEUE', queue_position: 1 },
    ]);
    expect(seen.early).toBe(400);
    expect(seen.moved).toMatchObject({ status: 'IN_QUEUE', queue_position: 0 });
    console.log(`A running request ended ${Math.round(seen.waitedMs)} ms after its cancellation`);
    expect(seen.waitedMs).toBeLessThan(5000);
    expect(seen.data).toMatchObject({ seed: 2 });
    const cancelled = { name: 'ApiError', status: 499, type: 'client_cancelled' };
    expect(seen.failed).toEqual([cancelled, cancelled]);
    expect([seen.again, seen.unknown]).toEqual([400, 404]);
  });

  it('answers the addresses of a status themselves, refuses other endpoints, and has sent nothing anywhere', async () => {
    const seen = await page.evaluate(async (input) => {
      const submitted = await (
        await fetch('/api/fal/proxy/fal-ai/wan/v2.2-a14b/text-to-video', {
          method: 'POST',
          body: JSON.stringify(input),
        })
      ).json();
      const status = await (await fetch(submitted.status_url)).json();
      const cancelled = (await fetch(submitted.cancel_url, { method: 'PUT' })).status;
      const other = await official.fal.queue
        .submit('fal-ai/flux/dev', { input: { prompt: 'x' } })
        .catch(({ status }) => status);
      return { status, cancelled, other };
    }, QUICK);
    expect(seen.status.request_id).toMatch(/^[\w-]{36}$/);
    expect([seen.cancelled, seen.other]).toEqual([202, 404]);
    expect(strays).toEqual([]);
  });
});

it('runs the code of the published example as it is, after fal.config', async () => {
  using client = await buildModule('fal-client');
  using model = smallModel();
  const chromium = await openChromium({ '/client/': client.folder, '/others/': model.folder });
  try {
    const page = await chromium.open();
    const lines: string[] = [];
    page.on('console', (message) => lines.push(message.text()));
    await page.evaluate(async () => {
      await zoetrope.serveFal(await zoetrope.load({ model: '/others/small/' }));
    });
    const data = await page.evaluate(`(async () => {
      const { fal } = await import('/client/module.js');
      fal.config({ proxyUrl: '/api/fal/proxy' });
      ${EXAMPLE}
      const { video, request, timings } = result.data;
      const { size, type } = await (await fetch(video.url)).blob();
      return { size, type, request, seconds: timings.totalMs / 1000 };
    })()`);
    expect(data).toMatchObject({
      type: 'video/mp4',
      size: expect.toSatisfy((size) => size > 1000),
      // The endpoint's defaults.
      request: { num_frames: 81, frames_per_second: 16, num_inference_steps: 27, resolution: '720p', shift: 5 },
    });
    expect(lines.some((line) => line.startsWith('diffusion: step 27 of 27'))).toBe(true); // forEach gives index and array too
    expect(lines.at(-1)).toMatch(/^[\w-]{36}$/);
    console.log(`The published example took ${(data as { seconds: number }).seconds.toFixed(1)} s at 32 by 32 pixels`);
  } finally {
    await chromium.close();
  }
});

it('answers a page without an engine from the page that has one', async () => {
  using client = await buildModule('fal-client');
  const chromium = await openChromium({ '/client/': client.folder });
  try {
    const context = await chromium.browser.newContext(); // a site's pages share their service worker
    const [host, guest] = [await context.newPage(), await context.newPage()];
    for (const page of [host, guest]) await page.goto(`${chromium.url}?idle`);
    await host.evaluate(async () => {
      await zoetrope.serveFal(await zoetrope.load({ model: '/models/demo/' }));
    });
    const ask = (page: Page, seed: number) =>
      page.evaluate(`(async () => {
        const { fal } = await import('/client/module.js');
        fal.config({ proxyUrl: '/api/fal/proxy' });
        const positions = [];
        const { data } = await fal.subscribe('${ENDPOINT}', {
          input: ${JSON.stringify({ ...QUICK, seed })},
          pollInterval: 50,
          onQueueUpdate: ({ queue_position }) => void positions.push(queue_position),
        });
        const { size } = await (await fetch(data.video.url)).blob();
        return { seed: data.seed, waited: positions.some((position) => position === 0), loads: size > 500 };
      })()`) as Promise<{ seed: number; waited: boolean; loads: boolean }>;
    await guest.reload(); // under the service worker's control from now on
    const seen = await Promise.all([ask(host, 11), ask(guest, 12), ask(guest, 13)]);
    expect(seen.map(({ seed }) => seed)).toEqual([11, 12, 13]);
    expect(seen.every(({ loads }) => loads)).toBe(true);
    expect(seen.filter(({ waited }) => waited)).not.toEqual([]); // one queue for both pages
  } finally {
    await chromium.close();
  }
});

it('serves a page that was reloaded past its service worker, two engines of a page, and says who is gone', async () => {
  const chromium = await openChromium({ '/elsewhere/': resolve(import.meta.dirname, '../../public') });
  try {
    const context = await chromium.browser.newContext();
    const [host, guest] = [await context.newPage(), await context.newPage()];
    for (const page of [host, guest]) await page.goto(`${chromium.url}?idle`);
    const refused = await host.evaluate(async () => {
      const nobody = { generate: () => new Promise<never>(() => undefined) } as unknown as Zoetrope;
      const serve = (loader: string) => zoetrope.serveFal(nobody, { loader }).catch(({ code }: ZoetropeError) => code);
      return [await serve('elsewhere/service.js'), await serve('nothing/service.js')];
    });
    expect(refused).toEqual(['bad-request', 'unreadable-source']);

    const serve = () =>
      host.evaluate(async () => {
        const engine = { generate: () => new Promise<never>(() => undefined) } as unknown as Zoetrope;
        await zoetrope.serveFal(engine);
      });
    const submit = (page: Page) =>
      page.evaluate(async (endpoint) => {
        const response = await fetch(`/api/fal/proxy/${endpoint}`, { method: 'POST', body: '{"prompt":"a"}' });
        return (await response.json()) as { status_url: string };
      }, ENDPOINT);
    const ask = (page: Page, url: string) => page.evaluate(async (url) => (await fetch(url)).status, url);
    await serve();
    const session = await context.newCDPSession(host);
    const loaded = host.waitForEvent('load');
    await session.send('Page.reload', { ignoreCache: true });
    await loaded;
    expect(await host.evaluate(() => navigator.serviceWorker.controller)).toBeNull();
    await serve();
    const first = await submit(host);
    await serve();
    expect([await ask(host, first.status_url), await ask(guest, first.status_url)]).toEqual([202, 202]);

    const address = `${first.status_url}/stream`;
    await guest.evaluate(async (url) => {
      const reader = (await fetch(url)).body!.getReader();
      await reader.read();
      globalThis.rest = reader.read();
      globalThis.rest.catch(() => undefined);
    }, address);
    await host.goto('about:blank');
    const rest = await guest.evaluate(() =>
      Promise.race([
        globalThis.rest.then(
          () => 'ended',
          () => 'broken off',
        ),
        new Promise((resolve) => setTimeout(resolve, 10_000, 'waits for ever')),
      ]),
    );
    expect(rest).toBe('broken off');
    expect(await ask(guest, first.status_url)).toBe(503);
  } finally {
    await chromium.close();
  }
});
