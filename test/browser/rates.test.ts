import { resolve } from 'node:path';
import type { Page } from 'playwright-core';
import { build } from 'vite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Chromium, openChromium } from '../harness/chromium';
import type * as encoding from '../harness/encoding';
import { decodeMovie, type Movie, readMovie } from '../harness/movie';

/**
 * Videos through Chromium's own encoder at the counts and rates that interpolation leads to, without the model that
 * makes frames.
 */

declare global {
  /** `test/harness/encoding.ts` in the page. */
  var encoder: typeof encoding;
}

/** Frames given, frames per second, frames between, and whether the rate is adjusted. */
const COMBINATIONS = [
  [17, 16, 0, true],
  [17, 16, 1, true],
  [17, 60, 4, true],
  [17, 23, 3, false],
  [18, 4, 2, true],
  [18, 23, 4, true],
  [20, 60, 1, false],
  [20, 4, 4, false],
  [33, 23, 1, true],
  [33, 60, 3, true],
] as const;

/**
 * OpenH264 gives small pictures of high rates level 1b, and Chromium's VideoDecoder, unlike its player, does not know
 * the level by its own number, 9. Level 1.1 holds all that 1b does.
 */
function nameable(movie: Movie): Movie {
  return { ...movie, config: { ...movie.config, codec: movie.config.codec.replace(/09$/, '0b') } };
}

let chromium: Chromium;
let page: Page;

beforeAll(async () => {
  const entry = resolve(import.meta.dirname, '../harness/encoding.ts');
  const built = await build({
    configFile: false,
    logLevel: 'error',
    build: { write: false, target: 'es2023', lib: { entry, name: 'encoder', formats: ['iife'] } },
  });
  const [{ output }] = built as unknown as [{ output: [{ code: string }] }];
  chromium = await openChromium();
  page = await chromium.open();
  await page.addScriptTag({ content: output[0].code });
});

afterAll(() => chromium?.close());

describe('a video through Chromium', () => {
  it.each(COMBINATIONS)('of %i frames at %i a second with %i between, rate adjusted %s', async (...combination) => {
    const [frames, framesPerSecond, between, adjust] = combination;
    const count = frames + (frames - 1) * between;
    const rate = adjust ? framesPerSecond * (between + 1) : framesPerSecond;
    const played = await page.evaluate(
      async ([count, rate]) => {
        const mp4 = await encoder.encodeRamp(count, rate);
        await fetch('/upload/ramp', { method: 'PUT', body: mp4 });
        const video = document.createElement('video');
        video.muted = true;
        video.src = URL.createObjectURL(new Blob([mp4], { type: 'video/mp4' }));
        await new Promise((resolve, reject) => {
          video.onended = resolve;
          video.onerror = () => reject(new Error(video.error?.message));
          video.playbackRate = 16;
          video.play().catch(reject);
        });
        return video.duration;
      },
      [count, rate] as const,
    );
    expect(played).toBeCloseTo(count / rate, 2);
    const movie = await readMovie(chromium.take('ramp'));
    expect(movie.packets).toHaveLength(count);
    movie.packets.forEach(({ timestamp, duration }, index) => {
      expect(timestamp).toBeCloseTo(index / rate, 9);
      expect(duration).toBeCloseTo(1 / rate, 9);
    });
    // Frames grow brighter one by one, so order and number show in the decoder's pictures.
    const levels = (await decodeMovie(chromium, page, nameable(movie))).map((rgba) => rgba[(32 * 64 + 32) * 4 + 1]!);
    expect(levels).toHaveLength(count);
    levels.slice(1).forEach((level, i) => {
      expect(level, `frame ${i + 1}`).toBeGreaterThanOrEqual(levels[i]! - 2);
    });
    expect(levels.at(-1)! - levels[0]!).toBeGreaterThan(180);
  });
});
