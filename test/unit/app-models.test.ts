import { describe, expect, it } from 'vitest';
import { actionsFor, progressText, stateText, storageText, verificationText } from '../../src/app/models-text';
import type { StoredModel, StoreProgress } from '../../src/index';

const MODEL: StoredModel = {
  id: 'a',
  name: 'demo',
  license: 'Apache-2.0',
  quantization: 'q8',
  url: 'https://x.test/demo/',
  sizeBytes: 14e6,
  storedBytes: 14e6,
  state: 'complete',
  busy: false,
};

const PROGRESS: StoreProgress = {
  id: 'a',
  name: 'demo',
  state: 'downloading',
  doneBytes: 1.2e9,
  totalBytes: 9.8e9,
  bytesPerSecond: 45e6,
  remainingMs: 190_000,
  note: '',
};

describe('a stored model', () => {
  it.each<[Partial<StoredModel>, string[], string]>([
    [{}, ['open', 'verify', 'delete'], '14.0 MB, complete'],
    [{ url: null }, ['open', 'verify', 'delete'], '14.0 MB, complete'],
    [{ state: 'partial', storedBytes: 5e6 }, ['resume', 'delete'], '5.00 MB of 14.0 MB'],
    [
      { state: 'partial', storedBytes: 5e6, url: null },
      ['delete'],
      '5.00 MB of 14.0 MB; import or download it again to complete it',
    ],
    [{ state: 'damaged' }, ['repair', 'delete'], 'Its manifest is damaged'],
    [{ busy: true }, [], 'Another tab is working on it'],
  ])('that is %j offers %j and says %j', (change, actions, text) => {
    expect(actionsFor({ ...MODEL, ...change }, undefined)).toEqual(actions);
    expect(stateText({ ...MODEL, ...change })).toBe(text);
  });

  it('that this page works on can be stopped, whatever else it is', () => {
    expect(actionsFor({ ...MODEL, busy: true }, 'download')).toEqual(['pause', 'cancel']);
    expect(actionsFor({ ...MODEL, busy: true }, 'verify')).toEqual(['stop']);
    expect(actionsFor({ ...MODEL, busy: true }, 'repair')).toEqual(['stop']);
  });
});

it.each<[Partial<StoreProgress>, string]>([
  [{}, '1.20 GB of 9.80 GB, 45.0 MB/s, about 3 min 10 s left'],
  [{ bytesPerSecond: null, remainingMs: null }, '1.20 GB of 9.80 GB'],
  [{ doneBytes: 9.8e9, remainingMs: 0 }, '9.80 GB of 9.80 GB, 45.0 MB/s'],
  [{ state: 'verifying', bytesPerSecond: null, remainingMs: null }, 'Verifying, 1.20 GB of 9.80 GB'],
  [{ state: 'waiting', note: 'Another tab downloads.' }, 'Another tab downloads. 1.20 GB of 9.80 GB'],
  [{ state: 'retrying', note: 'The server answered 503.' }, 'The server answered 503.'],
])('progress %j reads %j', (change, text) => {
  expect(progressText({ ...PROGRESS, ...change })).toBe(text);
});

it('storage is told as used and free, and whether it lasts', () => {
  expect(storageText({ usedBytes: 14e6, quotaBytes: 6e10, persisted: true })).toBe(
    '14.0 MB used, 60.0 GB free. The browser keeps it when the disk gets full.',
  );
  expect(storageText({ usedBytes: 2, quotaBytes: 1, persisted: false })).toContain('0 bytes free. The browser may');
});

it('a verification is told in pieces', () => {
  const piece = { path: 'a', begin: 0, end: 1 };
  const verified = { complete: true, broken: [], verifiedBytes: 14e6 };
  expect(verificationText(verified)).toBe('All 14.0 MB are as published.');
  expect(verificationText({ ...verified, complete: false })).toContain('the rest is missing');
  expect(verificationText({ ...verified, broken: [piece] })).toContain('One piece was damaged');
  expect(verificationText({ ...verified, broken: [piece, piece] })).toContain('2 pieces were damaged');
});
