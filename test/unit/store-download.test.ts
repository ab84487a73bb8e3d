import { describe, expect, it } from 'vitest';
import { MANIFEST_FILE } from '../../src/manifest';
import type { StoreProgress } from '../../src/protocol';
import { arrivalBytes, blockBytes, LANES } from '../../src/store/arrivals';
import { openCopy } from '../../src/store/copy';
import { folderUrl } from '../../src/store/download';
import { httpFolder } from '../../src/store/http';
import { deleteModel, listModels, repairModel, useStored, verifyModel } from '../../src/store/library';
import { listPieces } from '../../src/store/pieces';
import { openModel } from '../../src/store/verified';
import {
  blockCount,
  bytesAsked,
  download,
  expectStored,
  files,
  id,
  isPiece,
  manifest,
  only,
  sizeBytes,
  URL_OF_MODEL,
} from '../harness/small-download';
import { type FakeHost, fakeHost, fakeServer, wrongPieces } from '../harness/store-host';

describe('a download', () => {
  it('stores every file, asks for every byte once and tells its progress', async () => {
    const { fetch, seen } = fakeServer(files);
    const host = fakeHost(fetch);
    const progress: StoreProgress[] = [];
    expect(await download(host, { onProgress: (step) => progress.push(step) })).toBe(id);
    expectStored(host);
    expect(seen.filter(isPiece)).toHaveLength(blockCount());
    expect(bytesAsked(seen)).toBe(sizeBytes);
    expect(progress.at(-1)).toMatchObject({
      id,
      name: 'test',
      state: 'downloading',
      doneBytes: sizeBytes,
      totalBytes: sizeBytes,
    });
    expect(await listModels(host)).toEqual([
      {
        id,
        name: 'test',
        license: manifest.license,
        quantization: 'q4',
        url: URL_OF_MODEL,
        sizeBytes,
        storedBytes: sizeBytes,
        state: 'complete',
        busy: false,
      },
    ]);
    await download(host);
    expect(seen.filter(isPiece)).toHaveLength(blockCount());
  });

  it('that is stopped goes on where it was', async () => {
    const controller = new AbortController();
    const { fetch, seen } = fakeServer(files, (request, proper, index) => {
      if (index === 33) controller.abort();
      request.signal?.throwIfAborted();
      return proper();
    });
    const host = fakeHost(fetch);
    await expect(download(host, { signal: controller.signal })).rejects.toMatchObject({ code: 'aborted' });
    const [partial] = await listModels(host);
    expect(partial).toMatchObject({ state: 'partial', busy: false });
    expect(partial!.storedBytes).toBeGreaterThan(0);
    expect(await useStored(host, { url: URL_OF_MODEL })).toBeUndefined();
    await download(host);
    expectStored(host);
    // The requests that were under way when it was stopped, and not the pieces that they were for.
    expect(bytesAsked(seen)).toBeGreaterThan(sizeBytes);
    expect(bytesAsked(seen)).toBeLessThanOrEqual(sizeBytes + LANES * blockBytes(listPieces(manifest)));
  });

  it('survives a crash between any two writes and fetches one piece at most again', { timeout: 30_000 }, async () => {
    for (let crashAt = 1; crashAt < 48; crashAt++) {
      const { fetch, seen } = fakeServer(files);
      const host = fakeHost(fetch);
      let writes = 0;
      host.disk.beforeWrite = () => {
        if (++writes >= crashAt) throw new Error('killed');
      };
      await expect(download(host)).rejects.toMatchObject({ code: 'storage-unavailable' });
      host.disk.crash();
      host.disk.beforeWrite = () => undefined;
      expect(wrongPieces(host.disk, id, files)).toEqual([]);
      await download(host);
      expectStored(host);
      const again = bytesAsked(seen) - sizeBytes;
      expect(again, `crash at write ${crashAt}`).toBeLessThanOrEqual(LANES * blockBytes(listPieces(manifest)));
    }
  });

  it('is refused before its first piece when the disk has too little room, with the numbers', async () => {
    const { fetch, seen } = fakeServer(files);
    const host = fakeHost(fetch);
    const needed = sizeBytes + arrivalBytes(listPieces(manifest), LANES);
    host.disk.quotaBytes = needed - 1;
    const refused = download(host);
    await expect(refused).rejects.toMatchObject({
      code: 'storage-full',
      message: expect.stringMatching(new RegExp(`needs ${needed} .* offers ${needed - 1}\\.`)),
      detail: [{ ctx: { neededBytes: needed, availableBytes: needed - 1 } }],
    });
    expect(seen.filter(isPiece)).toEqual([]);
    expect(host.disk.files.size).toBe(0);
  });

  it('says the numbers when the disk becomes full meanwhile, and goes on when there is room', async () => {
    const { fetch } = fakeServer(files);
    const host = fakeHost(fetch);
    host.disk.beforeWrite = (path) => {
      if (path === 'model/high.safetensors') host.disk.quotaBytes = 200_000;
    };
    await expect(download(host)).rejects.toMatchObject({
      code: 'storage-full',
      detail: [{ ctx: { neededBytes: expect.any(Number), availableBytes: expect.any(Number) } }],
    });
    expect(wrongPieces(host.disk, id, files)).toEqual([]);
    host.disk.beforeWrite = () => undefined;
    host.disk.quotaBytes = 1e9;
    await download(host);
    expectStored(host);
  });

  it('refuses a manifest that is wrong or endless', async () => {
    const wrong = fakeServer(new Map([[MANIFEST_FILE, new TextEncoder().encode('{"format":1}')]]));
    await expect(download(fakeHost(wrong.fetch))).rejects.toMatchObject({ code: 'bad-checkpoint' });
    let sent = 0;
    const endless = fakeServer(files, () => {
      const pull = (controller: ReadableStreamDefaultController<Uint8Array>) => {
        sent += 2 ** 22;
        controller.enqueue(new Uint8Array(2 ** 22));
      };
      return new Response(new ReadableStream({ pull }));
    });
    await expect(download(fakeHost(endless.fetch))).rejects.toMatchObject({ code: 'bad-checkpoint' });
    expect(sent).toBeLessThan(2 ** 26);
  });
});

describe('two tabs', () => {
  it('share one download', async () => {
    const { fetch, seen } = fakeServer(files, async (_, proper) => {
      await new Promise((resolve) => setTimeout(resolve, 1));
      return proper();
    });
    const first = fakeHost(fetch);
    const second = fakeHost(fetch, first);
    const states = new Set<string>();
    const one = download(first);
    const two = download(second, { onProgress: ({ state }) => states.add(state) });
    expect(await Promise.all([one, two])).toEqual([id, id]);
    expect(seen.filter(isPiece)).toHaveLength(blockCount());
    expect(states).toContain('waiting');
    expectStored(first);
  });

  it('take over from each other when the first stops, and the second can stop waiting', async () => {
    const controller = new AbortController();
    const waiting = new AbortController();
    const { fetch } = fakeServer(files, async (seen, proper, index) => {
      if (index === 6) waiting.abort();
      if (index === 10) controller.abort();
      await new Promise((resolve) => setTimeout(resolve, 2));
      seen.signal?.throwIfAborted();
      return proper();
    });
    const first = fakeHost(fetch);
    const one = download(first, { signal: controller.signal });
    const two = download(fakeHost(fetch, first));
    const three = download(fakeHost(fetch, first), { signal: waiting.signal });
    const ended = Promise.allSettled([one, two, three]);
    const [a, b, c] = await ended;
    expect(a).toMatchObject({ status: 'rejected', reason: { code: 'aborted' } });
    expect(b).toEqual({ status: 'fulfilled', value: id });
    expect(c).toMatchObject({ status: 'rejected', reason: { code: 'aborted' } });
    expectStored(first);
  });
});

describe('a stored model', () => {
  const flip = (host: FakeHost, path: string, at: number) => {
    host.disk.files.get(`${id} model/${path}`)!.written[at]! ^= 4;
  };
  const stored = async () => {
    const server = fakeServer(files);
    const host = fakeHost(server.fetch);
    await download(host);
    server.seen.length = 0;
    return { host, ...server };
  };

  it('is verified piece by piece, and repaired by fetching what is broken and nothing else', async () => {
    const { host, seen } = await stored();
    expect(await verifyModel(host, id, only())).toEqual({ complete: true, broken: [], verifiedBytes: sizeBytes });
    flip(host, 'high.safetensors', 50_000);
    host.disk.files.delete(`${id} model/tokenizer.json`);
    const found = await verifyModel(host, id, only());
    expect(found.complete).toBe(false);
    expect(found.broken.map(({ path }) => path)).toEqual(['high.safetensors']); // The other is missing.
    expect((await listModels(host))[0]!.state).toBe('partial');
    expect(await useStored(host, { url: URL_OF_MODEL })).toBeUndefined();
    await repairModel(host, id, only());
    expectStored(host);
    const broken = found.broken.reduce((sum, { begin, end }) => sum + end - begin, 0);
    expect(bytesAsked(seen)).toBe(broken + files.get('tokenizer.json')!.length);
  });

  it('whose manifest is damaged is listed, not used, and repaired', async () => {
    const { host, seen } = await stored();
    host.disk.files.get(`${id} ${MANIFEST_FILE}`)!.written[7]! ^= 1;
    expect(await listModels(host)).toMatchObject([{ id, state: 'damaged', url: URL_OF_MODEL }]);
    expect(await useStored(host, { url: URL_OF_MODEL })).toBeUndefined();
    await repairModel(host, id, only());
    expectStored(host);
    expect(seen.filter(isPiece)).toEqual([]);
  });

  it('is not repaired from another model', async () => {
    const { host } = await stored();
    flip(host, 'vae.safetensors', 3);
    const other = new TextEncoder().encode(JSON.stringify({ ...manifest, name: 'other' }));
    host.fetch = fakeServer(new Map([...files, [MANIFEST_FILE, other]])).fetch;
    await expect(repairModel(host, id, only())).rejects.toThrow('holds another model by now ("other")');
    expect(await listModels(host)).toHaveLength(1);
  });

  it('is deleted unless it is in use', async () => {
    const { host } = await stored();
    const copy = await useStored(host, { url: URL_OF_MODEL });
    await expect(deleteModel(host, id)).rejects.toMatchObject({ code: 'model-in-use' });
    copy!.release();
    await deleteModel(host, id);
    expect(host.disk.files.size).toBe(0);
    await expect(deleteModel(host, id)).rejects.toMatchObject({ code: 'unreadable-source' });
  });

  it('opens without network, and with it only when the manifest is the same', async () => {
    const { host, seen } = await stored();
    const read = async (server: FakeHost) => {
      const copy = await openCopy(host, URL_OF_MODEL, httpFolder(URL_OF_MODEL, { fetch: server.fetch }));
      const model = await openModel(copy.folder);
      const bytes = await model.component('vae').read('conv2.bias');
      copy.release();
      return { id: copy.storedId, bytes };
    };
    const { range } = manifest.components.vae![0]!.tensors!['conv2.bias']!;
    const bytes = files.get('vae.safetensors')!.slice(...range);
    expect(await read(host)).toEqual({ id, bytes });
    expect(seen.map(({ path }) => path).filter((path) => path !== MANIFEST_FILE)).toEqual([]);
    expect(await read(fakeHost(() => Promise.reject(new TypeError('offline'))))).toEqual({ id, bytes });
    const newer = new TextEncoder().encode(JSON.stringify({ ...manifest, name: 'newer' }));
    const changed = fakeServer(new Map([...files, [MANIFEST_FILE, newer]]));
    expect(await read(fakeHost(changed.fetch))).toEqual({ id: undefined, bytes });
    expect(changed.seen.some(({ path }) => path === 'vae.safetensors')).toBe(true);
  });

  it('is hashed before its first use and no more, a server’s pieces each time', async () => {
    const { host } = await stored();
    const copy = (await useStored(host, { url: URL_OF_MODEL }))!;
    flip(host, 'vae.safetensors', files.get('vae.safetensors')!.length - 1);
    const last = Object.entries(manifest.components.vae![0]!.tensors!).sort(
      ([, a], [, b]) => b.range[1] - a.range[1],
    )[0]![0];
    const broken = await openModel(copy.folder);
    await expect(broken.component('vae').read(last)).rejects.toMatchObject({ code: 'corrupt-data' });
    flip(host, 'vae.safetensors', files.get('vae.safetensors')!.length - 1);
    const model = await openModel(copy.folder);
    const remote = await openModel(httpFolder(URL_OF_MODEL, { fetch: host.fetch }));
    const digests: number[] = [];
    const digest = crypto.subtle.digest;
    crypto.subtle.digest = function (this: SubtleCrypto, ...args: Parameters<typeof digest>) {
      digests.push((args[1] as Uint8Array).byteLength);
      return digest.apply(crypto.subtle, args);
    };
    try {
      for (let i = 0; i < 3; i++) await model.component('vae').read(last);
      expect(digests.length).toBeGreaterThan(0);
      expect(digests.length).toBeLessThanOrEqual(2);
      const once = digests.length;
      for (let i = 0; i < 3; i++) {
        const vae = remote.component('vae');
        await vae.read(last);
        vae.release();
      }
      expect(digests.length).toBe(4 * once);
    } finally {
      crypto.subtle.digest = digest;
    }
  });
});

it.each([
  ['https://x.test/a', 'https://x.test/a/'],
  ['https://x.test/a/', 'https://x.test/a/'],
  ['https://x.test/a/zoetrope.json?download=1#top', 'https://x.test/a/'],
  ['http://localhost:1/', 'http://localhost:1/'],
])('the folder of %s is %s', (url, folder) => {
  expect(folderUrl(url)).toBe(folder);
});

it.each(['file:///etc/passwd', 'data:text/plain,1', 'zoetrope', ''])('%j is no address of a model', (url) => {
  expect(() => folderUrl(url)).toThrow('http or https');
});
