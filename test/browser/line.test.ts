import type { BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Chromium, openChromium, screenshot } from '../harness/chromium';

/** Unfinished videos on the page: the line, a reload in the middle of a job, and one click to go on. */
describe('the line', () => {
  let chromium: Chromium;
  let context: BrowserContext;
  let page: Page;
  const button = (name: string | RegExp) => page.getByRole('button', { name });
  const field = (name: string) => page.getByRole('spinbutton', { name, exact: true });
  const prompt = (text: string) => page.getByRole('textbox', { name: 'Prompt', exact: true }).fill(text);
  const waiting = () => page.locator('.line li .said-prompt').allTextContents();
  const ready = () => button('Generate').and(page.locator('[aria-disabled=false]')).waitFor({ timeout: 120_000 });
  const result = (of: string) => page.getByLabel(`Video: ${of}`).waitFor({ timeout: 300_000 });

  beforeAll(async () => {
    chromium = await openChromium();
    context = await chromium.browser.newContext();
    page = await context.newPage();
    await page.goto(chromium.url);
    await ready();
    await page.getByRole('radio', { name: '1:1' }).check({ force: true });
    await field('Frames').fill('17');
    await field('Steps').fill('3');
    await field('Seed').fill('5');
  });

  afterAll(() => chromium?.close());

  it('takes requests while a job runs, moves and cancels them', async () => {
    await prompt('the first circle');
    await button('Generate').click();
    for (const text of ['second', 'third', 'fourth']) {
      await prompt(text);
      await button('Add to the line').click();
      await page.locator('.line li', { hasText: text }).waitFor();
    }
    await button('Up: fourth').click();
    await expect.poll(waiting).toEqual(['second', 'fourth', 'third']);
    expect(await page.evaluate(() => document.activeElement?.getAttribute('aria-label'))).toBe('Up: fourth');
    await button('Down: second').click();
    await expect.poll(waiting).toEqual(['fourth', 'second', 'third']);
    await button('Cancel third').click();
    await expect.poll(waiting).toEqual(['fourth', 'second']);
  });

  it('survives a reload in the middle of a job, and goes on with one click', async () => {
    await page.getByRole('img', { name: 'Preview after step' }).waitFor({ timeout: 300_000 });
    await page.reload();
    await ready();
    await button('Continue the first circle').waitFor();
    expect(await page.locator('.line .clock').first().textContent()).toMatch(/^Interrupted; \d of 3 steps are done\.$/);
    expect(await waiting()).toEqual(['the first circle', 'fourth', 'second']);
    await button('Start the line').waitFor();
    await screenshot(page, 'line');
    for (const [name, viewport, colorScheme] of [
      ['line-phone', { width: 360, height: 740 }, 'dark'],
      ['line-dark', { width: 1280, height: 900 }, 'dark'],
    ] as const) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize(viewport);
      await page.locator('.line').scrollIntoViewIfNeeded();
      await screenshot(page, name);
      expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
    }
    await button('Discard the first circle').dblclick(); // asks, and takes the second click for no answer
    await button('Throw away? the first circle').waitFor();
    await button('Continue the first circle').click();
    await result('the first circle');
    await expect.poll(waiting).toEqual(['fourth', 'second']);
  });

  it('runs what waits, each in one tab', async () => {
    const other = await context.newPage();
    await other.goto(chromium.url);
    const otherResult = other.getByLabel(/^Video: (fourth|second)$/).waitFor({ timeout: 300_000 });
    await other.getByRole('button', { name: 'Start the line' }).click({ timeout: 120_000 });
    await button('Start the line').click();
    const own = page.getByLabel(/^Video: (fourth|second)$/).waitFor({ timeout: 300_000 });
    await Promise.all([own, otherResult]);
    await expect.poll(waiting, { timeout: 60_000 }).toEqual([]);
    const made = await Promise.all([page, other].map((tab) => tab.locator('video.picture').getAttribute('aria-label')));
    expect(made.sort()).toEqual(['Video: fourth', 'Video: second']);
    await other.close();
  });
});
