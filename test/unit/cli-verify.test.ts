import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ORIGINAL_DIT } from '../../src/checkpoint/names';
import { convertPool } from '../../src/cli/convert-pool';
import { diskFolder, diskSink } from '../../src/cli/files';
import { importProgressText, runImport } from '../../src/cli/import';
import { inspect, inspectCommand } from '../../src/cli/inspect';
import { openSources } from '../../src/cli/sources';
import { verifyCommand, verifyModel } from '../../src/cli/verify';
import type { Inspection } from '../../src/import/inspect';
import { checkpointFiles, componentTensors, SEEDS, SHAPES, safetensors, VAE } from '../harness/checkpoint';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-verify-'));
  const sink = diskSink(join(folder, 'from'));
  for (const [path, bytes] of checkpointFiles()) {
    const file = await sink.create(path);
    await file.write(0, bytes);
    await file.close();
  }
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});

const silent = () => {
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
  return vi.spyOn(console, 'log').mockImplementation(() => undefined);
};
const importArguments = (to: string) => ({ from: [join(folder, 'from')], to: join(folder, to), quant: 'q4' as const });

describe('verify', () => {
  it('accepts what an import wrote, and names the piece that changed', async () => {
    const log = silent();
    await runImport(importArguments('model'));
    const model = join(folder, 'model');
    expect(await verifyModel(diskFolder(model))).toMatchObject({ files: 5, bad: [] });
    await verifyCommand().parseAsync([model], { from: 'user' });
    expect(log.mock.calls.flat().join('\n')).toContain('5 files');

    const shard = join(model, 'high.safetensors');
    const bytes = await readFile(shard);
    bytes[bytes.length >> 1]! ^= 1;
    await writeFile(shard, bytes);
    expect((await verifyModel(diskFolder(model))).bad).toEqual([
      { path: 'high.safetensors', piece: 1, why: 'its SHA-256 is another' },
    ]);
    await expect(verifyCommand().parseAsync([model], { from: 'user' })).rejects.toMatchObject({ code: 'corrupt-data' });

    await truncate(join(model, 'vae.safetensors'), 1000);
    await rm(join(model, 'low.safetensors'));
    const { bad } = await verifyModel(diskFolder(model));
    expect(new Set(bad.map(({ path }) => path))).toEqual(
      new Set(['high.safetensors', 'vae.safetensors', 'low.safetensors']),
    );
  });

  it('refuses a folder without a manifest', async () => {
    await expect(verifyModel(diskFolder(folder))).rejects.toMatchObject({ code: 'unreadable-source' });
  });
});

describe('inspect', () => {
  it('tells the parts of a folder, a single file, and a model', async () => {
    const log = silent();
    const parts = (await inspect(join(folder, 'from'))).json as Inspection[];
    expect(parts.map(({ kind, role, names }) => [kind, role, names])).toEqual([
      ['dit', 'high', 'diffusers'],
      ['dit', 'low', 'diffusers'],
      ['text_encoder', undefined, 'transformers'],
      ['vae', undefined, 'diffusers'],
    ]);
    for (const { imported } of parts) expect(imported!.q4).toBeGreaterThan(0);
    const file = join(folder, 'wan_low_noise.safetensors');
    await writeFile(file, safetensors(componentTensors(SEEDS.transformer, SHAPES.transformer, ORIGINAL_DIT)));
    const [one] = (await inspect(file)).json as Inspection[];
    expect(one).toMatchObject({
      format: 'safetensors',
      kind: 'dit',
      role: 'low',
      names: 'original',
      storage: { F16: {} },
    });
    expect(one!.tensors).toHaveLength(SHAPES.transformer.size);
    expect(one!.imported!.q4).toBeLessThan(one!.imported!.q8);
    await inspectCommand().parseAsync([file], { from: 'user' });
    expect(log.mock.calls.flat().join('\n')).toMatch(/low-noise expert, custom, original names/);
    await runImport(importArguments('model'));
    expect((await inspect(join(folder, 'model'))).text).toContain('model "model", custom, q4');
  });

  it('says why a file cannot be imported', async () => {
    const file = join(folder, 'x.safetensors');
    await writeFile(file, safetensors(new Map([['x', { shape: [1], values: Float32Array.of(1) }]])));
    const [one] = (await inspect(file)).json as Inspection[];
    expect(one).toMatchObject({ kind: null, tensors: [{ name: 'x' }] });
    expect(one!.why).toContain("none of Wan's models");
  });

  it.each([
    ['tokenizer.json', JSON.stringify({ model: { type: 'Unigram' } }), 'JSON', 'tokenizer'],
    ['config.json', JSON.stringify({ _class_name: 'AutoencoderKLWan', ...VAE }), 'JSON', 'vae_config'],
  ])('tells %s, which has no tensors', async (name, content, format, kind) => {
    const path = join(folder, name);
    await writeFile(path, content);
    expect((await inspect(path)).json).toEqual([{ path, format, kind, storage: {}, tensors: [] }]);
    await writeFile(path, '{"weight_map": {}}');
    await expect(inspect(path)).rejects.toThrow('neither a tokenizer.json nor');
  });

  it('tells that an interpolator is imported as an optional part', async () => {
    const file = join(folder, 'film.safetensors');
    const name = 'extract.extract_sublevels.convs.0.0.conv.weight';
    await writeFile(file, safetensors(new Map([[name, { shape: [1], values: Float32Array.of(1) }]])));
    const { text, json } = await inspect(file);
    expect(text).toContain('interpolator, imported as the optional part "film"');
    expect(json).toMatchObject([{ kind: null, part: 'film', tensors: [{ name }] }]);
  });
});

describe('sources', () => {
  it('are files, folders of known layouts, or the weight files of any other folder', async () => {
    const at = join(folder, 'loose');
    const sink = diskSink(at);
    for (const name of ['b_low.gguf', 'a_high.safetensors', 'notes.txt']) await (await sink.create(name)).close();
    const paths = async (from: string[]) =>
      (await openSources({ from })).map(({ path, file }) => [path, Boolean(file)]);
    expect(await paths([at])).toEqual([
      [join(at, 'a_high.safetensors'), true],
      [join(at, 'b_low.gguf'), true],
    ]);
    expect(await paths([join(folder, 'from')])).toEqual([[join(folder, 'from'), false]]);
    const told = await openSources({ from: [], high: join(at, 'b_low.gguf') });
    expect(told).toMatchObject([{ role: 'high' }]);
    await expect(paths([join(folder, 'none')])).rejects.toMatchObject({ code: 'unreadable-source' });
  });
});

describe('URLs', () => {
  it('are read by ranges, a folder as a whole checkpoint and a file as a part', { timeout: 30_000 }, async () => {
    const files = checkpointFiles();
    const asked: string[] = [];
    const server = createServer((request, response) => {
      const { pathname, search } = new URL(request.url!, 'http://x.test');
      const signed = !pathname.startsWith('/signed/') || search === '?token=a%2Fb';
      const bytes = signed ? files.get(pathname.replace(/^\/(signed\/)?/, '')) : undefined;
      const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
      asked.push(`${request.url} ${request.headers.range}`);
      if (!bytes || !range) return response.writeHead(bytes ? 400 : 404).end();
      const [begin, last] = [Number(range[1]), Math.min(Number(range[2]), bytes.length - 1)];
      response.writeHead(206, { 'Content-Range': `bytes ${begin}-${last}/${bytes.length}` });
      return response.end(bytes.subarray(begin, last + 1));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    try {
      silent();
      const local = await runImport(importArguments('local'));
      const remote = await runImport({ ...importArguments('remote'), from: [base], name: 'local' });
      expect(remote).toEqual(local);
      // No shard was asked for whole.
      const shard = files.get('transformer/diffusion_pytorch_model.safetensors')!;
      expect(asked.some((line) => line.endsWith(`bytes=0-${shard.length - 1}`))).toBe(false);
      const [part] = (await inspect(`${base}vae/diffusion_pytorch_model.safetensors`)).json as Inspection[];
      expect(part).toMatchObject({ kind: 'vae', format: 'safetensors' });
      // A query is sent with every request, and shown in no message.
      const signed = `${base}signed/?token=a%2Fb`;
      expect(await runImport({ ...importArguments('signed'), from: [signed], name: 'local' })).toEqual(local);
      const file = `${base}signed/vae/diffusion_pytorch_model.safetensors?token=a%2Fb`;
      const [again] = (await inspect(file)).json as Inspection[];
      expect(again).toMatchObject({ kind: 'vae', path: file.replace(/\?.*/, '') });
      await expect(inspect(file.replace('a%2Fb', 'c'))).rejects.toMatchObject({ code: 'unreadable-source' });
      await expect(openSources({ from: [`${base}none.gguf`] })).rejects.toMatchObject({ code: 'unreadable-source' });
    } finally {
      server.close();
    }
  });
});

it('progress tells share, pace of this run and time left', () => {
  const progress = { component: 'high', doneBytes: 300 * 2 ** 20, totalBytes: 1000 * 2 ** 20 } as const;
  expect(importProgressText({ ...progress, resumedBytes: 100 * 2 ** 20 }, 2000)).toMatch(
    /^ 30 % {2}high +100 MiB\/s {2}0:07 left {2}\(100 MiB from before\)$/,
  );
  expect(importProgressText({ ...progress, resumedBytes: 300 * 2 ** 20 }, 2000)).not.toContain('left');
});

describe('threads', () => {
  const script = (body: string) => {
    const code = `import { parentPort } from 'node:worker_threads';\nexport function serveSlices() { ${body} }`;
    return new URL(`data:text/javascript,${encodeURIComponent(code)}`);
  };
  const task = (begin: number) => ({ component: 'high', name: 'x', storage: 'F32', begin, end: begin + 1 }) as const;

  it('answer each task, whichever thread has it, with what they made or our error', async () => {
    const pool = convertPool(
      script(`parentPort.on('message', ({ id, task }) => setTimeout(() => parentPort.postMessage(
        task.begin === 3 ? { id, error: { code: 'bad-checkpoint', message: 'three' } }
          : { id, slice: { bytes: Uint8Array.of(task.begin) } }), 20 - 2 * task.begin));`),
      { from: [] },
      3,
    );
    const all = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => pool.convert(task(i))));
    await pool.close();
    for (const [i, outcome] of all.entries()) {
      if (i === 3) expect(outcome).toMatchObject({ reason: { code: 'bad-checkpoint', message: 'three' } });
      else expect(outcome).toMatchObject({ value: { bytes: Uint8Array.of(i) } });
    }
  });

  it('that die reject what they had', async () => {
    const pool = convertPool(script(`parentPort.on('message', () => process.exit(3));`), { from: [] }, 1);
    await expect(pool.convert(task(0))).rejects.toMatchObject({ code: 'worker-died' });
    await expect(pool.convert(task(1))).rejects.toMatchObject({ code: 'worker-died' });
    await pool.close();
  });
});
