import { describe, expect, it } from 'vitest';
import { openIfThere } from '../../src/checkpoint/safetensors';
import { openSpecs } from '../../src/import/sources';
import { urlSource } from '../../src/import/url';

const CONTENT = Uint8Array.from({ length: 1000 }, (_, i) => (i * 7) % 256);
const URL_ = 'https://x.test/a.gguf?token=secret';

type Fault = (stop: AbortSignal) => Response | Promise<Response>;

/**
 * Answers ranges of {@link CONTENT}, but the n-th request, from 0, as `faults[n]` says; waits are noted, not waited
 * for.
 */
function reading(faults: Record<number, Fault>, signal?: AbortSignal) {
  const waits: number[] = [];
  let count = 0;
  let ms = 0;
  return {
    waits,
    signal,
    stallMs: 30,
    now: () => ms,
    random: () => 0,
    sleep: async (wait: number) => {
      waits.push(wait);
      ms += wait;
    },
    fetch: async (_: string, init: RequestInit) => {
      const fault = faults[count++];
      if (fault) return fault(init.signal!);
      const [begin, last] = /^bytes=(\d+)-(\d+)$/.exec(new Headers(init.headers).get('Range')!)!.slice(1).map(Number);
      return answer(CONTENT.slice(begin, last! + 1), begin!, last!);
    },
  };
}

const answer = (body: BodyInit, begin: number, last: number) =>
  new Response(body, { status: 206, headers: { 'Content-Range': `bytes ${begin}-${last}/1000` } });
const broken = () => {
  const start = (controller: ReadableStreamDefaultController) => {
    controller.enqueue(CONTENT.slice(10, 15));
    setTimeout(() => controller.error(new TypeError('reset')));
  };
  return new ReadableStream({ start });
};
const silent = () => new ReadableStream({ pull: () => new Promise(() => undefined) });
const unanswered = { code: 'unreadable-source', cause: 'no answer' };

describe('a file on a server that an import reads', () => {
  it.each<[string, Fault, number]>([
    ['a connection that breaks', () => answer(broken(), 10, 19), 250],
    ['too few bytes', () => answer(CONTENT.slice(10, 19), 10, 19), 250],
    ['too many bytes', () => answer(CONTENT.slice(10, 21), 10, 19), 250],
    ['silence', () => answer(silent(), 10, 19), 250],
    [
      'silence before the head',
      (stop) => new Promise((_, reject) => stop.addEventListener('abort', () => reject(stop.reason))),
      250,
    ],
    ['no connection', () => Promise.reject(new TypeError('fetch failed')), 250],
    ['503', () => new Response('', { status: 503 }), 250],
    ['a wish for patience', () => new Response('', { status: 429, headers: { 'Retry-After': '17' } }), 17_000],
  ])('is asked again after %s', async (_, fault, waitMs) => {
    const options = reading({ 1: fault, 2: fault });
    const { file, path } = await urlSource(URL_, options);
    expect(path).toBe('https://x.test/a.gguf');
    expect(await file!.read(10, 20)).toEqual(CONTENT.slice(10, 20));
    expect(options.waits[0]).toBe(waitMs);
    expect(options.waits).toHaveLength(2);
  });

  it('is refused in packed ranges, at once', async () => {
    const packed = () => new Response('x', { status: 206, headers: { 'Content-Encoding': 'gzip' } });
    const options = reading({ 1: packed });
    const { file } = await urlSource(URL_, options);
    await expect(file!.read(10, 20)).rejects.toThrow(
      'https://x.test/a.gguf answered with a range of the file packed by gzip',
    );
    expect(options.waits).toEqual([]);
  });

  it('is given up after seven requests, without its query being told', async () => {
    const busy = () => new Response('', { status: 503 });
    const options = reading(Object.fromEntries(Array.from({ length: 7 }, (_, i) => [i + 1, busy])));
    const { file } = await urlSource(URL_, options);
    const refused = await file!.read(10, 20).catch((error) => error);
    expect(refused).toMatchObject({
      ...unanswered,
      message: expect.stringContaining('https://x.test/a.gguf answered'),
    });
    expect(options.waits).toHaveLength(6);
    const missing = await urlSource(URL_, reading({ 0: () => new Response('', { status: 404 }) })).catch(
      (error) => error,
    );
    expect(missing.message).toContain('https://x.test/a.gguf answered 404');
  });

  it('is not taken for one that is not there', async () => {
    const answers = (response: () => Response) =>
      reading(Object.fromEntries(Array.from({ length: 7 }, (_, i) => [i, response])));
    const there = async (response: () => Response) =>
      openIfThere((await urlSource('https://x.test/m/', answers(response))).folder!, 'model_index.json');
    expect(await there(() => new Response('', { status: 404 }))).toBeUndefined();
    await expect(there(() => new Response('', { status: 502 }))).rejects.toMatchObject(unanswered);
    const hour = () => new Response('', { status: 503, headers: { 'Retry-After': '3600' } });
    await expect(there(hour)).rejects.toMatchObject(unanswered);
  });

  it('is not asked again where nobody has answered at all', async () => {
    const options = reading({ 0: () => Promise.reject(new TypeError('fetch failed')) });
    const { folder } = await urlSource('https://x.test/m/', options);
    const refused = await openIfThere(folder!, 'model_index.json').catch((error) => error);
    expect(refused).toMatchObject({
      ...unanswered,
      message: 'https://x.test/m/model_index.json cannot be reached: fetch failed.',
    });
    expect(options.waits).toEqual([]);
  });

  it('is not asked again behind an abort', async () => {
    const controller = new AbortController();
    const abort = () => {
      controller.abort();
      return new Response('', { status: 503 });
    };
    const options = reading({ 1: abort }, controller.signal);
    const { file } = await urlSource(URL_, options);
    await expect(file!.read(10, 20)).rejects.toMatchObject({ code: 'aborted' });
  });
});

it('a folder that has gone since it was chosen is an unreadable source', async () => {
  const keys = () => ({ [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(new DOMException('gone')) }) });
  const handle = { kind: 'directory', name: 'Wan', keys } as unknown as FileSystemDirectoryHandle;
  await expect(openSpecs([{ kind: 'handle', handle }])).rejects.toMatchObject({
    code: 'unreadable-source',
    message: 'Wan cannot be read: gone. Choose the folder again.',
  });
});
