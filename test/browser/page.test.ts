import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Chromium, openChromium, screenshot } from '../harness/chromium';

/** Longest task of the main thread while a video is made, milliseconds: above it a page feels stuck. */
const TASK_LIMIT_MS = 50;

declare global {
  /** Tasks of the main thread above 50 ms since the observer was set up; the browser reports no shorter ones. */
  var longTasks: { ms: number; at: number }[];
}

describe('the page', () => {
  let chromium: Chromium;
  let page: Page;
  const button = () => page.getByRole('button', { name: 'Generate' });

  beforeAll(async () => {
    chromium = await openChromium();
    page = await chromium.open('');
    await button().and(page.locator('[aria-disabled=false]')).waitFor({ timeout: 60_000 });
    await page.getByRole('textbox', { name: 'Prompt', exact: true }).fill('a blue star in the night sky');
    await page.getByRole('radio', { name: '1:1' }).check({ force: true });
    await page.getByRole('spinbutton', { name: 'Frames', exact: true }).fill('17');
    await page.getByRole('spinbutton', { name: 'Seed', exact: true }).fill('5');
  });

  afterAll(() => chromium?.close());

  const steps = (count: number) => page.getByRole('spinbutton', { name: 'Steps', exact: true }).fill(String(count));

  it('tells before the button is pressed what a request will take', async () => {
    const told = page.locator('.plan');
    await told.getByText(/^Fits: \d+ MB of 8\.0 GB, about .* on this GPU$/).waitFor({ timeout: 120_000 });
    await told.getByText('Memory and time').click();
    await told.getByText('high-noise steps').waitFor();
    await told.getByText('Memory and time').click();
    expect(await told.getByRole('button', { name: 'Use what fits' }).isVisible()).toBe(false);
    const shown = await page.evaluate(() =>
      [...document.querySelectorAll('[hidden]')]
        .filter((each) => getComputedStyle(each).display !== 'none')
        .map(({ outerHTML }) => outerHTML),
    );
    expect(shown).toEqual([]);
  });

  it('makes a video that plays, without ever blocking', async () => {
    await steps(4);
    await page.evaluate(() => {
      globalThis.longTasks = [];
      new PerformanceObserver((list) => {
        for (const { duration, startTime } of list.getEntries()) longTasks.push({ ms: duration, at: startTime });
      }).observe({ type: 'longtask' });
    });
    await button().click();
    await page.getByRole('img', { name: 'Preview after step' }).waitFor({ timeout: 90_000 });
    await screenshot(page, 'preview');
    await page.getByRole('link', { name: 'Download MP4' }).waitFor({ timeout: 120_000 });
    const tasks = await page.evaluate(() => longTasks);
    // A task that is too long, to see that the observer reports such; what runs by `evaluate` itself is none.
    await page.evaluate(() => {
      setTimeout(() => {
        for (const end = performance.now() + 100; performance.now() < end; );
      });
    });
    await page.waitForFunction((before) => longTasks.length > before, tasks.length);
    await screenshot(page, 'result');

    const video = page.getByLabel('Video: a blue star in the night sky');
    const played = await video.evaluate(async (element: HTMLVideoElement) => {
      await element.play();
      const { videoWidth, videoHeight, duration, error } = element;
      return { videoWidth, videoHeight, duration, error };
    });
    // 17 frames and the 16 that the default of one interpolated frame puts between them, at twice the rate.
    expect(played).toEqual({ videoWidth: 64, videoHeight: 64, duration: expect.closeTo(33 / 32, 2), error: null });
    console.log(`Main-thread tasks above 50 ms: ${JSON.stringify(tasks)}`);
    expect(tasks.filter(({ ms }) => ms > TASK_LIMIT_MS)).toEqual([]);
  });

  it('steps through the frames, with and without those that interpolation added', async () => {
    const video = page.getByLabel('Video: a blue star in the night sky');
    const position = (text: string) => page.locator('.position', { hasText: text }).waitFor();
    const next = () => page.getByRole('button', { name: 'Next frame' }).click();
    const toggle = page.getByRole('checkbox', { name: 'Without added frames' });
    await next();
    await video.evaluate((element: HTMLVideoElement) => {
      element.currentTime = 0.5 / 32;
    });
    await position('Frame 1 of 33, generated');
    await next();
    await position('Frame 2 of 33, added');
    await page.getByRole('button', { name: 'Play' }).waitFor();

    await toggle.check();
    await position('Frame 1 of 33, generated');
    await next();
    await position('Frame 3 of 33, generated');
    await screenshot(page, 'without-added-frames');
    const held = page.locator('canvas.held');
    expect(await held.isVisible()).toBe(true);
    const difference = await held.evaluate((canvas: HTMLCanvasElement) => {
      const copy = new OffscreenCanvas(canvas.width, canvas.height);
      const context = copy.getContext('2d')!;
      const pixels = (source: CanvasImageSource) => {
        context.drawImage(source, 0, 0);
        return context.getImageData(0, 0, copy.width, copy.height).data;
      };
      const [a, b] = [pixels(canvas), pixels(document.querySelector('video.picture') as HTMLVideoElement)];
      return { sides: [canvas.width, canvas.height], worst: Math.max(...a.map((value, i) => Math.abs(value - b[i]!))) };
    });
    // The video stands at the frame that is held.
    expect(difference).toEqual({ sides: [64, 64], worst: 0 });

    await toggle.uncheck();
    expect(await held.isVisible()).toBe(false);
    await next();
    await position('Frame 4 of 33, added');
  });

  const cancelled = async () => {
    await page.keyboard.press('Escape');
    await page.getByText('Cancelled. Nothing was kept.').waitFor({ timeout: 30_000 });
    await button().and(page.locator('[aria-disabled=false]')).waitFor();
    expect(await page.locator('.line li').count()).toBe(0);
  };

  it('starts and cancels from the keyboard, once however long the keys are held, and is ready again', async () => {
    await steps(20);
    await page.keyboard.down('Control');
    for (let n = 0; n < 5; n++) await page.keyboard.down('Enter');
    await page.keyboard.up('Enter');
    await page.keyboard.up('Control');
    await page.getByRole('img', { name: 'Preview after step' }).waitFor({ timeout: 90_000 });
    // Escape takes back what an input method has begun to write.
    await page.evaluate(() =>
      document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', isComposing: true, bubbles: true })),
    );
    expect(await page.getByRole('button', { name: 'Cancel' }).getAttribute('aria-disabled')).toBeNull();
    await cancelled();
  });

  it('goes on with the same settings when its engine has died, and takes a double click for one', async () => {
    const [engine] = page.workers().filter((worker) => worker.url().includes('engine'));
    const ended = new Promise((resolve) => engine!.on('close', resolve));
    await engine!.evaluate(() => {
      setTimeout(() => {
        throw new Error('out of luck');
      });
    });
    await ended;
    await button().click();
    await page.getByText('The engine stopped').waitFor();
    await page.getByRole('button', { name: 'Open the model again' }).click();
    await button().and(page.locator('[aria-disabled=false]')).waitFor({ timeout: 60_000 });
    expect(await page.getByRole('spinbutton', { name: 'Frames', exact: true }).inputValue()).toBe('17');
    await button().dblclick();
    await page.getByRole('button', { name: 'Add to the line' }).waitFor();
    await cancelled();
  });

  it('shows a wrong field where it is', async () => {
    await page.getByRole('spinbutton', { name: 'Frames', exact: true }).fill('5');
    await button().click();
    const field = page.getByRole('spinbutton', { name: 'Frames', exact: true });
    await page.locator('[aria-invalid=true]').waitFor();
    expect(await field.getAttribute('aria-invalid')).toBe('true');
    expect(await field.evaluate((element) => element === document.activeElement)).toBe(true);
    await page.locator('#field-num_frames-problem', { hasText: 'greater than or equal to 17' }).waitFor();
  });

  it('fits a phone', async () => {
    const phone = await chromium.browser.newPage({ viewport: { width: 360, height: 740 }, colorScheme: 'dark' });
    await phone.goto(`${chromium.url}?idle`);
    await phone.getByRole('button', { name: 'Generate' }).waitFor();
    await screenshot(phone, 'phone');
    const overflow = await phone.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    expect(overflow).toBeLessThanOrEqual(0);
    await phone.close();
  });

  it('says what is missing where there is no WebGPU', async () => {
    const context = await chromium.browser.newContext();
    await context.addInitScript(() => Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined }));
    const old = await context.newPage();
    // Workers have a scope of their own, so there the property is taken away by the script that is served.
    await old.route(/engine-.*\.js$/, async (route) => {
      const response = await route.fetch();
      const body = `Object.defineProperty(WorkerNavigator.prototype, 'gpu', { get: () => undefined });\n${await response.text()}`;
      await route.fulfill({ response, body });
    });
    await old.goto(chromium.url);
    await old.getByText('WebGPU').first().waitFor({ timeout: 30_000 });
    await screenshot(old, 'no-webgpu');
    expect(await old.getByRole('button', { name: 'Generate' }).getAttribute('aria-disabled')).toBe('true');
    await context.close();
  });
});
