import { beforeAll, expect, it } from 'vitest';
import { hashPiece, MANIFEST_FILE, type Manifest } from '../../src/manifest';
import { blockBytes, LANES } from '../../src/store/arrivals';
import { downloadModel } from '../../src/store/download';
import { listModels, verifyModel } from '../../src/store/library';
import { listPieces, modelPath, type PieceList } from '../../src/store/pieces';
import {
  brokenBody,
  type FakeHost,
  fakeHost,
  fakeServer,
  keptBytes,
  pieceModel,
  type Seen,
  wrongPieces,
} from '../harness/store-host';

/** Faults over all runs together. */
const FAULTS = 2000;

let files: Map<string, Uint8Array>;
let list: PieceList;
let id: string;

beforeAll(async () => {
  files = await pieceModel();
  const bytes = files.get(MANIFEST_FILE)!;
  list = listPieces(JSON.parse(new TextDecoder().decode(bytes)) as Manifest);
  id = await hashPiece(bytes);
});

/** Uniform numbers from 0 to 1, the same for the same seed (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Ways in which an answer goes wrong. */
const ANSWERS: Record<string, (part: Uint8Array, proper: Response, random: () => number, path: string) => Response> = {
  cut: (part, proper, random) => headed(brokenBody(part.subarray(0, Math.floor(random() * part.length))), proper),
  short: (part, proper, random) => headed(part.slice(0, Math.floor(random() * part.length)), proper),
  long: (part, proper) => headed(new Uint8Array([...part, 7]), proper),
  flipped(part, proper, random) {
    part[Math.floor(random() * part.length)]! ^= 1 << Math.floor(random() * 8);
    return headed(part, proper);
  },
  'other range'(_, proper) {
    const total = proper.headers.get('Content-Range')!.split('/')[1];
    return new Response(new Uint8Array(3), { status: 206, headers: { 'Content-Range': `bytes 1-3/${total}` } });
  },
  'whole file': (_part, _proper, _random, path) => new Response(files.get(path)!.slice()),
  'whole file, cut': (_part, _proper, random, path) => {
    const whole = files.get(path)!;
    return new Response(brokenBody(whole.subarray(0, Math.floor(random() * whole.length))));
  },
  'another file': (part, proper) => headed(part.fill(9), proper),
  busy: () => new Response('', { status: 503, headers: { 'Retry-After': '3' } }),
  gone: () => new Response('', { status: 404 }),
  longer(_, proper) {
    const range = proper.headers.get('Content-Range')!;
    return new Response(new Uint8Array(3), { status: 206, headers: { 'Content-Range': `${range}9` } });
  },
};

/** Those whose bytes cannot be told from right ones before the hash of their piece is known. */
const SPOILING = new Set(['flipped', 'another file', 'short']);

function headed(body: Uint8Array | ReadableStream<Uint8Array>, { status, headers }: Response): Response {
  return new Response(body as BodyInit, { status, headers });
}

/** One model downloaded through faults until it is there. Gives the faults by kind. */
async function run(seed: number): Promise<{ faults: Map<string, number>; failures: number; againBytes: number }> {
  const random = randomOf(seed);
  const faults = new Map<string, number>();
  const count = (kind: string) => faults.set(kind, (faults.get(kind) ?? 0) + 1);
  const kinds = Object.keys(ANSWERS);
  /** Attempts that ended early, and bytes of ranges that were sent before and yet have to come again. */
  let failures = 0;
  let againBytes = 0;
  let sentBytes = 0;
  /** Pieces that may have come twice by now: one for each interruption, and those that a fault has spoiled. */
  let pieces = 0;
  let controller = new AbortController();
  let killed = false;
  const answer = async (seen: Seen, give: () => Response): Promise<Response> => {
    if (killed) throw new TypeError('the tab is dead');
    if (random() < 0.01) {
      count('stopped');
      controller.abort();
    }
    seen.signal?.throwIfAborted();
    if (!seen.range) return give();
    if (random() > 0.35) {
      sentBytes += seen.range[1] - seen.range[0];
      return give();
    }
    const kind = kinds[Math.floor(random() * kinds.length)]!;
    count(kind);
    if (random() < 0.05) return Promise.reject(new TypeError('no route to host'));
    if (SPOILING.has(kind)) pieces++;
    if (kind.startsWith('whole')) pieces = Number.POSITIVE_INFINITY; // Its bytes begin with those that are there.
    const response = give();
    return ANSWERS[kind]!(new Uint8Array(await response.clone().arrayBuffer()), response, random, seen.path);
  };
  const { fetch } = fakeServer(files, answer);
  const host: FakeHost = fakeHost(fetch);
  host.random = random;

  for (let attempt = 0; ; attempt++) {
    expect(attempt, `seed ${seed} makes no progress`).toBeLessThan(300);
    controller = new AbortController();
    killed = false;
    host.disk.quotaBytes = 1e9;
    if (random() < 0.1) {
      count('full disk');
      host.disk.quotaBytes = Math.floor(random() * 1.2 * list.sizeBytes);
    }
    host.disk.beforeWrite = () => {
      if (killed) throw new Error('the tab is dead');
      if (random() < 0.02) {
        count('killed between writes');
        killed = true;
        throw new Error('killed');
      }
    };
    const { signal } = controller;
    const before = await keptBytes(host.disk, id, list);
    sentBytes = 0;
    const tabs = random() < 0.3 ? [host, fakeHost(fetch, host)] : [host];
    if (tabs.length > 1) count('two tabs');
    const results = await Promise.allSettled(
      tabs.map((tab) => downloadModel(tab, 'https://x.test/m/', { signal, onProgress: () => undefined })),
    );
    if (killed) host.disk.crash();
    host.disk.beforeWrite = () => undefined;
    expect(wrongPieces(host.disk, id, files), `seed ${seed}: unverified bytes are marked as there`).toEqual([]);
    for (const result of results) {
      if (result.status === 'rejected') expect(result.reason.name, `seed ${seed}`).toMatch(/^ZoetropeError:/);
    }
    if (results.some(({ status }) => status === 'fulfilled')) break;
    againBytes += sentBytes - ((await keptBytes(host.disk, id, list)) - before);
    pieces += tabs.length;
    expect(againBytes, `seed ${seed}: bytes that come twice`).toBeLessThanOrEqual(pieces * LANES * blockBytes(list));
    failures++;
    await damage(host, random, count);
  }
  const stored = (await listModels(host))[0];
  expect(stored, `seed ${seed}`).toMatchObject({ id, state: 'complete' });
  const verified = await verifyModel(host, id, { signal: new AbortController().signal, onProgress: () => undefined });
  expect(verified, `seed ${seed}`).toMatchObject({ complete: true, broken: [], verifiedBytes: list.sizeBytes });
  return { faults, failures, againBytes };
}

/** Between two attempts the disk may lose a file or a bit; a verification has to find just that. */
async function damage(host: FakeHost, random: () => number, count: (kind: string) => void): Promise<void> {
  const chosen = list.files[Math.floor(random() * list.files.length)]!;
  const file = host.disk.files.get(`${id} ${modelPath(chosen.path)}`);
  if (!file || file.written.length === 0 || random() > 0.2) return;
  if (random() < 0.5) {
    count('evicted file');
    host.disk.files.delete(`${id} ${modelPath(chosen.path)}`);
    return;
  }
  count('rotten bit');
  file.written[Math.floor(random() * file.written.length)]! ^= 16;
  file.flushed = file.written.slice();
  const wrong = wrongPieces(host.disk, id, files);
  const { broken } = await verifyModel(host, id, { signal: new AbortController().signal, onProgress: () => undefined });
  expect(broken).toHaveLength(wrong.length);
  expect(wrongPieces(host.disk, id, files)).toEqual([]);
}

it(`ends complete after ${FAULTS} seeded faults, and marks no wrong byte as there`, { timeout: 120_000 }, async () => {
  const total = new Map<string, number>();
  const sum = () => [...total.values()].reduce((all, count) => all + count, 0);
  let failures = 0;
  let againBytes = 0;
  let runs = 0;
  for (; sum() < FAULTS; runs++) {
    const { faults, ...seen } = await run(1000 + runs);
    for (const [kind, count] of faults) total.set(kind, (total.get(kind) ?? 0) + count);
    failures += seen.failures;
    againBytes += seen.againBytes;
  }
  console.log(`${sum()} faults in ${runs} downloads: ${JSON.stringify(Object.fromEntries(total))}`);
  console.log(
    `${failures} attempts ended early; ${Math.round(againBytes / failures)} bytes each came twice, of pieces of ${list.largestBytes}`,
  );
  expect([...total.keys()]).toHaveLength(Object.keys(ANSWERS).length + 6);
});

/** Times that the process dies, over all downloads. */
const KILLS = 300;

it(`fetches no more than one piece twice for each of ${KILLS} seeded kills`, { timeout: 60_000 }, async () => {
  const random = randomOf(77);
  const worst = LANES * blockBytes(list);
  let kills = 0;
  let againBytes = 0;
  while (kills < KILLS) {
    let sent = 0;
    const first = kills;
    let left = 0;
    const die = () => {
      if (left-- <= 0) throw new Error('killed');
    };
    // It dies at a write, at a request, or while bytes come in; with it goes whatever was not flushed.
    const { fetch } = fakeServer(files, async ({ range }, proper) => {
      die();
      if (!range) return proper();
      const answer = proper();
      const bytes = new Uint8Array(await answer.arrayBuffer());
      const cut = random() < 0.2 ? Math.floor(random() * bytes.length) : undefined;
      sent += cut ?? bytes.length;
      return headed(cut === undefined ? bytes : brokenBody(bytes.subarray(0, cut)), answer);
    });
    const host = fakeHost(fetch);
    host.disk.beforeWrite = die;
    for (; ; kills++) {
      left = Math.floor(random() * 120);
      const download = downloadModel(host, 'https://x.test/m/', {
        signal: new AbortController().signal,
        onProgress: () => undefined,
      });
      const died = await download.then(
        () => false,
        () => true,
      );
      host.disk.crash();
      expect(wrongPieces(host.disk, id, files)).toEqual([]);
      if (!died) break;
    }
    const again = sent - list.sizeBytes;
    againBytes += again;
    expect(again).toBeLessThanOrEqual((kills - first) * worst);
  }
  console.log(
    `${kills} kills: ${Math.round(againBytes / kills)} bytes each were sent twice, pieces have ${list.largestBytes}`,
  );
});
