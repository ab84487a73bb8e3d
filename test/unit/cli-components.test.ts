import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { diskFolder } from '../../src/cli/files';
import { importCommand } from '../../src/cli/import';
import { hashPiece } from '../../src/manifest';
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
  await command.parseAsync([...args, ...quant, '--name', 'm'], { from: 'user' });
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
