import { describe, expect, it } from 'vitest';
import { adviceFor, fieldOf } from '../../src/app/advice';
import { formatBytes, formatClock, formatDuration, formatLength, formatPixels } from '../../src/app/format';
import { clockText, quarterOf, spokenText, stageText, timingText } from '../../src/app/progress-text';
import { requestCode, requestJson } from '../../src/app/snippet';
import { ZoetropeError, type ZoetropeErrorCode } from '../../src/errors';
import type { Progress } from '../../src/protocol';
import { parseRequest, requestFields, resolveRequest } from '../../src/request';

describe('formatDuration', () => {
  it.each([
    [0, '0.0 s'],
    [449, '0.4 s'],
    [9_949, '9.9 s'],
    [9_950, '10 s'],
    [59_499, '59 s'],
    [59_500, '1 min 00 s'],
    [185_000, '3 min 05 s'],
    [3_599_000, '59 min 59 s'],
    [3_600_000, '1 h 00 min'],
    [3_840_000, '1 h 04 min'],
  ])('of %d ms is %s', (milliseconds, text) => {
    expect(formatDuration(milliseconds)).toBe(text);
  });

  it('has a sibling for clocks that counts whole seconds', () => {
    expect([0, 999, 1_000, 61_999].map(formatClock)).toEqual(['0 s', '0 s', '1 s', '1 min 01 s']);
  });
});

describe('formatBytes', () => {
  it.each([
    [0, '0 bytes'],
    [999, '999 bytes'],
    [1_000, '1.00 kB'],
    [9_994, '9.99 kB'],
    [9_999, '10.0 kB'],
    [99_960, '100 kB'],
    [999_499, '999 kB'],
    [999_500, '1.00 MB'],
    [17_345_678, '17.3 MB'],
    [28_600_000_000, '28.6 GB'],
    [3e15, '3000 TB'],
  ])('of %d is %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});

it('formats pixels and lengths', () => {
  expect(formatPixels([832, 480])).toBe('832 × 480');
  expect(formatLength(17, 16)).toBe('1.1 s');
  expect(formatLength(121, 4)).toBe('30 s');
});

describe('progress in words', () => {
  const progress = (part: Partial<Progress>): Progress => ({
    stage: 'diffusion',
    done: 0,
    total: 8,
    fraction: 0,
    elapsedMs: 0,
    remainingMs: null,
    ...part,
  });

  it.each([
    [{ done: 0 }, 'Denoising, step 1 of 8'],
    [{ done: 7 }, 'Denoising, step 8 of 8'],
    [{ done: 8 }, 'Denoising, step 8 of 8'],
    [{ stage: 'decode', done: 16, total: 17 }, 'Decoding and encoding, frame 17 of 17'],
    [{ stage: 'load', done: 4_300_000, total: 17_345_678 }, 'Loading the model, 4.30 MB of 17.3 MB'],
    [{ stage: 'load', done: 0, total: 0 }, 'Loading the model'],
    [{ stage: 'text', done: 1, total: 2 }, 'Reading the prompt, 2 of 2'],
    [{ stage: 'text', done: 0, total: 1 }, 'Reading the prompt'],
  ] as const)('of %j is "%s"', (part, text) => {
    expect(stageText(progress(part))).toBe(text);
  });

  it('counts on between two reports, and never below nothing', () => {
    const running = progress({ elapsedMs: 12_300, remainingMs: 40_900 });
    expect(clockText(running, 0)).toBe('12 s so far, about 40 s left');
    expect(clockText(running, 1_000)).toBe('13 s so far, about 39 s left');
    expect(clockText(running, 90_000)).toBe('1 min 42 s so far, almost done');
    expect(clockText(progress({ elapsedMs: 500 }), 0)).toBe('0 s so far, estimating the rest');
  });

  it('is spoken by quarters', () => {
    expect([0, 0.249, 0.25, 0.5, 0.999, 1].map((fraction) => quarterOf(progress({ fraction })))).toEqual([
      0, 0, 1, 2, 3, 4,
    ]);
    expect(spokenText(progress({ fraction: 0.259 }))).toBe('Denoising, 25 % done');
  });

  it('names the stages of a finished job that took time', () => {
    const timings = { loadMs: 0, textMs: 200, diffusionMs: 61_000, decodeMs: 4_000, totalMs: 65_300 };
    expect(timingText(timings)).toBe('1 min 05 s: prompt 0.2 s, denoising 1 min 01 s, decoding 4.0 s');
    expect(timingText({ loadMs: 0, textMs: 0, diffusionMs: 0, decodeMs: 0, totalMs: 900 })).toBe('0.9 s');
  });
});

describe('a finished request as text', () => {
  const none = { film: false, rife: false, promptExpansion: false, safetyChecker: false };
  const prompt = 'a "red" circle\n`y` </script> \\ 🔴';
  const request = resolveRequest({ prompt, num_frames: 17, shift: 5, seed: 7 }, none, () => 0);

  it('is JSON that the library takes, every field as it was used', () => {
    const parsed = JSON.parse(requestJson(request));
    expect(parsed).toEqual(request);
    expect(Object.keys(parsed)).toHaveLength(requestFields.length);
    expect(parseRequest(parsed)).toEqual(request);
  });

  it('is code with the prompt, the seed and what differs from the defaults', async () => {
    const code = requestCode(request, requestFields, '/models/demo/');
    const [, model, body] = code.match(
      /load\(\{ model: (.*) \}\);\n[^{]*\{ video \} = await zoetrope\.generate\((.*)\);\n$/s,
    )!;
    expect(JSON.parse(model!)).toBe('/models/demo/');
    const evaluated: unknown = new Function(`return (${body});`)();
    expect(evaluated).toEqual({ prompt, num_frames: 17, seed: 7, interpolator_model: 'none' });
  });

  it('keeps an empty prompt and a seed of 0', () => {
    const code = requestCode({ ...request, prompt: '', seed: 0 }, requestFields, 'm');
    expect(code).toContain('  prompt: "",\n');
    expect(code).toContain('  seed: 0,\n');
  });
});

describe('adviceFor', () => {
  it('says what to do where WebGPU or a codec is missing', () => {
    const device = adviceFor(new ZoetropeError('unsupported-device', 'No adapter.'));
    expect(device).toMatchObject({
      code: 'unsupported-device',
      message: 'No adapter.',
      title: 'No usable WebGPU here',
    });
    expect(device.steps.join(' ')).toMatch(/Chrome.*Safari.*Firefox/);
    expect(adviceFor(new ZoetropeError('unsupported-codec', 'No encoder.')).steps.length).toBeGreaterThan(0);
  });

  it('has a title for every code that a person can meet', () => {
    const codes: ZoetropeErrorCode[] = [
      'bad-request',
      'missing-component',
      'bad-checkpoint',
      'corrupt-data',
      'unreadable-source',
      'unsupported-device',
      'device-lost',
      'out-of-memory',
      'unsupported-codec',
      'encoding-failed',
      'worker-died',
      'internal',
    ];
    const titles = codes.map((code) => adviceFor(new ZoetropeError(code, 'x')).title);
    expect(new Set(titles).size).toBe(codes.length);
    expect(titles).not.toContain('Something went wrong');
  });

  it('explains anything else that is thrown', () => {
    expect(adviceFor(new TypeError('x is not a function'))).toMatchObject({
      title: 'Something went wrong',
      message: 'x is not a function',
      code: undefined,
      detail: [],
    });
    expect(adviceFor('text').message).toBe('text');
  });

  it('keeps the details and finds their fields', () => {
    let thrown: unknown;
    try {
      parseRequest({ prompt: 'x', num_frames: 200, extra: 1 });
    } catch (error) {
      thrown = error;
    }
    const { detail, code } = adviceFor(thrown);
    expect(code).toBe('bad-request');
    expect(detail.map(fieldOf)).toEqual(['num_frames', 'extra']);
    expect(fieldOf({ loc: ['body'], msg: 'x', type: 'missing' })).toBeUndefined();
    expect(fieldOf({ loc: ['body', 3], msg: 'x', type: 'missing' })).toBeUndefined();
  });
});
