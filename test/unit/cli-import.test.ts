import { mkdir, mkdtemp, readdir, readFile, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { diskFolder, diskSink } from '../../src/cli/files';
import { importCommand } from '../../src/cli/import';
import { openSources } from '../../src/cli/sources';
import { openModel } from '../../src/store/verified';
import { checkpointFiles } from '../harness/checkpoint';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-'));
});

afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});

describe('zoetrope import', () => {
  async function run(...args: string[]) {
    for (const [path, bytes] of checkpointFiles()) {
      await mkdir(dirname(join(folder, 'from', path)), { recursive: true });
      await writeFile(join(folder, 'from', path), bytes);
    }
    const log = vi.spyOn(console, 'log').mockImplementation(() => undefined);
    const command = importCommand()
      .exitOverride()
      .configureOutput({ writeErr: () => undefined });
    await command.parseAsync(['--from', join(folder, 'from'), ...args], { from: 'user' });
    return log.mock.calls.flat().join('\n');
  }

  it('turns a folder into a model that opens, named after its folder, and tells what it wrote', async () => {
    const to = join(folder, 'models/tiny');
    const said = await run('--to', to, '--quant', 'q4', '--license', 'MIT');
    const { manifest } = await openModel(diskFolder(to));
    expect(manifest).toMatchObject({ name: 'tiny', license: 'MIT', quantization: 'q4' });
    expect((await readdir(to)).sort()).toEqual(
      ['high', 'low', 'text_encoder', 'vae']
        .map((name) => `${name}.safetensors`)
        .concat('tokenizer.json', 'zoetrope.json')
        .sort(),
    );
    expect(said).toMatch(/tiny, custom, q4[\s\S]*high\.safetensors/);
  });

  it('takes a name and sizes', async () => {
    const sizes = { '16:9': [48, 32], '9:16': [32, 48], '1:1': [32, 32] };
    const all = JSON.stringify({ '480p': sizes, '580p': sizes, '720p': sizes });
    await run('--to', join(folder, 'to'), '--name', 'Small one', '--sizes', all);
    const { manifest } = await openModel(diskFolder(join(folder, 'to')));
    expect(manifest.name).toBe('Small one');
    expect(manifest.quantization).toBe('q8');
    expect(manifest.sizes['580p']).toEqual(sizes);
  });

  it.each(['{', '{}', 'null', '{"480p":{"16:9":[100,64]}}'])('refuses the sizes %j', async (sizes) => {
    await expect(run('--to', join(folder, 'to'), '--sizes', sizes)).rejects.toMatchObject({ code: 'bad-request' });
    await expect(readdir(join(folder, 'to'))).rejects.toThrow();
  });

  it('refuses to write over its own sources', async () => {
    const model = join(folder, 'model');
    await run('--to', model);
    const vae = join(model, 'vae.safetensors');
    const before = await readFile(vae);
    for (const more of [[], ['--components', 'vae']]) {
      await expect(run('--to', `${folder}/./model`, '--from', vae, ...more)).rejects.toMatchObject({
        code: 'bad-request',
        message: expect.stringContaining('its own source'),
      });
    }
    expect(await readFile(vae)).toEqual(before);
  });

  it('refuses another form of storage', async () => {
    await expect(run('--to', join(folder, 'to'), '--quant', 'q5')).rejects.toMatchObject({
      code: 'commander.invalidArgument',
    });
  });
});

describe('files on disk', () => {
  it('are read in ranges, and refused beyond their end or when they are folders', async () => {
    await writeFile(join(folder, 'a'), Uint8Array.of(1, 2, 3, 4));
    const file = await diskFolder(folder).open('a');
    expect(file.sizeBytes).toBe(4);
    expect(await file.read(1, 3)).toEqual(Uint8Array.of(2, 3));
    await expect(file.read(2, 6)).rejects.toMatchObject({ code: 'unreadable-source' });
    await rm(join(folder, 'a'));
    await expect(file.read(0, 1)).rejects.toMatchObject({ code: 'unreadable-source' });
    await expect(diskFolder(folder).open('a')).rejects.toMatchObject({ code: 'unreadable-source' });
    await expect(diskFolder(dirname(folder)).open(folder.split('/').pop()!)).rejects.toThrow('not a file');
  });

  it('as sources are refused when they are replaced between two reads, even by one as long', async () => {
    await writeFile(join(folder, 'a.model'), Uint8Array.of(1, 2, 3, 4));
    const [source] = await openSources({ from: [join(folder, 'a.model')] });
    expect(await source!.file!.read(0, 2)).toEqual(Uint8Array.of(1, 2));
    await writeFile(join(folder, 'new'), Uint8Array.of(5, 6, 7, 8));
    await utimes(join(folder, 'new'), 1, 2);
    await rename(join(folder, 'new'), join(folder, 'a.model'));
    await expect(source!.file!.read(2, 4)).rejects.toMatchObject({
      code: 'unreadable-source',
      message: expect.stringContaining('was changed while it was read'),
    });
  });

  it('fail typed when they cannot be removed', async () => {
    await writeFile(join(folder, 'file'), '');
    await mkdir(join(folder, 'd'));
    await expect(diskSink(join(folder, 'file')).remove('a')).rejects.toMatchObject({ code: 'unreadable-source' });
    await expect(diskSink(folder).remove('d')).rejects.toMatchObject({ code: 'unreadable-source' });
  });

  it('are written at positions in any order, replacing what was there', async () => {
    await mkdir(join(folder, 'd'));
    await writeFile(join(folder, 'd/a'), new Uint8Array(100));
    const sink = diskSink(folder);
    const file = await sink.create('d/a');
    await file.write(3, Uint8Array.of(4, 5));
    await file.write(0, Uint8Array.of(1, 2, 3));
    await file.close();
    expect([...(await readFile(join(folder, 'd/a')))]).toEqual([1, 2, 3, 4, 5]);
    await sink.remove('d/a');
    await sink.remove('d/a');
    expect(await readdir(join(folder, 'd'))).toEqual([]);
    await writeFile(join(folder, 'b'), '');
    await expect(sink.create('b/c')).rejects.toMatchObject({ code: 'unreadable-source' });
  });
});
