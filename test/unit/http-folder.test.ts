import { describe, expect, it } from 'vitest';
import { type Fetch, httpFolder } from '../../src/store/http';

const CONTENT = Uint8Array.from({ length: 1000 }, (_, i) => (i * 7) % 256);

interface Sent {
  url: string;
  range: string;
}

/** A server that answers ranges of {@link CONTENT} correctly, changed by `alter`. */
function server(alter: (response: Response, range: [begin: number, end: number]) => Response = (response) => response) {
  const sent: Sent[] = [];
  const fetch: Fetch = async (url, init) => {
    const range = new Headers(init.headers).get('Range')!;
    sent.push({ url, range });
    const [begin, last] = /^bytes=(\d+)-(\d+)$/.exec(range)!.slice(1).map(Number) as [number, number];
    const headers = { 'Content-Range': `bytes ${begin}-${last}/${CONTENT.length}` };
    return alter(new Response(CONTENT.slice(begin, last + 1), { status: 206, headers }), [begin, last + 1]);
  };
  return { fetch, sent };
}

const unreadable = { code: 'unreadable-source' };

describe('a server with Range', () => {
  it('is asked for exactly the bytes that are read', async () => {
    const { fetch, sent } = server();
    const file = await httpFolder('https://x.test/m', { fetch }).open('a/b.safetensors');
    expect(file.sizeBytes).toBe(1000);
    expect(await file.read(10, 20)).toEqual(CONTENT.slice(10, 20));
    expect(await file.read(999, 1000)).toEqual(CONTENT.slice(999));
    expect(await file.read(5, 5)).toHaveLength(0);
    expect(sent.map(({ range }) => range)).toEqual(['bytes=0-0', 'bytes=10-19', 'bytes=999-999']);
    expect(new Set(sent.map(({ url }) => url))).toEqual(new Set(['https://x.test/m/a/b.safetensors']));
  });

  it.each(['https://x.test/m', 'https://x.test/m/'])('is asked below %s', async (base) => {
    const { fetch, sent } = server();
    await httpFolder(base, { fetch }).open('zoetrope.json');
    expect(sent[0]!.url).toBe('https://x.test/m/zoetrope.json');
  });

  it.each(['ETag', 'Last-Modified'])(
    'must keep the file as it was opened, by its %s, where no hash vouches for it',
    async (name) => {
      let version = '"1"';
      const { fetch } = server((response) => {
        response.headers.set(name, version);
        return response;
      });
      const careful = await httpFolder('https://x.test/m', { fetch, unchanged: true }).open('a.gguf');
      const trusting = await httpFolder('https://x.test/m', { fetch }).open('a.gguf');
      expect(await careful.read(0, 10)).toEqual(CONTENT.slice(0, 10));
      version = '"2"';
      await expect(careful.read(10, 20)).rejects.toMatchObject(unreadable);
      await expect(careful.read(10, 20)).rejects.toThrow('replaced while it was read');
      expect(await trusting.read(10, 20)).toEqual(CONTENT.slice(10, 20));
    },
  );

  it('may show its ETag now and then, and weak or strong', async () => {
    const shown = [['"1"'], [null, 'Mon'], ['W/"1"', 'Tue'], ['"1"', 'Wed'], ['"2"', 'Mon']];
    const { fetch } = server((response) => {
      for (const [i, value] of shown.shift()!.entries()) {
        if (value !== null) response.headers.set(['ETag', 'Last-Modified'][i]!, value);
      }
      return response;
    });
    const file = await httpFolder('https://x.test/m', { fetch, unchanged: true }).open('a.gguf');
    for (let i = 0; i < 3; i++) expect(await file.read(0, 10)).toEqual(CONTENT.slice(0, 10));
    await expect(file.read(10, 20)).rejects.toThrow('replaced while it was read ("1", now "2")');
  });

  it('whose connection breaks behind the head is an unreadable source nevertheless', async () => {
    const broken = (status: number, headers = {}) =>
      new Response(new ReadableStream({ start: (controller) => controller.error(new TypeError('reset')) }), {
        status,
        headers,
      });
    for (const first of [broken(503), broken(206), broken(200, { 'Content-Length': '99999999999' })]) {
      await expect(httpFolder('https://x.test/m', { fetch: async () => first }).open('a')).rejects.toMatchObject(
        unreadable,
      );
    }
    const file = await httpFolder('https://x.test/m', {
      fetch: async () => broken(206, { 'Content-Range': 'bytes 0-0/1000' }),
    }).open('a');
    await expect(file.read(10, 20)).rejects.toMatchObject(unreadable);
  });

  const second = (response: (range: [number, number]) => Response) =>
    server((first, range) => (range[1] === 1 ? first : response(range))).fetch;
  const ranged = (body: Uint8Array<ArrayBuffer>, range: string) =>
    new Response(body, { status: 206, headers: { 'Content-Range': range } });

  it.each<[string, Fetch, string]>([
    [
      'too few bytes',
      second(() => ranged(CONTENT.slice(10, 19), 'bytes 10-19/1000')),
      'sent 9 bytes for the range 10 to 20',
    ],
    ['too many bytes', second(() => ranged(CONTENT.slice(10, 21), 'bytes 10-19/1000')), 'more than the 10 bytes'],
    ['another range', second(() => ranged(CONTENT.slice(0, 10), 'bytes 0-9/1000')), 'answered bytes 0 to 10 of 1000'],
    ['a file that changed', second(() => ranged(CONTENT.slice(10, 20), 'bytes 10-19/999')), 'If the file has changed'],
    [
      'a whole file of another length',
      second(() => new Response(CONTENT.slice(1))),
      'sent 999 bytes; the file has 1000',
    ],
    ['an endless file', second(() => new Response(new Uint8Array(5000))), 'more than the 1000 bytes'],
    ['503', second(() => new Response('', { status: 503, statusText: 'Busy' })), 'answered 503 Busy'],
    [
      'half an answer',
      second(() => {
        const body = new ReadableStream({
          pull(controller) {
            controller.enqueue(new Uint8Array(3));
            controller.error(new Error('reset'));
          },
        });
        return new Response(body, { status: 206, headers: { 'Content-Range': 'bytes 10-19/1000' } });
      }),
      'broke off',
    ],
  ])('is refused when it sends %s', async (_, fetch, message) => {
    const file = await httpFolder('https://x.test', { fetch }).open('a');
    const reading = file.read(10, 20);
    await expect(reading).rejects.toMatchObject(unreadable);
    await expect(reading).rejects.toThrow(message);
  });

  it('may answer with the whole file all of a sudden', async () => {
    const file = await httpFolder('https://x.test', { fetch: second(() => new Response(CONTENT)) }).open('a');
    expect(await file.read(10, 20)).toEqual(CONTENT.slice(10, 20));
  });

  it('must let its Content-Range be read', async () => {
    const fetch: Fetch = async () => new Response(new Uint8Array(1), { status: 206 });
    await expect(httpFolder('https://x.test', { fetch }).open('a')).rejects.toThrow('expose that header');
  });
});

describe('a server without Range', () => {
  it('sends the file once, which is then kept', async () => {
    let requests = 0;
    const fetch: Fetch = async () => {
      requests++;
      return new Response(CONTENT);
    };
    const file = await httpFolder('https://x.test', { fetch }).open('a');
    expect(file.sizeBytes).toBe(1000);
    expect(await file.read(990, 1000)).toEqual(CONTENT.slice(990));
    expect(requests).toBe(1);
  });

  it('is refused a file above 64 MiB, by its stated length or by what comes', async () => {
    const stated: Fetch = async () => new Response('', { headers: { 'Content-Length': String(2 ** 26 + 1) } });
    await expect(httpFolder('https://x.test', { fetch: stated }).open('a')).rejects.toThrow('does not answer Range');
    let sent = 0;
    const endless: Fetch = async () =>
      new Response(
        new ReadableStream({
          pull(controller) {
            sent += 2 ** 22;
            controller.enqueue(new Uint8Array(2 ** 22));
          },
        }),
      );
    await expect(httpFolder('https://x.test', { fetch: endless }).open('a')).rejects.toThrow('more than');
    expect(sent).toBeLessThan(2 ** 27);
  });
});

it('an empty file is one that has no byte 0', async () => {
  const fetch: Fetch = async () => new Response('', { status: 416 });
  const file = await httpFolder('https://x.test', { fetch }).open('a');
  expect(file.sizeBytes).toBe(0);
});

it.each(['../a', '/a', 'a//b', 'a?b', 'a#b', '%2e%2e/a', 'http://y.test/a', 'a b'])(
  'refuses the path %j unasked',
  (path) => {
    const { fetch, sent } = server();
    expect(() => httpFolder('https://x.test', { fetch }).open(path)).toThrow('stays inside its folder');
    expect(sent).toEqual([]);
  },
);

it('says what is missing, and that nobody answers', async () => {
  const missing: Fetch = async () => new Response('', { status: 404, statusText: 'Not Found' });
  await expect(httpFolder('https://x.test', { fetch: missing }).open('zoetrope.json')).rejects.toThrow(
    'https://x.test/zoetrope.json answered 404 Not Found. Check the address',
  );
  const nobody: Fetch = () => Promise.reject(new TypeError('fetch failed'));
  await expect(httpFolder('https://x.test', { fetch: nobody }).open('a')).rejects.toMatchObject(unreadable);
});

it('stops at the signal', async () => {
  const controller = new AbortController();
  const fetch: Fetch = (_, { signal }) =>
    new Promise((_, reject) => signal!.addEventListener('abort', () => reject(new DOMException('', 'AbortError'))));
  const opening = httpFolder('https://x.test', { fetch, signal: controller.signal }).open('a');
  controller.abort();
  await expect(opening).rejects.toMatchObject({ code: 'aborted' });
});
