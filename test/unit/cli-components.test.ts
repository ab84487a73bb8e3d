import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { ResumableFolder } from '../../src/checkpoint/journal';
import { openComponents } from '../../src/checkpoint/open';
import { withAcceleration } from '../../src/cli/calibrate';
import { diskFolder, diskTarget } from '../../src/cli/files';
import { importCommand } from '../../src/cli/import';
import { ZoetropeError } from '../../src/errors';
import { COMPONENT_NAMES, importComponents } from '../../src/import/components';
import { hashPiece } from '../../src/manifest';
import { parseManifest } from '../../src/store/manifest-reader';
import { openModel } from '../../src/store/verified';
import { checkpointFiles, replaceJson } from '../harness/checkpoint';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-'));
  await checkpoint('from');
});

afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});

async function checkpoint(name: string, files = checkpointFiles()): Promise<void> {
  for (const [path, bytes] of files) {
    await mkdir(dirname(join(folder, name, path)), { recursive: true });
    await writeFile(join(folder, name, path), bytes);
  }
}

/** Runs `zoetrope import` and gives what it says. */
async function run(...args: string[]): Promise<string> {
  const quant = args.includes('--quant') ? [] : ['--quant', 'q4'];
  const log = vi.spyOn(console, 'log').mockImplementation(() => undefined);
  log.mockClear();
  const command = importCommand()
    .exitOverride()
    .configureOutput({ writeErr: () => undefined });
  const name = args.includes('--unnamed') || args.includes('--name') ? [] : ['--name', 'm'];
  await command.parseAsync([...args.filter((arg) => arg !== '--unnamed'), ...quant, ...name], { from: 'user' });
  return log.mock.calls.flat().join('\n');
}

const at = (...names: string[]) => join(folder, ...names);

async function contents(name: string): Promise<Record<string, string>> {
  const names = (await readdir(at(name))).sort();
  return Object.fromEntries(
    await Promise.all(names.map(async (file) => [file, await hashPiece(await readFile(at(name, file)))] as const)),
  );
}

describe('zoetrope import --components', { timeout: 30_000 }, () => {
  it('one after the other, from folders and files, make the very folder that a whole import makes', async () => {
    await run('--from', at('from'), '--to', at('whole'));
    const first = await run('--from', at('from'), '--to', at('parts'), '--components', 'high,tokenizer');
    expect(first).toContain('no model yet. Still missing: low, text_encoder, vae.');
    expect(first).toContain('--components low,text_encoder,vae');
    await expect(openModel(diskFolder(at('parts')))).rejects.toMatchObject({ code: 'unreadable-source' });
    const low = at('from/transformer_2/diffusion_pytorch_model.safetensors');
    expect(await run('--low', low, '--to', at('parts'), '--components', 'low')).toContain(
      'missing: text_encoder, vae.',
    );
    const text = at('from/text_encoder/model.safetensors');
    expect(await run('--from', text, '--to', at('parts'), '--components', 'text_encoder')).toContain('missing: vae.');
    expect(await run('--from', at('from'), '--to', at('parts'), '--components', 'vae')).toMatch(
      /m, custom, q4[\s\S]*vae/,
    );
    expect(await contents('parts')).toEqual(await contents('whole'));
  });

  it('replace one of a whole model and leave the others', async () => {
    await run('--from', at('from'), '--to', at('model'), '--license', 'Apache-2.0');
    const before = await contents('model');
    const said = await run('--from', at('from'), '--to', at('model'), '--components', 'vae');
    expect(said).toContain('m, custom, q4');
    expect(await contents('model')).toEqual(before);
  });

  it('leave the name, and what was measured of experts that stay', async () => {
    await run('--from', at('from'), '--to', at('model'));
    const path = at('model/zoetrope.json');
    const ratios = { sigmas: [0.9, 0.5], conditional: [1, 0.9], unconditional: [1, 0.8] };
    const acceleration = { threshold: 0.1, maxSkips: 1, retention: 0.2, high: ratios, low: ratios };
    const measured = withAcceleration(parseManifest(await readFile(path)), acceleration);
    await writeFile(path, measured);
    await run('--from', at('from'), '--to', at('model'), '--components', 'vae', '--unnamed');
    expect(await readFile(path, 'utf8')).toBe(measured);
    await run('--from', at('from'), '--to', at('model'), '--components', 'high', '--name', 'new');
    expect(parseManifest(await readFile(path)).acceleration).toBeUndefined();
    expect(parseManifest(await readFile(path)).name).toBe('new');
  });

  it('are not forgotten when the disk is full while the folder is noted', async () => {
    await run('--from', at('from'), '--to', at('whole'));
    const wanted = COMPONENT_NAMES.filter((name) => name !== 'vae');
    await run('--from', at('from'), '--to', at('model'), '--components', wanted.join());
    const before = await contents('model');
    const note = await readFile(at('model/zoetrope-partial.json'));
    for (const cut of ['zoetrope-partial.json', 'zoetrope-partial-new.json', 'zoetrope.json']) {
      const target = diskTarget(at('model'));
      const full: ResumableFolder = {
        ...target,
        create: async (path) => {
          const file = await target.create(path);
          if (path !== cut) return file;
          const write = () => Promise.reject(new ZoetropeError('unreadable-source', 'No space left on the device.'));
          return { write, close: () => file.close() };
        },
      };
      const opened = await openComponents([{ path: 'from', folder: diskFolder(at('from')) }], ['vae']);
      const options = { folder: full, wanted: ['vae'] as const, quantization: 'q4' as const, defaultName: 'm' };
      await expect(importComponents(opened, options)).rejects.toMatchObject({ code: 'unreadable-source' });
      await run('--from', at('from'), '--to', at('model'), '--components', 'vae');
      expect(await contents('model')).toEqual(await contents('whole'));
      await rm(at('model/zoetrope.json'));
      await writeFile(at('model/zoetrope-partial.json'), note);
      await rm(at('model/vae.safetensors'));
      expect(await contents('model')).toEqual(before);
    }
  });

  it('of a model that is taken apart are not lost when the sources fail', async () => {
    await run('--from', at('from'), '--to', at('model'));
    const before = await contents('model');
    const shard = at('from/vae/diffusion_pytorch_model.safetensors');
    const whole = await readFile(shard);
    const broken = Buffer.from(whole);
    broken.fill(0xff, whole.length >> 1, (whole.length >> 1) + 64);
    await writeFile(shard, broken); // not finite
    await expect(run('--from', at('from'), '--to', at('model'), '--components', 'vae')).rejects.toMatchObject({
      code: 'bad-checkpoint',
    });
    expect(await readdir(at('model'))).not.toContain('zoetrope.json');
    await writeFile(shard, whole);
    await run('--from', at('from'), '--to', at('model'), '--components', 'vae');
    expect(await contents('model')).toEqual(before);
  });

  it.each([
    [['--components', 'high,unet'], 'bad-request', '"unet"'],
    [['--components', ''], 'bad-request', 'got ""'],
    [['--components', 'vae', '--name', ''], 'bad-request', 'The name has 1 to 200 characters, got 0'],
    [['--name', 'x'.repeat(201)], 'bad-request', 'got 201'],
    [['--license', ''], 'bad-request', 'The license has 1 to 200'],
  ])('%j is refused', async (args, code, text) => {
    const failure = await run('--from', at('from'), '--to', at('to'), ...args).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code, message: expect.stringContaining(text) });
    await expect(readdir(at('to'))).rejects.toThrow();
  });

  it('are refused where the source has none, or the folder holds others of another kind', async () => {
    const vae = at('from/vae/diffusion_pytorch_model.safetensors');
    await expect(run('--from', vae, '--to', at('to'), '--components', 'low')).rejects.toMatchObject({
      code: 'bad-checkpoint',
      message: expect.stringContaining('low-noise expert'),
    });
    await run('--from', at('from'), '--to', at('to'), '--components', 'high');
    await expect(
      run('--from', at('from'), '--to', at('to'), '--components', 'low', '--quant', 'q8'),
    ).rejects.toMatchObject({ code: 'bad-request', message: expect.stringContaining('--quant q4') });
    const other = checkpointFiles();
    replaceJson(other, 'model_index.json', { boundary_ratio: 0.5 });
    await checkpoint('other', other);
    const said = await run('--from', at('other'), '--to', at('half'), '--components', 'high');
    expect(said).toContain('missing: low');
  });
});
