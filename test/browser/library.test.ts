import { resolve } from 'node:path';
import { expect, it } from 'vitest';
import { openChromium } from '../harness/chromium';

declare global {
  var library: typeof import('../../src/index');
}

it('works from a page of somebody else’s, with its worker and its wasm beside it', async () => {
  const chromium = await openChromium({ '/vendor/zoetrope/': resolve(import.meta.dirname, '../../dist/lib') });
  try {
    const page = await chromium.open('about:blank');
    const fetched: string[] = [];
    page.on('request', (request) => fetched.push(request.url()));
    // A document of the server that is not our page.
    await page.goto(`${chromium.url}models/demo/zoetrope.json`);
    const content = 'import * as library from "/vendor/zoetrope/index.js"; globalThis.library = library;';
    await page.addScriptTag({ type: 'module', content });
    await page.waitForFunction(() => 'library' in globalThis);
    const answer = await page.evaluate(async () => {
      const { load, requestFields, ZoetropeError } = library;
      const opened = await load({ model: '/models/demo/' });
      const request = {
        prompt: 'x',
        num_frames: 17,
        num_inference_steps: 2,
        aspect_ratio: '1:1',
        interpolator_model: 'none',
      } as const;
      const { video } = await opened.generate(request);
      const refusal = await opened.generate({ ...request, shift: 11 }).catch((error: unknown) => error);
      opened.close();
      const bytes = (await (await fetch(video.url)).blob()).size;
      return { video, bytes, fields: requestFields.length, typed: refusal instanceof ZoetropeError };
    });
    expect(answer).toMatchObject({ video: { content_type: 'video/mp4', file_size: answer.bytes }, typed: true });
    expect(answer.bytes).toBeGreaterThan(1000);
    expect(answer.fields).toBe(19);
    const own = fetched.filter((url) => /\.(js|wasm)$/.test(url));
    expect(own.length).toBeGreaterThan(3);
    expect(own.filter((url) => !url.startsWith(`${chromium.url}vendor/zoetrope/`))).toEqual([]);
  } finally {
    await chromium.close();
  }
});
