import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { LANES } from '../../src/store/arrivals';
import { listModels } from '../../src/store/library';
import { listPieces } from '../../src/store/pieces';
import {
  blockCount,
  bytesAsked,
  download,
  expectStored,
  files,
  id,
  isPiece,
  manifest,
  sizeBytes,
} from '../harness/small-download';
import { brokenBody, fakeHost, fakeServer, type Seen, wrongPieces } from '../harness/store-host';

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
