import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { byteRange } from '../../src/cli/server';
import { MANIFEST_FILE, type Manifest } from '../../src/manifest';
import type { StoreProgress } from '../../src/protocol';
import { type Chromium, demoModel, openChromium, screenshot } from '../harness/chromium';
import { repiece } from '../harness/store-host';

/** Pieces small enough that the demo model has some fifty. */
const PIECE_BYTES = 300_007;

/** A server of another origin whose answers go wrong by turns. */
interface BadServer {
  url: string;
  /** Ranges that were asked for. */
  readonly asked: { path: string; begin: number; end: number }[];
  /** How often each kind of fault was made. */
  readonly faults: Record<string, number>;
  close(): Promise<void>;
}

type Fault = (response: ServerResponse, whole: Buffer, part: Buffer) => void;

const FAULTS: Record<string, Fault> = {
  'busy (429, Retry-After)': (response) => response.writeHead(429, { 'Retry-After': '1' }).end(),
  'cut connection': (response, _, part) => {
    response.write(part.subarray(0, part.length >> 1));
    setTimeout(() => response.destroy(), 20);
  },
  'flipped bit': (response, _, part) => {
    const flipped = Buffer.from(part);
    flipped[flipped.length >> 1]! ^= 8;
    response.end(flipped);
  },
  'another range': (response, whole) => {
    response.setHeader('Content-Range', `bytes 0-9/${whole.length}`);
    response.removeHeader('Content-Length');
    response.end(whole.subarray(0, 10));
  },
  'whole file for a range': (response, whole) => {
    response.removeHeader('Content-Range');
    response.setHeader('Content-Length', whole.length);
    response.statusCode = 200;
    response.end(whole);
  },
};

async function startBadServer(files: ReadonlyMap<string, Buffer>): Promise<BadServer> {
  const asked: BadServer['asked'] = [];
  const faults: Record<string, number> = {};
  const flipped = new Set<string>();
  const names = Object.keys(FAULTS);
  let requests = 0;
  const server: Server = createServer((request, response) => {
    response.setHeader('Access-Control-Allow-Origin', '*');
    response.setHeader('Access-Control-Allow-Headers', 'Range');
    response.setHeader('Access-Control-Expose-Headers', 'Content-Range, ETag, Retry-After, Content-Encoding');
    if (request.method === 'OPTIONS') return response.writeHead(204).end();
    const path = request.url!.replace('/m/', '').replace(/\?.*/, '');
    const whole = files.get(path);
    if (!whole) return response.writeHead(404).end();
    const range = byteRange(request.headers.range, whole.length);
    if (range === 'unsatisfiable') return response.writeHead(416).end();
    const [begin, end] = range ?? [0, whole.length];
    const part = whole.subarray(begin, end);
    response.statusCode = range ? 206 : 200;
    response.setHeader('ETag', '"1"');
    response.setHeader('Content-Length', part.length);
    if (range) response.setHeader('Content-Range', `bytes ${begin}-${end - 1}/${whole.length}`);
    if (path === MANIFEST_FILE || !range) return response.end(part);
    asked.push({ path, begin, end });
    // Every fifth request goes wrong, each kind in turn.
    const name = names[Math.floor(requests / 5) % names.length]!;
    if (requests++ % 5 !== 4) return response.end(part);
    // A piece that comes wrong three times is given up; a piece has its bit flipped once.
    const piece = `${path} ${Math.floor(begin / PIECE_BYTES)}`;
    if (name === 'flipped bit' && flipped.has(piece)) return response.end(part);
    if (name === 'flipped bit') flipped.add(piece);
    faults[name] = (faults[name] ?? 0) + 1;
    FAULTS[name]!(response, whole, part);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/m/`,
    asked,
    faults,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

describe('the store of models', () => {
  let chromium: Chromium;
  let server: BadServer;
  let context: BrowserContext;
  let page: Page;
  let pieces = 0;
  let sizeBytes = 0;

  const newPage = async (search = '?idle'): Promise<Page> => {
    const opened = await context.newPage();
    opened.on('pageerror', (error) => console.log(`Uncaught in the page: ${error.stack ?? error.message}`));
    await opened.goto(chromium.url + search);
    return opened;
  };
  const list = () => page.evaluate(() => zoetrope.models.list());

  beforeAll(async () => {
    const files = new Map(readdirSync(demoModel).map((name) => [name, readFileSync(join(demoModel, name))]));
    const manifest = JSON.parse(files.get(MANIFEST_FILE)!.toString()) as Manifest;
    await repiece(manifest, files, PIECE_BYTES);
    files.set(MANIFEST_FILE, Buffer.from(JSON.stringify(manifest)));
    const all = Object.values(manifest.components).flat();
    pieces = all.reduce((sum, file) => sum + file.pieces.length, 0);
    sizeBytes = all.reduce((sum, file) => sum + file.sizeBytes, 0);
    server = await startBadServer(files);
    chromium = await openChromium();
    context = await chromium.browser.newContext();
    page = await newPage();
  });

  afterAll(async () => {
    await chromium?.close();
    await server?.close();
  });

  it('downloads through faults, stopped once and continued, in two tabs at once', async () => {
    const stop = await page.evaluate(async (url) => {
      const controller = new AbortController();
      try {
        await zoetrope.models.download(url, {
          signal: controller.signal,
          onProgress: ({ doneBytes, totalBytes }) => doneBytes > totalBytes / 3 && controller.abort(),
        });
        return 'complete';
      } catch (error) {
        return (error as { code: string }).code;
      }
    }, server.url);
    expect(stop).toBe('aborted');
    const [partial] = await list();
    expect(partial).toMatchObject({ state: 'partial', sizeBytes, busy: false });
    expect(partial!.storedBytes).toBeGreaterThan(sizeBytes / 8);

    const other = await newPage();
    const began = performance.now();
    const results = await Promise.all(
      [page, other].map((tab) =>
        tab.evaluate(async (url) => {
          const seen: Record<string, number> = {};
          const onProgress = ({ state }: StoreProgress) => {
            seen[state] = (seen[state] ?? 0) + 1;
          };
          return { id: await zoetrope.models.download(url, { onProgress }), seen };
        }, server.url),
      ),
    );
    console.log(
      `${pieces} pieces, ${server.asked.length} requests, ${Math.round(performance.now() - began)} ms; faults ${JSON.stringify(server.faults)}; tabs saw ${JSON.stringify(results.map(({ seen }) => seen))}`,
    );
    await other.close();
    expect(results[0]!.id).toBe(results[1]!.id);
    expect(results.some(({ seen }) => seen.waiting! > 0)).toBe(true);
    expect(Object.keys(server.faults).sort()).toEqual(Object.keys(FAULTS).sort());
    // Once each, and one piece more for each fault and for the stop.
    const faults = Object.values(server.faults).reduce((sum, count) => sum + count, 0);
    const asked = server.asked.reduce((sum, { begin, end }) => sum + end - begin, 0);
    expect(asked).toBeLessThanOrEqual(sizeBytes + (faults + 1) * PIECE_BYTES);
    expect(await list()).toMatchObject([
      { id: results[0]!.id, state: 'complete', storedBytes: sizeBytes, url: server.url },
    ]);
  });

  it('says when the disk is full, and goes on from there when there is room', async () => {
    const id = (await list())[0]!.id;
    await page.evaluate((stored) => zoetrope.models.delete(stored), id);
    const origin = new URL(chromium.url).origin;
    const session = await context.newCDPSession(page);
    const download = () =>
      page.evaluate(
        (url) =>
          zoetrope.models.download(url).then(
            () => 'complete',
            (error: { code: string; message: string }) => `${error.code}: ${error.message}`,
          ),
        server.url,
      );
    const before = server.asked.length;
    // Less than is needed; `navigator.storage.estimate` does not know of it, so that the download runs into it.
    await session.send('Storage.overrideQuotaForOrigin', { origin, quotaSize: sizeBytes / 2 });
    try {
      expect(await download()).toMatch(
        /^storage-full: The model needs \d+ more bytes of storage; this browser offers \d+\./,
      );
    } finally {
      await session.send('Storage.overrideQuotaForOrigin', { origin });
    }
    expect((await list())[0]).toMatchObject({ state: 'partial' });
    expect(await download()).toBe('complete');
    const found = await page.evaluate((stored) => zoetrope.models.verify(stored), id);
    expect(found).toEqual({ complete: true, broken: [], verifiedBytes: sizeBytes });
    const asked = server.asked.slice(before).reduce((sum, { begin, end }) => sum + end - begin, 0);
    console.log(`${asked} bytes asked for of ${sizeBytes}, the disk full once`);
    await session.detach();
  });

  it('keeps what came when its worker is killed, time and again', async () => {
    const id = (await list())[0]!.id;
    await page.evaluate((stored) => zoetrope.models.delete(stored), id);
    const before = server.asked.length;
    const faultsBefore = Object.values(server.faults).reduce((sum, count) => sum + count, 0);
    let kills = 0;
    for (let asked = 25; kills < 4; kills++, asked += 25) {
      const tab = await newPage();
      const dead = tab.evaluate((url) => zoetrope.models.download(url), server.url).catch(() => 'killed');
      await expect.poll(() => server.asked.length - before, { interval: 5, timeout: 60_000 }).toBeGreaterThan(asked);
      await tab.close(); // Ends its workers wherever they are.
      expect(await dead).toBe('killed');
    }
    await page.evaluate((url) => zoetrope.models.download(url), server.url);
    const found = await page.evaluate((stored) => zoetrope.models.verify(stored), id);
    expect(found).toEqual({ complete: true, broken: [], verifiedBytes: sizeBytes });
    const faults = Object.values(server.faults).reduce((sum, count) => sum + count, 0) - faultsBefore;
    const asked = server.asked.slice(before).reduce((sum, { begin, end }) => sum + end - begin, 0);
    console.log(`${asked} bytes asked for of ${sizeBytes}, with ${kills} kills and ${faults} faults`);
    expect(asked).toBeLessThanOrEqual(sizeBytes + (faults + kills) * PIECE_BYTES);
  });

  it('finds a flipped bit on the disk and repairs that piece', async () => {
    const before = server.asked.length;
    const { found, repaired } = await page.evaluate(async () => {
      const id = (await zoetrope.models.list())[0]!.id;
      let folder = await navigator.storage.getDirectory();
      for (const name of ['zoetrope-models', id, 'model']) folder = await folder.getDirectoryHandle(name);
      const file = await folder.getFileHandle('high.safetensors');
      const writable = await file.createWritable({ keepExistingData: true });
      await writable.write({ type: 'write', position: 1_000_000, data: new Uint8Array([1, 2, 3]) });
      await writable.close();
      const found = await zoetrope.models.verify(id);
      await zoetrope.models.repair(id);
      return { found, repaired: await zoetrope.models.verify(id) };
    });
    expect(found).toMatchObject({ complete: false, broken: [{ path: 'high.safetensors', begin: 3 * PIECE_BYTES }] });
    expect(repaired).toEqual({ complete: true, broken: [], verifiedBytes: sizeBytes });
    const repairs = server.asked.slice(before);
    expect(repairs.every(({ path }) => path === 'high.safetensors')).toBe(true);
    expect(Math.min(...repairs.map(({ begin }) => begin))).toBe(3 * PIECE_BYTES);
    expect(Math.max(...repairs.map(({ end }) => end))).toBe(4 * PIECE_BYTES);
  });

  it('opens the model after a reload without the server, and generates', async () => {
    const id = (await list())[0]!.id;
    await server.close();
    await page.reload();
    const made = await page.evaluate(async (url) => {
      const opened = await zoetrope.load({ model: url });
      const { storedId } = opened.model;
      const verifying = zoetrope.models.verify(storedId!); // Two may read at once.
      const { video } = await opened.generate({
        prompt: 'a red circle',
        seed: 1,
        num_frames: 17,
        num_inference_steps: 2,
        aspect_ratio: '1:1',
      });
      const { complete } = await verifying;
      const refusal = await zoetrope.models.delete(storedId!).catch((error: { code: string }) => error.code);
      opened.close();
      return { storedId, complete, bytes: video.file_size, refusal };
    }, server.url);
    expect(made).toMatchObject({ storedId: id, complete: true });
    expect(made.bytes).toBeGreaterThan(1000);
    expect(made.refusal).toBe('model-in-use');
  });

  it('shows its models on a screen that keys and phones can use', async () => {
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.setViewportSize({ width: 360, height: 740 });
    await screenshot(page, 'models-phone-closed');
    await page.getByRole('button', { name: 'Models' }).focus();
    await page.keyboard.press('Enter');
    const dialog = page.getByRole('dialog', { name: 'Models in this browser' });
    await dialog.getByText(/free\./).waitFor();
    await dialog.getByRole('button', { name: 'Verify demo' }).focus();
    await page.keyboard.press('Enter');
    await dialog.getByText('are as published.').waitFor();
    await screenshot(page, 'models-phone');
    expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'hidden' });

    await page.emulateMedia({ colorScheme: 'light' });
    await page.setViewportSize({ width: 1280, height: 800 });
    await page.getByRole('button', { name: 'Models' }).click();
    // From the page's own server, which is slow: the download is seen, paused, continued and thrown away.
    await context.route('**/models/demo/*.safetensors', async (route) => {
      await new Promise((resolve) => setTimeout(resolve, 1500));
      await route.continue().catch(() => undefined); // Paused meanwhile.
    });
    await dialog
      .getByRole('textbox', { name: 'Download from an address' })
      .fill(new URL('models/demo/', chromium.url).href);
    await page.keyboard.press('Enter');
    await dialog.getByRole('button', { name: 'Pause demo' }).waitFor();
    await screenshot(page, 'models-download');
    await dialog.getByRole('button', { name: 'Pause demo' }).click();
    await dialog.getByRole('button', { name: 'Resume demo' }).click();
    await dialog.getByRole('button', { name: 'Cancel demo' }).click();
    await dialog.getByRole('button', { name: 'Throw away? demo' }).click();
    await dialog.getByRole('button', { name: 'Resume demo' }).waitFor({ state: 'hidden' });
    await dialog.getByRole('button', { name: 'Delete demo' }).click();
    await dialog.getByRole('button', { name: 'Delete for good? demo' }).click();
    await dialog.getByText('No model is stored yet').waitFor();
    expect(await list()).toEqual([]);
    await screenshot(page, 'models-empty');
  });
});
