import { describe, expect, it } from 'vitest';
import type { Manifest } from '../../src/manifest';
import {
  DONE,
  listPieces,
  neededBytes,
  nextWork,
  readJournal,
  type Standing,
  storedBytes,
} from '../../src/store/pieces';
import { backOffMs, isTransient, MAX_ATTEMPTS, Pace, retryAfterMs } from '../../src/store/retry';

const file = (path: string, ...sizes: number[]) => ({
  path,
  sizeBytes: sizes.reduce((sum, size) => sum + size, 0),
  pieces: sizes.map((sizeBytes, i) => ({ sizeBytes, sha256: `${path}${i}` })),
});

/** Components in another order than they are needed in, and an empty file. */
const components = {
  vae: [file('v', 5, 5, 1)],
  high: [file('h1', 7), file('h2', 7, 2)],
  tokenizer: [file('t', 3)],
  text_encoder: [file('e')],
} as unknown as Manifest['components'];

const list = listPieces({ components });

const standing = (change: Partial<Standing> = {}): Standing => ({
  journal: new Uint8Array(7),
  fetching: new Set(),
  whole: new Set(),
  streaming: new Set(),
  ...change,
});

describe('the pieces of a model', () => {
  it('are numbered in the order of need, whatever the order of the manifest', () => {
    expect(list.files.map(({ path }) => path)).toEqual(['t', 'e', 'h1', 'h2', 'v']);
    expect(list.pieces.map(({ sha256, begin, end }) => [sha256, begin, end])).toEqual([
      ['t0', 0, 3],
      ['h10', 0, 7],
      ['h20', 0, 7],
      ['h21', 7, 9],
      ['v0', 0, 5],
      ['v1', 5, 10],
      ['v2', 10, 11],
    ]);
    expect(list.sizeBytes).toBe(30);
    expect(list.largestBytes).toBe(7);
  });

  it('are missing unless the journal says otherwise, also where it ends', () => {
    expect(readJournal(undefined, list)).toEqual(new Uint8Array(7));
    const journal = readJournal(Uint8Array.of(1, 0, 7, 1), list);
    expect([...journal].map((mark) => mark === DONE)).toEqual([true, false, false, true, false, false, false]);
    expect(storedBytes(list, journal)).toBe(5);
    expect(readJournal(new Uint8Array(99).fill(1), list)).toHaveLength(7);
  });

  it('are fetched in order, none twice, and file by file where there are no ranges', () => {
    expect(nextWork(list, standing())).toMatchObject({ kind: 'piece', piece: { index: 0 } });
    expect(nextWork(list, standing({ fetching: new Set([0, 1]) }))).toMatchObject({ piece: { index: 2 } });
    expect(nextWork(list, standing({ fetching: new Set([0, 1]), whole: new Set([3]) }))).toEqual({
      kind: 'file',
      file: 3,
    });
    const streaming = standing({ fetching: new Set([0, 1]), whole: new Set([3]), streaming: new Set([3]) });
    expect(nextWork(list, streaming)).toMatchObject({ piece: { index: 4 } });
    expect(nextWork(list, standing({ journal: new Uint8Array(7).fill(DONE) }))).toBeUndefined();
  });

  it('need the room that their files have not taken yet', () => {
    const none = { mostBytes: 0, presentBytes: 0 };
    expect(neededBytes(list, 0, [0, 0, 0, 0, 0], none)).toBe(30);
    expect(neededBytes(list, 8, [3, 0, 0, 9, 20], none)).toBe(7);
  });

  it('need room for those on their way, no more than is missing', () => {
    const sizes = [0, 0, 0, 0, 0];
    expect(neededBytes(list, 0, sizes, { mostBytes: 12, presentBytes: 0 })).toBe(42);
    expect(neededBytes(list, 0, sizes, { mostBytes: 12, presentBytes: 5 })).toBe(37);
    expect(neededBytes(list, 0, sizes, { mostBytes: 12, presentBytes: 50 })).toBe(30);
    expect(neededBytes(list, 26, sizes, { mostBytes: 12, presentBytes: 0 })).toBe(34);
  });
});

describe('another request', () => {
  it('comes after delays that double up to half a minute, spread over their upper half', () => {
    const delays = Array.from({ length: MAX_ATTEMPTS + 2 }, (_, i) => backOffMs(i + 1, 1));
    expect(delays).toEqual([500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    expect(backOffMs(3, 0)).toBe(1000);
  });

  it.each([
    ['0', 0],
    [' 120 ', 120_000],
    ['Wed, 21 Oct 2015 07:28:00 GMT', 60_000],
    ['Wed, 21 Oct 2015 07:26:00 GMT', 0],
    ['-5', undefined],
    ['1.5', undefined],
    ['soon', undefined],
    ['', undefined],
    [null, undefined],
  ])('waits after Retry-After %j for %j ms', (value, waitMs) => {
    expect(retryAfterMs(value, Date.UTC(2015, 9, 21, 7, 27))).toBe(waitMs);
  });

  it('is made for what may pass, and not for what will not', () => {
    expect([408, 429, 500, 503].every(isTransient)).toBe(true);
    expect([200, 206, 301, 400, 401, 403, 404, 410, 416, 501].some(isTransient)).toBe(false);
  });
});

it('a pace is that of the last seconds', () => {
  const pace = new Pace(2000);
  expect(pace.bytesPerSecond()).toBeNull();
  pace.add(0, 0);
  pace.add(900, 9e6);
  expect(pace.bytesPerSecond()).toBeNull();
  pace.add(1000, 10e6);
  expect(pace.bytesPerSecond()).toBe(10e6);
  for (let ms = 2000; ms <= 6000; ms += 1000) pace.add(ms, 10e6 + ms * 1000);
  expect(pace.bytesPerSecond()).toBe(1e6);
  pace.add(7000, 0);
  expect(pace.bytesPerSecond()).toBe(0);
});
