import { gzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { hashPiece, MANIFEST_FILE, type Manifest } from '../../src/manifest';
import type { StoreProgress } from '../../src/protocol';
import { arrivalBytes, blockBytes, LANES } from '../../src/store/arrivals';
import { openCopy } from '../../src/store/copy';
import { type DownloadOptions, downloadModel, folderUrl } from '../../src/store/download';
import { httpFolder } from '../../src/store/http';
import { deleteModel, listModels, repairModel, useStored, verifyModel } from '../../src/store/library';
import { listPieces } from '../../src/store/pieces';
import { openModel } from '../../src/store/verified';
import {
  brokenBody,
  type FakeHost,
  fakeHost,
  fakeServer,
  pieceModel,
  type Seen,
  wrongPieces,
} from '../harness/store-host';

const URL_OF_MODEL = 'https://x.test/m/';

let files: Map<string, Uint8Array>;
let manifest: Manifest;
let id: string;
let sizeBytes: number;

beforeAll(async () => {
  files = await pieceModel();
  manifest = JSON.parse(new TextDecoder().decode(files.get(MANIFEST_FILE)));
  id = await hashPiece(files.get(MANIFEST_FILE)!);
  sizeBytes = [...files].reduce((sum, [path, bytes]) => sum + (path === MANIFEST_FILE ? 0 : bytes.length), 0);
});

/** Downloads with an alterable server. */
function download(host: FakeHost, options: Partial<DownloadOptions> = {}): Promise<string> {
  const { signal = new AbortController().signal, onProgress = () => undefined } = options;
  return downloadModel(host, URL_OF_MODEL, { ...options, signal, onProgress });
}

function expectStored(host: FakeHost): void {
  for (const [path, bytes] of files) {
    const stored = host.disk.files.get(`${id} ${path === MANIFEST_FILE ? path : `model/${path}`}`)!;
    expect(Buffer.compare(stored.flushed, bytes), path).toBe(0);
    expect(stored.edited, path).toBe(false);
  }
}

/** Requests of a download without faults: one for each block of each piece. */
const blockCount = () => {
  const list = listPieces(manifest);
  return list.pieces.reduce((sum, { begin, end }) => sum + Math.ceil((end - begin) / blockBytes(list)), 0);
};
const bytesAsked = (seen: Seen[]) => seen.filter(isPiece).reduce((sum, { range }) => sum + range![1] - range![0], 0);
const isPiece = ({ range }: Seen) => range !== undefined;
const only = () => ({ signal: new AbortController().signal, onProgress: () => undefined });

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

describe('a server that', () => {
  /** Answers the second request for a piece as `alter` says and every other one properly. */
  const once = (alter: (seen: Seen, proper: () => Response) => Response | Promise<Response>) => {
    let pieces = 0;
    return fakeServer(files, (seen, proper) => (isPiece(seen) && pieces++ === 1 ? alter(seen, proper) : proper()));
  };
  /** Answers all requests for the largest file as `alter` says. */
  const always = (alter: (seen: Seen, proper: () => Response) => Response | Promise<Response>) =>
    fakeServer(files, (seen, proper) => (seen.path === 'high.safetensors' ? alter(seen, proper) : proper()));
  const body = (response: Response) => response.arrayBuffer().then((buffer) => new Uint8Array(buffer));
  const headed = (bytes: Uint8Array | ReadableStream<Uint8Array>, { status, headers }: Response) =>
    new Response(bytes as BodyInit, { status, headers });

  it.each<[string, (seen: Seen, proper: () => Response) => Response | Promise<Response>]>([
    ['cuts the connection', async (_, proper) => headed(brokenBody((await body(proper())).subarray(0, 7)), proper())],
    ['ends too early', async (_, proper) => headed((await body(proper())).slice(0, -1), proper())],
    ['sends too much', async (_, proper) => headed(new Uint8Array([...(await body(proper())), 0]), proper())],
    [
      'flips a bit',
      async (_, proper) =>
        headed(
          (await body(proper())).map((b, i) => (i === 5 ? b ^ 1 : b)),
          proper(),
        ),
    ],
    ['cannot be reached', () => Promise.reject(new TypeError('fetch failed'))],
    ['answers 503', () => new Response('', { status: 503 })],
    [
      'answers 503 and breaks',
      () => {
        const start = (controller: ReadableStreamDefaultController) => controller.error(new TypeError('reset'));
        return new Response(new ReadableStream({ start }), { status: 503 });
      },
    ],
    [
      'answers another range',
      (_, proper) => {
        const [, total] = proper().headers.get('Content-Range')!.split('/');
        return new Response(new Uint8Array(4), { status: 206, headers: { 'Content-Range': `bytes 0-3/${total}` } });
      },
    ],
  ])('once %s is asked again, for that piece only', async (_, alter) => {
    const { fetch, seen } = once(alter);
    const host = fakeHost(fetch);
    await download(host);
    expectStored(host);
    expect(bytesAsked(seen) - sizeBytes).toBeLessThanOrEqual(listPieces(manifest).largestBytes);
    expect(host.sleeps).toEqual([250]);
  });

  it('falls silent is asked again', async () => {
    const { fetch, seen } = once((_, proper) =>
      headed(new ReadableStream({ pull: () => new Promise(() => undefined) }), proper()),
    );
    const host = fakeHost(fetch);
    await download(host, { stallMs: 30 });
    expectStored(host);
    expect(seen.filter(isPiece)).toHaveLength(blockCount() + 1);
  });

  it.each<[string, string, number]>([
    ['seconds', '17', 17_000],
    ['a date', 'Thu, 01 Jan 2026 00:00:40 GMT', 40_000],
    ['nonsense', 'soon', 250],
  ])('asks for patience in %s gets it, from all lanes', async (_, value, waitMs) => {
    const { fetch } = once(() => new Response('', { status: 429, headers: { 'Retry-After': value } }));
    const host = fakeHost(fetch);
    const notes: string[] = [];
    await download(host, { onProgress: ({ state, note }) => state === 'retrying' && notes.push(note) });
    expectStored(host);
    expect(host.sleeps[0]).toBe(waitMs);
    expect(notes[0]).toMatch(/answered 429\. Trying again in \d+ s/);
  });

  it('asks for an hour is left alone', async () => {
    const { fetch } = once(() => new Response('', { status: 503, headers: { 'Retry-After': '3600' } }));
    const host = fakeHost(fetch);
    await expect(download(host)).rejects.toThrow('asks to wait 60 minutes');
    expect(host.sleeps).toEqual([]);
  });

  it('stays away is given up after growing delays, and what came stays', async () => {
    // The last file: by then others have come.
    const { fetch } = fakeServer(files, (seen, proper) =>
      seen.path === 'vae.safetensors' ? new Response('', { status: 500 }) : proper(),
    );
    const host = fakeHost(fetch);
    await expect(download(host)).rejects.toMatchObject({
      code: 'unreadable-source',
      message: expect.stringContaining('continue later'),
    });
    expect(Math.max(...host.sleeps)).toBe(8000);
    expect((await listModels(host))[0]!.storedBytes).toBeGreaterThan(0);
    expect(wrongPieces(host.disk, id, files)).toEqual([]);
  });

  it('has no ranges sends each file once', async () => {
    const { fetch, seen } = fakeServer(files, ({ path }) => new Response(files.get(path) as Uint8Array<ArrayBuffer>));
    const host = fakeHost(fetch);
    await download(host);
    expectStored(host);
    const high = seen.filter(({ path }) => path === 'high.safetensors');
    expect(high.length).toBeLessThanOrEqual(4); // Each lane may find out for itself.
  });

  it('has no ranges and breaks off sends the file anew, of which what is there is passed over', async () => {
    let cuts = 0;
    const { fetch } = fakeServer(files, ({ path }) => {
      const bytes = files.get(path)!;
      const cut = path === 'high.safetensors' && ++cuts < 4;
      return new Response(cut ? brokenBody(bytes.subarray(0, bytes.length >> 1)) : (bytes as Uint8Array<ArrayBuffer>));
    });
    const host = fakeHost(fetch);
    await download(host);
    expectStored(host);
  });

  it('packs the whole answer is understood, as fetch unpacks it', async () => {
    // What `fetch` gives: the unpacked body under the headers of the packed one.
    const { fetch } = fakeServer(files, ({ path }) => {
      const packed = gzipSync(files.get(path)!).length;
      const headers = { 'Content-Encoding': 'gzip', 'Content-Length': String(packed) };
      return new Response(files.get(path) as Uint8Array<ArrayBuffer>, { headers });
    });
    const host = fakeHost(fetch);
    await download(host);
    expectStored(host);
  });

  it.each<[string, () => ReturnType<typeof fakeServer>, string, string]>([
    [
      'packs ranges',
      () =>
        always((_, proper) => {
          const { status, headers } = proper();
          headers.set('Content-Encoding', 'gzip');
          return new Response(new Uint8Array(9), { status, headers });
        }),
      'unreadable-source',
      'packed by gzip',
    ],
    [
      'has a longer file',
      () => always(() => new Response('', { status: 206, headers: { 'Content-Range': 'bytes 0-0/99999999' } })),
      'corrupt-data',
      'has 99999999 bytes',
    ],
    [
      'has a shorter file and no ranges',
      () => always(() => new Response('12345', { headers: { 'Content-Length': '5' } })),
      'corrupt-data',
      'has 5 bytes',
    ],
    ['has no such bytes', () => always(() => new Response('', { status: 416 })), 'corrupt-data', 'has no bytes'],
    ['has lost the file', () => always(() => new Response('', { status: 404 })), 'unreadable-source', 'answered 404'],
    ['wants a password', () => always(() => new Response('', { status: 403 })), 'unreadable-source', 'answered 403'],
  ])('%s is refused by name and not asked again', async (_, serve, code, message) => {
    const { fetch } = serve();
    const host = fakeHost(fetch);
    const refused = download(host);
    await expect(refused).rejects.toMatchObject({ code, message: expect.stringContaining(message) });
    expect(host.sleeps).toEqual([]);
    expect(wrongPieces(host.disk, id, files)).toEqual([]);
  });

  it('sends wrong bytes every time is refused after three', async () => {
    const { fetch, seen } = always(async (_, proper) => headed((await body(proper())).fill(1), proper()));
    const host = fakeHost(fetch);
    await expect(download(host)).rejects.toMatchObject({
      code: 'corrupt-data',
      message: expect.stringContaining('3 times'),
    });
    expect(wrongPieces(host.disk, id, files)).toEqual([]);
    expect(seen.filter(({ path }) => path === 'high.safetensors').length).toBeLessThanOrEqual(12 * LANES);
  });

  it('replaces the file meanwhile is found out by ETag and hash', async () => {
    let high = 0;
    const { fetch } = always(async (_, proper) => {
      if (high++ < 2) return proper();
      const { status, headers } = proper();
      headers.set('ETag', '"2"');
      return new Response((await body(proper())).fill(2), { status, headers });
    });
    const host = fakeHost(fetch);
    const refused = download(host);
    await expect(refused).rejects.toMatchObject({ code: 'corrupt-data' });
    await expect(refused).rejects.toThrow('ETag changed from "1" to "2"');
    expect(wrongPieces(host.disk, id, files)).toEqual([]);
  });

  it('changes only the ETag is believed, since the hashes match', async () => {
    let count = 0;
    const { fetch } = always((_, proper) => {
      const response = proper();
      response.headers.set('ETag', `"${count++}"`);
      return response;
    });
    const host = fakeHost(fetch);
    await download(host);
    expectStored(host);
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
