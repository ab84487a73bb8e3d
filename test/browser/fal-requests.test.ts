import { afterAll, beforeAll, expect, it } from 'vitest';
import { type BuiltModule, buildModule } from '../harness/build-module';
import { type Chromium, openChromium } from '../harness/chromium';

/** Generated requests, good and bad, all the way through the service worker to the page's queue and back. */

type Requests = typeof import('../harness/generated-requests');

declare global {
  var requests: Requests;
}

/** `ZOETROPE_REQUESTS=50000` for what the queue takes in `fal-generated.test.ts`: a minute and a half more. */
const COUNT = Number(process.env.ZOETROPE_REQUESTS ?? 5000);
/** Requests on their way at once; a page that waits for each in turn leaves a core idle. */
const LANES = 16;

let client: BuiltModule;
let chromium: Chromium;

beforeAll(async () => {
  client = await buildModule('generated-requests');
  chromium = await openChromium({ '/client/': client.folder });
});

afterAll(async () => {
  await chromium?.close();
  client?.[Symbol.dispose]();
});

it(`gives ${COUNT} requests through the service worker the verdicts of the table`, async () => {
  const page = await chromium.open();
  await page.evaluate("import('/client/module.js').then((module) => { globalThis.requests = module; })");
  const began = performance.now();
  const seen = await page.evaluate(
    async ([count, lanes]) => {
      let ran = 0;
      const generator = {
        async generate({ prompt }: { prompt: string }) {
          ran++;
          return { video: {}, prompt, seed: 1, timings: {}, request: {} };
        },
      };
      const { proxyUrl, close } = await zoetrope.serveFal(
        generator as unknown as Parameters<typeof zoetrope.serveFal>[0],
      );
      const all = requests.generatedRequests(count, 20261125n);
      const wrong: unknown[] = [];
      let accepted = 0;
      let answered = 0;
      const lane = async () => {
        for (const { body, expected } of all) {
          const response = await fetch(proxyUrl, {
            method: 'POST',
            headers: { 'x-fal-target-url': 'https://fal.run/fal-ai/wan/v2.2-a14b/text-to-video' },
            body: JSON.stringify(body),
          });
          const problems = requests.problemsOf(await response.json());
          answered++;
          if (expected.length === 0) accepted++;
          const status = expected.length > 0 ? 422 : 200;
          if (response.status !== status || problems.join() !== expected.join()) {
            wrong.push({ body: JSON.stringify(body).slice(0, 500), status: response.status, problems, expected });
          }
        }
      };
      await Promise.all(Array.from({ length: lanes }, lane));
      close();
      return { ran, accepted, answered, wrong: wrong.slice(0, 5) };
    },
    [COUNT, LANES] as const,
  );
  const seconds = (performance.now() - began) / 1000;
  console.log(
    `${seen.accepted} of ${seen.answered} accepted, ${Math.round(seen.answered / seconds)} requests a second`,
  );
  expect(seen.wrong).toEqual([]);
  expect(seen.answered).toBe(COUNT);
  expect(seen.ran).toBe(seen.accepted);
  expect(Math.min(seen.accepted, COUNT - seen.accepted)).toBeGreaterThan(COUNT / 5);
});
