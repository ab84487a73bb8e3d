import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { byteRange } from '../../src/cli/server';
import { hashPiece, MANIFEST_FILE, type Manifest } from '../../src/manifest';
import { blockBytes, LANES } from '../../src/store/arrivals';
import { downloadModel } from '../../src/store/download';
import { listModels, verifyModel } from '../../src/store/library';
import { listPieces, modelPath, type PieceList } from '../../src/store/pieces';
import { seededUniform } from '../harness/near';
import { fakeHost, pieceModel, wrongPieces } from '../harness/store-host';

/**
 * The download against a real server on this machine, over real connections and the runtime's own `fetch`: what
 * servers, proxies and networks do to answers, together with a disk that is full and processes that die.
 */

/** Faults over all downloads. */
const FAULTS = 400;

let files: Map<string, Uint8Array>;
let list: PieceList;
let id: string;
let url: string;

/** What one answer is: of a file, its bytes asked for. Faults may change all of it. */
interface Answer {
  response: ServerResponse;
  whole: Buffer;
  begin: number;
  end: number;
  part: Buffer;
  uniform: () => number;
}

const upTo = (uniform: () => number, end: number) => Math.floor(uniform() * end);

function head(
  { response, whole, begin, end, part }: Answer,
  headers: Record<string, string | number> = {},
  status = 206,
) {
  const range = `bytes ${begin}-${end - 1}/${whole.length}`;
  const usual = { ETag: '"1"', 'Content-Length': part.length, ...(status === 206 && { 'Content-Range': range }) };
  response.writeHead(status, { ...usual, ...headers });
}

/** Sends some of the body, then resets the connection. */
function cut({ response }: Answer, bytes: Buffer): void {
  response.write(bytes, () => response.destroy());
  if (bytes.length === 0) response.destroy();
}

const FAULT_KINDS: Record<string, (answer: Answer) => void> = {
  'cut connection'(answer) {
    head(answer);
    cut(answer, answer.part.subarray(0, upTo(answer.uniform, answer.part.length)));
  },
  'cut before the head': ({ response }) => void response.destroy(),
  'flipped bit'(answer) {
    const flipped = Buffer.from(answer.part);
    flipped[upTo(answer.uniform, flipped.length)]! ^= 1 << upTo(answer.uniform, 8);
    head(answer);
    answer.response.end(flipped);
  },
  'wrong range'(answer) {
    head(answer, { 'Content-Range': `bytes 0-0/${answer.whole.length}`, 'Content-Length': 1 });
    answer.response.end(answer.whole.subarray(0, 1));
  },
  'bytes of another range'(answer) {
    const from = upTo(answer.uniform, answer.whole.length - answer.part.length + 1);
    head(answer);
    answer.response.end(answer.whole.subarray(from, from + answer.part.length));
  },
  'too short'(answer) {
    const short = answer.part.subarray(0, upTo(answer.uniform, answer.part.length));
    head(answer, { 'Content-Length': short.length });
    answer.response.end(short);
  },
  'too long'(answer) {
    head(answer, { 'Content-Length': answer.part.length + 3 });
    answer.response.end(Buffer.concat([answer.part, Buffer.from('abc')]));
  },
  '200 for 206'(answer) {
    head(answer, { 'Content-Length': answer.whole.length }, 200);
    answer.response.end(answer.whole);
  },
  '200 for 206, cut'(answer) {
    head(answer, { 'Content-Length': answer.whole.length }, 200);
    cut(answer, answer.whole.subarray(0, upTo(answer.uniform, answer.whole.length)));
  },
  'gzip of the whole'(answer) {
    const packed = gzipSync(answer.whole, { level: 1 });
    head(answer, { 'Content-Length': packed.length, 'Content-Encoding': 'gzip' }, 200);
    answer.response.end(packed);
  },
  'gzip of a range'(answer) {
    const packed = gzipSync(answer.part, { level: 1 });
    head(answer, { 'Content-Length': packed.length, 'Content-Encoding': 'gzip' });
    answer.response.end(packed);
  },
  'changed ETag, same bytes'(answer) {
    head(answer, { ETag: `"${upTo(answer.uniform, 9)}"` });
    answer.response.end(answer.part);
  },
  'changed file'(answer) {
    head(answer, { ETag: '"2"' });
    answer.response.end(Buffer.alloc(answer.part.length, 9));
  },
  'changed length'(answer) {
    head(answer, { 'Content-Range': `bytes ${answer.begin}-${answer.end - 1}/${answer.whole.length + 1}` });
    answer.response.end(answer.part);
  },
  'Retry-After in seconds': ({ response }) => void response.writeHead(429, { 'Retry-After': '7' }).end(),
  'Retry-After as a date': ({ response }) =>
    void response.writeHead(503, { 'Retry-After': 'Thu, 01 Jan 2026 00:05:00 GMT' }).end('later'),
  'gateway timeout': ({ response }) => void response.writeHead(504).end('<html>'),
  gone: ({ response }) => void response.writeHead(404).end(),
};

/** Answers in place of the server where it returns true. */
let misbehave: (answer: Answer) => boolean = () => false;
let sentBytes = 0;

const server = createServer((request, response) => {
  const path = request.url!.replace('/m/', '');
  const whole = Buffer.from(files.get(path)!);
  const range = byteRange(request.headers.range, whole.length);
  if (range === 'unsatisfiable') return response.writeHead(416).end();
  const [begin, end] = range ?? [0, whole.length];
  const answer = { response, whole, begin, end, part: whole.subarray(begin, end), uniform: Math.random };
  if (path !== MANIFEST_FILE && range && misbehave(answer)) return;
  if (range) sentBytes += end - begin;
  head(answer, {}, range ? 206 : 200);
  response.end(answer.part);
});

beforeAll(async () => {
  files = await pieceModel();
  const bytes = files.get(MANIFEST_FILE)!;
  list = listPieces(JSON.parse(new TextDecoder().decode(bytes)) as Manifest);
  id = await hashPiece(bytes);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/m/`;
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const watched = (signal = new AbortController().signal) => ({ signal, onProgress: () => undefined, stallMs: 5000 });

/** One model downloaded through faults until it is there. */
async function run(seed: number, count: (kind: string) => void): Promise<void> {
  const uniform = seededUniform(seed);
  const kinds = Object.keys(FAULT_KINDS);
  const host = fakeHost((address, init) => fetch(address, init));
  /** Faults, kills and tabs of this run: each may cost a piece. */
  let interruptions = 0;
  let streamed = false;
  let dead = false;
  sentBytes = 0;
  host.fetch = (address, init) => (dead ? Promise.reject(new TypeError('the process is dead')) : fetch(address, init));
  let stop = new AbortController();
  misbehave = (answer) => {
    if (uniform() > 0.2) return false;
    const kind = kinds[upTo(uniform, kinds.length)]!;
    count(kind);
    interruptions++;
    if (answer.end - answer.begin <= blockBytes(list)) sentBytes += kind.startsWith('200') ? 0 : answer.part.length;
    streamed ||= kind.startsWith('200') || kind === 'gzip of the whole';
    FAULT_KINDS[kind]!({ ...answer, uniform });
    return true;
  };
  for (let attempt = 0; ; attempt++) {
    expect(attempt, `seed ${seed} makes no progress`).toBeLessThan(200);
    dead = false;
    stop = new AbortController();
    host.disk.quotaBytes = 1e9;
    const event = ['killed', 'full disk', 'stopped', 'two tabs', 'none'][upTo(uniform, 5)]!;
    let writes = upTo(uniform, 60);
    host.disk.beforeWrite = () => {
      if (event === 'none' || event === 'two tabs' || (!dead && writes-- > 0)) return;
      if (event === 'full disk') throw new DOMException('full', 'QuotaExceededError');
      if (event === 'stopped') return stop.abort();
      dead = true;
      throw new Error('killed');
    };
    if (event !== 'none') {
      count(event);
      interruptions++;
    }
    const tabs = event === 'two tabs' ? [host, fakeHost(host.fetch, host)] : [host];
    const results = await Promise.allSettled(tabs.map((tab) => downloadModel(tab, url, watched(stop.signal))));
    if (dead) host.disk.crash();
    host.disk.beforeWrite = () => undefined;
    expect(wrongPieces(host.disk, id, files), `seed ${seed}: unverified bytes are marked as there`).toEqual([]);
    for (const result of results) {
      if (result.status === 'rejected') expect(result.reason.name, `seed ${seed}`).toMatch(/^ZoetropeError:/);
    }
    if (results.some(({ status }) => status === 'fulfilled')) break;
  }
  for (const [path, bytes] of files) {
    const stored = host.disk.files.get(`${id} ${path === MANIFEST_FILE ? path : modelPath(path)}`)!;
    expect(Buffer.compare(stored.flushed, bytes), `seed ${seed}: ${path}`).toBe(0);
  }
  expect((await listModels(host))[0]).toMatchObject({ id, state: 'complete' });
  expect(await verifyModel(host, id, watched())).toMatchObject({ complete: true, broken: [] });
  if (!streamed) {
    const again = sentBytes - list.sizeBytes;
    expect(again, `seed ${seed}: bytes sent twice`).toBeLessThanOrEqual(interruptions * LANES * blockBytes(list));
  }
}

it(`ends with the same bytes after ${FAULTS} seeded faults of a real server`, { timeout: 120_000 }, async () => {
  const faults = new Map<string, number>();
  const total = () => [...faults.values()].reduce((sum, number) => sum + number, 0);
  let downloads = 0;
  for (; total() < FAULTS; downloads++) {
    await run(500 + downloads, (kind) => faults.set(kind, (faults.get(kind) ?? 0) + 1));
  }
  console.log(`${total()} faults in ${downloads} downloads: ${JSON.stringify(Object.fromEntries(faults))}`);
  expect(faults.size).toBe(Object.keys(FAULT_KINDS).length + 4);
});
