import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { type BrowserContext, chromium as browserType, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { browserArguments, findBrowser } from '../../src/cli/browser';
import { byteRange } from '../../src/cli/server';
import { MANIFEST_FILE } from '../../src/manifest';
import type { StoreProgress } from '../../src/protocol';
import { type Chromium, openChromium, type PageError, screenshot } from '../harness/chromium';
import { shardFile } from '../harness/shards';

/** The demo checkpoint as diffusers saves it. */
const source = resolve(import.meta.dirname, '../../../shared/data/demo-model');
const command = resolve(import.meta.dirname, '../../bin/zoetrope.js');
const SETTINGS = { name: 'imported', quantization: 'q8', license: 'Apache-2.0' } as const;

/** Serves the checkpoint to pages of other origins, and can keep the weights of the second expert back. */
interface HoldingServer {
  url: string;
  /** From now on those weights wait, until {@link release}. */
  hold(): void;
  /** Resolves when they are asked for. */
  reached: Promise<void>;
  release(): void;
  /** Folders whose weights were asked for, range by range. */
  readonly asked: string[];
  close(): void;
}

async function startHoldingServer(): Promise<HoldingServer> {
  let released = Promise.resolve();
  let reach: () => void = () => undefined;
  const server = createServer(async (request, response) => {
    response.setHeader('Access-Control-Allow-Origin', '*');
    response.setHeader('Access-Control-Allow-Headers', 'Range');
    response.setHeader('Access-Control-Expose-Headers', 'Content-Range');
    if (request.method === 'OPTIONS') return response.writeHead(204).end();
    const path = join(source, new URL(request.url!, 'http://x').pathname);
    if (!existsSync(path) || !statSync(path).isFile()) return response.writeHead(404).end();
    const whole = readFileSync(path);
    const range = byteRange(request.headers.range, whole.length);
    if (!range || range === 'unsatisfiable') return response.writeHead(416).end();
    const [begin, end] = range;
    const folder = relative(source, path).split('/')[0]!;
    // Headers and single vectors are shorter.
    const weights = end - begin > 20_000 && path.endsWith('.safetensors') && begin > 0;
    if (weights) holding.asked.push(folder);
    if (weights && folder === 'transformer_2') {
      reach();
      await released;
    }
    response.writeHead(206, { 'Content-Range': `bytes ${begin}-${end - 1}/${whole.length}` });
    return response.end(whole.subarray(begin, end));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const holding: HoldingServer = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    reached: Promise.resolve(),
    release: () => undefined,
    asked: [],
    hold() {
      holding.reached = new Promise((resolve) => (reach = resolve));
      released = new Promise((resolve) => (holding.release = resolve));
    },
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
  return holding;
}

/** Every file below a folder, by its path from there. */
function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)));
}

describe('an import in the page', () => {
  let chromium: Chromium;
  let server: HoldingServer;
  let context: BrowserContext;
  let page: Page;
  let scratch: string;
  /** The same checkpoint with its experts in three shards each. */
  let sharded: string;
  /**
   * Id of the model that the command line makes of the same files: the hash of its manifest, which holds all other
   * hashes.
   */
  let wanted: string;

  const newPage = async (): Promise<Page> => {
    const opened = await context.newPage();
    opened.on('pageerror', (error) => console.log(`Uncaught in the page: ${error.stack ?? error.message}`));
    await prepare(opened);
    return opened;
  };
  /** Loads the page and gives it what the tests call. */
  const prepare = async (opened: Page): Promise<void> => {
    await opened.goto(`${chromium.url}?idle`);
    await opened.evaluate(() => {
      globalThis.caught = (promise) =>
        promise.then(
          () => Promise.reject(new Error('This resolved, but should have been refused.')),
          ({ code, message, detail }: PageError) => ({ code, message, detail }),
        );
    });
    await opened.evaluate((paths) => {
      globalThis.chosenFiles = async () =>
        Promise.all(
          paths.map(async (path) => {
            const bytes = await (await fetch(`/sharded/${path}`)).arrayBuffer();
            const file = new File([bytes], path.split('/').at(-1)!);
            // What a folder's input gives, which scripts cannot set otherwise.
            Object.defineProperty(file, 'webkitRelativePath', { value: `Wan/${path}` });
            return file;
          }),
        );
    }, filesBelow(sharded));
  };
  beforeAll(async () => {
    scratch = mkdtempSync(join(tmpdir(), 'zoetrope-import-'));
    const { name, quantization, license } = SETTINGS;
    const args = ['--from', source, '--to', scratch, '--name', name, '--quant', quantization, '--license', license];
    execFileSync(process.execPath, [command, 'import', ...args], { stdio: 'ignore' });
    wanted = createHash('sha256')
      .update(readFileSync(join(scratch, MANIFEST_FILE)))
      .digest('hex');
    sharded = join(scratch, 'sharded');
    for (const path of filesBelow(source).filter((name) => !name.startsWith('golden'))) {
      const bytes = readFileSync(join(source, path));
      const stem = basename(path, '.safetensors');
      const large = path.startsWith('transformer') && path.endsWith('.safetensors');
      const files = large ? shardFile(bytes, stem, 3) : new Map([[basename(path), bytes]]);
      mkdirSync(join(sharded, dirname(path)), { recursive: true });
      for (const [name, part] of files) writeFileSync(join(sharded, dirname(path), name), part);
    }
    server = await startHoldingServer();
    chromium = await openChromium({
      '/parts/film/': resolve(import.meta.dirname, '../../../shared/data/film'),
      '/source/': source,
      '/sharded/': sharded,
      '/parts/rife/': resolve(import.meta.dirname, '../../../shared/data/rife'),
    });
  });

  afterAll(async () => {
    await chromium?.close();
    server?.close();
    rmSync(scratch, { recursive: true });
  });

  beforeEach(async () => {
    context = await chromium.browser.newContext();
    page = await newPage();
  });

  afterEach(() => context.close());

  it('of a folder’s files, experts in shards, gives the bytes that the command line makes of whole files, and generates', async () => {
    const made = await page.evaluate(async (settings) => {
      const files = await chosenFiles();
      const outlook = await zoetrope.models.inspect(files);
      const seen: StoreProgress[] = [];
      const onProgress = (progress: StoreProgress) => seen.push(progress);
      const id = await zoetrope.models.import(files, settings, { onProgress });
      const again = await zoetrope.models.import(files, settings);
      const verified = await zoetrope.models.verify(id);
      const opened = await zoetrope.load({ model: `stored:${id}` });
      const { video } = await opened.generate({
        prompt: 'a red circle',
        seed: 1,
        num_frames: 17,
        num_inference_steps: 2,
        aspect_ratio: '1:1',
        num_interpolated_frames: 0,
      });
      const { storedId } = opened.model;
      opened.close();
      const list = await zoetrope.models.list();
      const unfinished = await zoetrope.models.unfinished();
      return {
        outlook,
        last: seen.at(-1)!,
        states: [...new Set(seen.map(({ state }) => state))],
        id,
        again,
        verified,
        storedId,
        bytes: video.file_size,
        list,
        unfinished,
      };
    }, SETTINGS);
    expect(made.outlook.found.map(({ kind, role }) => [kind, role])).toEqual(
      expect.arrayContaining([
        ['dit', 'high'],
        ['dit', 'low'],
        ['text_encoder', undefined],
        ['vae', undefined],
      ]),
    );
    expect(made.outlook).toMatchObject({ experts: 2, modelBytes: { q8: expect.any(Number) } });
    expect(made.states).toEqual(['importing']);
    expect(made.last.doneBytes).toBe(made.last.totalBytes);
    expect(made).toMatchObject({
      id: wanted,
      again: wanted,
      storedId: wanted,
      verified: { complete: true, broken: [] },
    });
    expect(made.list).toMatchObject([{ id: wanted, name: 'imported', state: 'complete', url: null, busy: false }]);
    expect(made.list[0]!.sizeBytes).toBeLessThanOrEqual(made.outlook.modelBytes!.q8);
    expect(made.unfinished).toEqual([]);
    expect(made.bytes).toBeGreaterThan(1000);
  });

  it('that dies with its page goes on after a reload, in a second tab, when the first waits no more', async () => {
    server.hold();
    const stuck = page.evaluate(
      ([url, settings]) => zoetrope.models.import([url], settings).catch((error: { code: string }) => error.code),
      [server.url, SETTINGS] as const,
    );
    stuck.catch(() => undefined); // Its page goes.
    await server.reached;
    const other = await newPage();
    const waiting = other.evaluate(
      async ([url, settings]) => {
        return zoetrope.models.import([url], settings);
      },
      [server.url, SETTINGS] as const,
    );
    await expect
      .poll(() => other.evaluate(() => zoetrope.models.unfinished()))
      .toMatchObject([{ name: 'imported', sources: [server.url], busy: true, remembered: true }]);
    server.asked.length = 0;
    await page.reload();
    server.release();
    expect(await waiting).toBe(wanted);
    // The text encoder and one expert were whole.
    expect(new Set(server.asked)).toEqual(new Set(['transformer_2', 'vae']));
    expect(await other.evaluate(() => zoetrope.models.unfinished())).toEqual([]);
  });

  it('waits for another tab that does the same', async () => {
    server.hold();
    const importing = (tab: Page) =>
      tab.evaluate(
        async ([url, settings]) => {
          const states = new Set<string>();
          const notes = new Set<string>();
          const onProgress = ({ state, note }: StoreProgress) => {
            states.add(state);
            notes.add(note);
          };
          const id = await zoetrope.models.import([url], settings, { onProgress });
          return { id, states: [...states], notes: [...notes] };
        },
        [server.url, SETTINGS] as const,
      );
    const first = importing(page);
    await server.reached;
    const other = await newPage();
    const second = importing(other);
    await other.waitForTimeout(1000); // Its lock is asked for.
    server.release();
    const results = await Promise.all([first, second]);
    expect(results).toMatchObject([
      { id: wanted, states: ['importing'] },
      { id: wanted, states: ['waiting'], notes: ['Another tab of this page imports this model.'] },
    ]);
  });

  it('stops where room runs out, and goes on when there is more', async () => {
    const session = await context.newCDPSession(page);
    const origin = new URL(chromium.url).origin;
    await session.send('Storage.overrideQuotaForOrigin', { origin, quotaSize: 1_500_000 });
    const full = await page.evaluate((settings) => caught(zoetrope.models.import(['/source/'], settings)), SETTINGS);
    expect(full.code).toBe('storage-full');
    expect(full.detail[0]!.ctx).toMatchObject({ neededBytes: expect.any(Number), availableBytes: expect.any(Number) });
    const [left] = await page.evaluate(() => zoetrope.models.unfinished());
    expect(left).toMatchObject({ remembered: true, busy: false, sources: [`${chromium.url}source/`] });
    expect(left!.storedBytes).toBeGreaterThan(0);
    expect(await page.evaluate(() => zoetrope.models.list())).toEqual([]);
    await session.send('Storage.overrideQuotaForOrigin', { origin });
    expect(await page.evaluate((id) => zoetrope.models.resume(id), left!.id)).toBe(wanted);
  });

  it('stops at the signal and goes on from a folder’s handle, which is remembered', async () => {
    // Chromium without a profile crashes when a handle is read back from IndexedDB.
    const { path, env } = await findBrowser(true);
    const profile = await browserType.launchPersistentContext(join(scratch, 'profile'), {
      executablePath: path,
      env: { ...(process.env as Record<string, string>), ...env },
      args: browserArguments(process.platform),
    });
    const own = await profile.newPage();
    await prepare(own);
    const made = await own.evaluate(async (settings) => {
      let folder = await navigator.storage.getDirectory();
      folder = await folder.getDirectoryHandle('Wan', { create: true });
      for (const file of await chosenFiles()) {
        const names = file.webkitRelativePath.split('/').slice(1);
        let within = folder;
        for (const name of names.slice(0, -1)) within = await within.getDirectoryHandle(name, { create: true });
        const writable = await (await within.getFileHandle(names.at(-1)!, { create: true })).createWritable();
        await writable.write(file);
        await writable.close();
      }
      const controller = new AbortController();
      const { signal } = controller;
      const onProgress = ({ doneBytes, totalBytes }: StoreProgress) =>
        doneBytes > 0.1 * totalBytes && controller.abort();
      const { code } = await caught(zoetrope.models.import([folder], settings, { signal, onProgress }));
      const [left] = await zoetrope.models.unfinished();
      return { code, left };
    }, SETTINGS);
    expect(made).toMatchObject({ code: 'aborted', left: { sources: ['Wan'], remembered: true, busy: false } });
    await prepare(own);
    expect(await own.evaluate((id) => zoetrope.models.resume(id), made.left!.id)).toBe(wanted);
    const unknown = await own.evaluate((id) => caught(zoetrope.models.resume(id)), made.left!.id);
    expect(unknown.code).toBe('unreadable-source');
    await profile.close();
  });

  it('refuses half a model, says what is missing, and keeps nothing', async () => {
    const { outlook, error, unfinished } = await page.evaluate(async () => {
      const [file] = (await chosenFiles()).filter(({ webkitRelativePath }) =>
        /vae.*safetensors/.test(webkitRelativePath),
      );
      const one = new File([file!], 'vae.safetensors');
      const outlook = await zoetrope.models.inspect([one]);
      const error = await caught(zoetrope.models.import([one]));
      return { outlook, error, unfinished: await zoetrope.models.unfinished() };
    });
    expect(outlook).toMatchObject({ found: [{ kind: 'vae', path: 'vae.safetensors' }], problem: error.message });
    expect(error).toMatchObject({ code: 'bad-checkpoint', message: expect.stringContaining('No source holds') });
    expect(unfinished).toEqual([]);
  });

  it('of an interpolator makes a part that every model finds, as a download of a model does', async () => {
    const made = await page.evaluate(async () => {
      const { models, load } = zoetrope;
      const film = await (await fetch('/parts/film/tiny-random.safetensors')).blob();
      const ids = [
        await models.import(['/parts/rife/flownet.param'], { license: 'MIT' }),
        await models.import([new File([film], 'film_net.safetensors')]),
      ];
      const imported = await models.parts();
      const opened = await load({ model: '/models/demo/', parts: '/nothing/' });
      const { available } = opened.model;
      const refusal = await caught(models.delete('part-film'));
      opened.close();
      for (const { id } of imported) await models.delete(id);
      const none = await models.parts();
      const id = await models.download('/models/demo/');
      const stored = await load({ model: `stored:${id}`, parts: '/nothing/' });
      const beside = stored.model.available;
      stored.close();
      return { ids, imported, available, refusal, none, beside };
    });
    expect(made.ids).toEqual(['part-rife', 'part-film']);
    expect(made.imported).toMatchObject([
      { id: 'part-film', part: 'film', license: 'unknown' },
      { id: 'part-rife', part: 'rife', name: 'RIFE 4.6', license: 'MIT' },
    ]);
    expect(made.available).toMatchObject({ film: true, rife: true });
    expect(made.refusal.code).toBe('model-in-use');
    expect(made.none).toEqual([]);
    expect(made.beside).toMatchObject({ film: false, rife: true });
  });

  it('is a part of the models screen: files, what they are, progress, pause, and the model in the list', async () => {
    await page.evaluate(() => {
      // Playwright drives inputs, not the pickers of the operating system.
      Object.assign(globalThis, { showOpenFilePicker: undefined, showDirectoryPicker: undefined });
    });
    await page.setViewportSize({ width: 1280, height: 1000 });
    await page.getByRole('button', { name: 'Models' }).click();
    const section = page.getByRole('region', { name: 'Import weights' });
    const choose = async (button: string, files: string | string[]) => {
      const [chooser] = await Promise.all([
        page.waitForEvent('filechooser'),
        section.getByRole('button', { name: button }).click(),
      ]);
      await chooser.setFiles(files);
    };
    await choose('Choose files', join(source, 'vae/diffusion_pytorch_model.safetensors'));
    await section.getByText('No source holds').waitFor();
    expect(await section.getByRole('button', { name: 'Import', exact: true }).isDisabled()).toBe(true);
    await screenshot(page, 'import-incomplete');
    await section.getByRole('button', { name: 'Clear' }).click();
    await choose('Choose a folder', source);
    await section.getByText('A whole model with two experts.').waitFor();
    await screenshot(page, 'import-ready');
    await section.getByLabel('Name').fill('by hand');
    await section.getByLabel('Matrices').selectOption('q4');
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.setViewportSize({ width: 360, height: 740 });
    await screenshot(page, 'import-ready-phone-dark');
    expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
    await section.getByRole('button', { name: 'Import', exact: true }).click();
    await section.getByText('of the sources').waitFor();
    await section.getByRole('button', { name: 'Pause' }).click();
    await section.getByText('Paused.').waitFor();
    await section.getByRole('button', { name: 'Continue by hand' }).click();
    await section.getByText('again and press Import').waitFor();
    await screenshot(page, 'import-paused-phone-dark');
    await section.getByRole('button', { name: 'Import', exact: true }).click();
    await section.getByText('Imported.').waitFor();
    const open = page.getByRole('link', { name: 'Open by hand' });
    expect(await open.getAttribute('href')).toMatch(/^\?model=stored%3A[0-9a-f]{64}$/);

    await page.emulateMedia({ colorScheme: 'light' });
    await choose('Choose files', resolve(source, '../film/tiny-random.safetensors'));
    await section.getByText('weights of FILM').waitFor();
    await section.getByRole('button', { name: 'Import', exact: true }).click();
    await section.getByText('FILM was added.').waitFor();
    await section.getByText(/FILM.*: stored in this browser/).waitFor();
    await screenshot(page, 'import-film-phone');
    await page.setViewportSize({ width: 1280, height: 1000 });
    await page.emulateMedia({ colorScheme: 'dark' });
    await screenshot(page, 'import-film-dark');
    await section.getByRole('button', { name: 'Delete FILM' }).click();
    await section.getByText('FILM: not stored in this browser.').waitFor();
  });
});

declare global {
  /** Left in the page: the checkpoint's files as an input for folders gives them. */
  var chosenFiles: () => Promise<File[]>;
}
