import { describe, expect, it, vi } from 'vitest';
import { importCheckpoint } from '../../src/checkpoint/import';
import type { ImportSource } from '../../src/checkpoint/sources';
import { ZoetropeError } from '../../src/errors';
import { importModel, unfinishedImports } from '../../src/import/model-import';
import type { ConvertPool } from '../../src/import/threads';
import { hashPiece, MANIFEST_FILE } from '../../src/manifest';
import type { StoreProgress } from '../../src/protocol';
import { noteOrigin, writeSmall } from '../../src/store/disk';
import { deleteModel, listModels, repairModel, useStored, verifyModel } from '../../src/store/library';
import { modelPath } from '../../src/store/pieces';
import { openModel } from '../../src/store/verified';
import { checkpointFiles, checkpointTensors, replaceJson } from '../harness/checkpoint';
import { memoryFolder } from '../harness/memory-folder';
import { seededUniform } from '../harness/near';
import { type FakeHost, fakeHost } from '../harness/store-host';

const SETTINGS = { name: 'test', quantization: 'q4', license: 'MIT' } as const;
/** Small, so that the tiny checkpoint is noted many times. */
const NOTE_BYTES = 50_000;

const unreachable = () => Promise.reject(new TypeError('no network'));
const source = (files = checkpointFiles()): ImportSource[] => [{ path: 'Wan', folder: memoryFolder(files) }];

interface Options {
  signal?: AbortSignal;
  onProgress?: (progress: StoreProgress) => void;
  settings?: { name: string; quantization: 'q4' | 'q8'; license: string };
  pool?: () => ConvertPool;
}

function run(host: FakeHost, sources = source(), options: Options = {}): Promise<string> {
  const { signal = new AbortController().signal, onProgress = () => undefined, settings = SETTINGS, pool } = options;
  return importModel(host, sources, { settings, names: ['Wan'], noteBytes: NOTE_BYTES, signal, onProgress, pool });
}

const unfinished = (host: FakeHost) => unfinishedImports(host, new Set());

describe('an import into the store', async () => {
  const plain = memoryFolder();
  const { name, ...rest } = SETTINGS;
  await importCheckpoint({ folder: memoryFolder(checkpointFiles()), sink: plain, name, ...rest });
  const wanted = await hashPiece(plain.files.get(MANIFEST_FILE)!);

  /** The files of the only model in the store are those of a plain import, and no import is left. */
  async function expectWhole(host: FakeHost): Promise<void> {
    for (const [path, bytes] of plain.files) {
      const at = path === MANIFEST_FILE ? path : modelPath(path);
      expect(Buffer.compare(host.disk.files.get(`${wanted} ${at}`)!.written, bytes), path).toBe(0);
    }
    expect(await host.disk.folders()).toEqual([wanted]);
  }

  it('makes the model that a plain import makes, listed, verified, used and deleted like any other', async () => {
    const host = fakeHost(unreachable);
    expect(await run(host)).toBe(wanted);
    await expectWhole(host);
    expect(await listModels(host)).toMatchObject([{ id: wanted, state: 'complete', url: null, license: 'MIT' }]);
    const work = { signal: new AbortController().signal, onProgress: () => undefined };
    expect(await verifyModel(host, wanted, work)).toMatchObject({ complete: true, broken: [] });
    const copy = (await useStored(host, { id: wanted }))!;
    expect((await openModel(copy.folder)).manifest.name).toBe('test');
    copy.release();
    await deleteModel(host, wanted);
    expect(await host.disk.folders()).toEqual([]);
  });

  it('of what is broken by then makes that again, whose repair has no address to fetch from', async () => {
    const host = fakeHost(unreachable);
    const work = { signal: new AbortController().signal, onProgress: () => undefined };
    await run(host);
    expect(await repairModel(host, wanted, work)).toMatchObject({ complete: true });
    host.disk.files.get(`${wanted} ${modelPath('vae.safetensors')}`)!.written[100]! ^= 1;
    await expect(repairModel(host, wanted, work)).rejects.toThrow('Import the same sources again');
    expect(await run(host)).toBe(wanted);
    await expectWhole(host);
  });

  it('of a model that was downloaded leaves its address known', async () => {
    const host = fakeHost(unreachable);
    await noteOrigin(host.disk, wanted, { url: 'https://x.test/m/' });
    await run(host);
    const [model] = await listModels(host);
    expect(model).toMatchObject({ id: wanted, url: 'https://x.test/m/', state: 'complete' });
    await noteOrigin(host.disk, wanted, { url: 'https://x.test/n/' });
    const pool = () => {
      throw new Error('It is known as what was imported, too.');
    };
    expect(await run(host, source(), { pool })).toBe(wanted);
  });

  it('gives at once what it has made, and makes another of other settings', async () => {
    const host = fakeHost(unreachable);
    await run(host);
    const seen: StoreProgress[] = [];
    expect(await run(host, source(), { onProgress: (progress) => seen.push(progress) })).toBe(wanted);
    expect(seen).toEqual([]);
    const other = await run(host, source(), { settings: { ...SETTINGS, quantization: 'q8' } });
    expect((await host.disk.folders()).sort()).toEqual([wanted, other].sort());
  });

  it('is refused before its first byte where it may not fit, with both numbers', async () => {
    const host = fakeHost(unreachable);
    host.disk.quotaBytes = 100_000;
    const error = await run(host).catch((caught: unknown) => caught as ZoetropeError);
    expect(error).toMatchObject({ code: 'storage-full', detail: [{ ctx: { availableBytes: 100_000 } }] });
    const { neededBytes } = (error as ZoetropeError).detail[0]!.ctx as { neededBytes: number };
    const bytes = [...plain.files].reduce((sum, [path, file]) => sum + (path === MANIFEST_FILE ? 0 : file.length), 0);
    expect(neededBytes).toBeGreaterThanOrEqual(bytes);
    expect(neededBytes).toBeLessThan(1.25 * bytes);
    expect(host.disk.files.size).toBe(0);
  });

  it('stops at the signal, is listed, and goes on without converting again what is noted', async () => {
    const host = fakeHost(unreachable);
    const controller = new AbortController();
    const onProgress = ({ doneBytes, totalBytes }: StoreProgress) => doneBytes > totalBytes / 2 && controller.abort();
    // Fake clocks stand still, so only the last progress would be told.
    let ms = 0;
    host.now = () => (ms += 1000);
    await expect(run(host, source(), { signal: controller.signal, onProgress })).rejects.toMatchObject({
      code: 'aborted',
    });
    const [left] = await unfinished(host);
    expect(left).toMatchObject({ ...SETTINGS, sources: ['Wan'], remembered: false, busy: false });
    expect(left!.storedBytes).toBeGreaterThan(left!.sizeBytes / 5);
    expect(await listModels(host)).toEqual([]);
    const again = source();
    expect(await run(host, again)).toBe(wanted);
    await expectWhole(host);
    const reads = (again[0]!.folder as ReturnType<typeof memoryFolder>).reads;
    const converted = reads.filter(
      ({ path, begin, end }) => path.startsWith('text_encoder/model') && end - begin > 200 && begin > 0,
    );
    expect(converted.filter(({ end, begin }) => end - begin > 4096)).toEqual([]);
  });

  it('stops at the signal although its sources say nothing more', async () => {
    const controller = new AbortController();
    const close = vi.fn(async () => undefined);
    const convert = () => {
      setTimeout(() => controller.abort());
      return new Promise<never>(() => undefined);
    };
    const pool = () => ({ convert, ahead: 2, close });
    await expect(run(fakeHost(unreachable), source(), { signal: controller.signal, pool })).rejects.toMatchObject({
      code: 'aborted',
    });
    expect(close).toHaveBeenCalledOnce();
  });

  it('is refused with a name that no manifest may hold, before its first byte', async () => {
    const host = fakeHost(unreachable);
    const refused = run(host, source(), { settings: { ...SETTINGS, name: '' } });
    await expect(refused).rejects.toMatchObject({ code: 'bad-request' });
    expect(host.disk.files.size).toBe(0);
  });

  it('is listed to be deleted when its note is of another version or cut', async () => {
    const host = fakeHost(unreachable);
    const notes = ['{}', 'null', '{"na', '{"name":"x","quantization":"q4","sources":"Wan"}'];
    for (const [i, note] of notes.entries()) {
      await writeSmall(host.disk, `import-${i}`, 'import.json', new TextEncoder().encode(note));
    }
    const listed = await unfinished(host);
    expect(listed.map(({ id, name }) => [id, name])).toEqual(notes.map((_, i) => [`import-${i}`, `import-${i}`]));
    for (const { id } of listed) await deleteModel(host, id);
    expect(await unfinished(host)).toEqual([]);
  });

  it('of numbers that no model may have says so', async () => {
    const files = checkpointFiles();
    replaceJson(files, 'transformer/config.json', { eps: 2 });
    replaceJson(files, 'transformer_2/config.json', { eps: 2 });
    await expect(run(fakeHost(unreachable), source(files))).rejects.toMatchObject({
      code: 'bad-checkpoint',
      message: expect.stringContaining('dit.eps'),
    });
  });

  it('is not continued with other weights', async () => {
    const host = fakeHost(unreachable);
    let writes = 0;
    host.disk.beforeWrite = () => {
      if (++writes > 12) throw new Error('the disk is gone');
    };
    await expect(run(host)).rejects.toMatchObject({ code: 'storage-unavailable' });
    host.disk.beforeWrite = () => undefined;
    const tensors = checkpointTensors();
    tensors.transformer.get('proj_out.bias')!.values[0] = 1;
    const other = await run(host, source(checkpointFiles(tensors)));
    expect(other).not.toBe(wanted);
    expect(await unfinished(host)).toHaveLength(1);
  });

  it('runs once for two tabs, of which one tells that it waits; the second takes over when the first fails', async () => {
    const first = fakeHost(unreachable);
    const second = fakeHost(unreachable, first);
    const states: string[][] = [[], []];
    const both = [first, second].map((host, index) => {
      let ms = 0;
      host.now = () => (ms += 1000);
      return run(host, source(), { onProgress: ({ state }) => states[index]!.push(state) });
    });
    expect(await Promise.all(both)).toEqual([wanted, wanted]);
    const kinds = states.map((list) => [...new Set(list)].join()).sort();
    expect(kinds).toEqual(['importing', 'waiting']);
    await deleteModel(first, wanted);

    const controller = new AbortController();
    const stopped = run(first, source(), { signal: controller.signal, onProgress: () => controller.abort() });
    const taken = run(second);
    await expect(stopped).rejects.toMatchObject({ code: 'aborted' });
    expect(await taken).toBe(wanted);
    await expectWhole(first);
  });

  it('at seeded faults ends typed and goes on to the same bytes', { timeout: 120_000 }, async () => {
    const uniform = seededUniform(31);
    const counts = new Map<string, number>();
    for (let faults = 0; faults < 24; ) {
      const host = fakeHost(unreachable);
      for (let attempt = 0; attempt < 6; attempt++, faults++) {
        let left = 1 + Math.floor(uniform() * 30);
        const kind = ['full', 'broken', 'crash', 'move'][Math.floor(uniform() * 4)]!;
        const { move } = host.disk;
        host.disk.beforeWrite = () => {
          if (left-- > 0 || kind === 'move') return;
          throw kind === 'full' ? new DOMException('full', 'QuotaExceededError') : new Error('broken');
        };
        if (kind === 'move') {
          let moves = Math.floor(uniform() * 5);
          host.disk.move = async (...args) => {
            if (moves-- === 0) throw new Error('broken');
            await move(...args);
          };
        }
        const outcome = await run(host).catch((error: unknown) => error);
        host.disk.move = move;
        if (kind === 'crash') host.disk.crash();
        const code =
          outcome instanceof ZoetropeError ? outcome.code : typeof outcome === 'string' ? 'complete' : 'untyped';
        counts.set(`${kind} ${code}`, (counts.get(`${kind} ${code}`) ?? 0) + 1);
        if (code === 'complete') break;
        expect(await listModels(host).then((models) => models.filter(({ state }) => state === 'complete'))).toEqual([]);
      }
      host.disk.beforeWrite = () => undefined;
      expect(await run(host)).toBe(wanted);
      await expectWhole(host);
    }
    const seen = [...counts.keys()].sort();
    expect(seen.filter((key) => key.includes('untyped'))).toEqual([]);
    expect(seen).toEqual(expect.arrayContaining(['full storage-full', 'broken storage-unavailable']));
  });
});
