import { describe, expect, it } from 'vitest';
import { chooseAgainText, foundText, outlookText, partStates, unfinishedText } from '../../src/app/import-text';
import type { Inspection, StoredPart, UnfinishedImport } from '../../src/index';

const FOUND: Inspection = {
  path: 'HighNoise.gguf',
  format: 'GGUF',
  kind: 'dit',
  role: 'high',
  variant: 'a14b',
  storage: { Q4_K: { tensors: 400, bytes: 9e9 }, F32: { tensors: 600, bytes: 650e6 } },
  tensors: [],
};

const UNFINISHED: UnfinishedImport = {
  id: 'import-1',
  name: 'a14b',
  quantization: 'q4',
  license: 'Apache-2.0',
  sources: ['high.gguf', 'low.gguf'],
  remembered: false,
  sizeBytes: 18e9,
  storedBytes: 2.4e9,
  busy: false,
};

describe('what was recognised', () => {
  it.each<[Partial<Inspection>, string]>([
    [{}, 'HighNoise.gguf: high-noise expert, Wan 2.2 A14B, GGUF, 9.65 GB'],
    [{ role: undefined, variant: '1.3b' }, 'HighNoise.gguf: diffusion model, Wan 2.1 1.3B, GGUF, 9.65 GB'],
    [{ kind: 'vae' }, 'HighNoise.gguf: VAE, GGUF, 9.65 GB'],
    [{ kind: 'text_encoder' }, 'HighNoise.gguf: text encoder, GGUF, 9.65 GB'],
    [{ kind: null, why: 'It is a LoRA.' }, 'HighNoise.gguf: It is a LoRA.'],
  ])('%j reads %j', (change, text) => {
    expect(foundText({ ...FOUND, ...change })).toBe(text);
  });

  it('comes to a model, a part, or a reason', () => {
    const modelBytes = { q4: 1, q8: 2, f16: 3 };
    expect(outlookText({ found: [], modelBytes, experts: 2 })).toBe('A whole model with two experts.');
    expect(outlookText({ found: [], modelBytes, experts: 1 })).toBe('A whole model with one expert.');
    expect(outlookText({ found: [], part: 'film' })).toContain('FILM');
    expect(outlookText({ found: [FOUND], problem: 'No source holds a VAE.' })).toBe('No source holds a VAE.');
  });
});

it('a stopped import tells how far it is, and what to choose again', () => {
  expect(unfinishedText(UNFINISHED)).toBe('2.40 GB of at most 18.0 GB, from high.gguf, low.gguf');
  expect(unfinishedText({ ...UNFINISHED, busy: true })).toBe('Being imported in another tab');
  expect(chooseAgainText(UNFINISHED)).toContain('Choose high.gguf, low.gguf again');
});

it('interpolators are stored, with the model, or told how to add', () => {
  const rife: StoredPart = { id: 'part-rife', part: 'rife', name: 'RIFE 4.6', license: 'MIT', sizeBytes: 10e6 };
  const available = { film: false, rife: true, promptExpansion: true, safetyChecker: true };
  const [film, own] = partStates([rife], available);
  expect(film).toMatchObject({ stored: undefined, text: expect.stringMatching(/^FILM: not there\..*film_net_fp16/) });
  expect(own).toMatchObject({ stored: rife, text: 'RIFE 4.6: stored in this browser, 10.0 MB' });
  expect(partStates([], available)[1]!.text).toBe('RIFE: comes with the model');
  expect(partStates([], undefined)[1]!.text).toContain('not stored in this browser');
});
