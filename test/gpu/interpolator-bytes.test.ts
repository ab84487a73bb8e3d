import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/checkpoint/safetensors';
import { Film } from '../../src/interpolate/film';
import { filmBytes, filmWeightBytes, type Size } from '../../src/interpolate/film-tiles';
import { loadFilm } from '../../src/interpolate/film-weights';
import type { Interpolator, RgbFrame } from '../../src/interpolate/interpolator';
import { retime } from '../../src/interpolate/retime';
import { Rife } from '../../src/interpolate/rife';
import { rifeBytes, rifeWeightBytes } from '../../src/interpolate/rife-sizes';
import { loadRife } from '../../src/interpolate/rife-weights';
import { RIFE_46, type RifeConfig } from '../../src/part/rife';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { randomFilm, SMALLEST_FILM } from '../harness/film';
import { seededFloats } from '../harness/near';
import { shippedRife } from '../harness/rife';
import { importedRife, randomRife, SMALL_RIFE } from '../harness/rife-family';

/** What the interpolators say that they hold, against the ledger. */

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

const types = () => (test.gpu.f16 ? (['f32', 'f16'] as const) : (['f32'] as const));

async function filmWeights(type: 'f16' | 'f32') {
  const bytes = randomFilm(SMALLEST_FILM, 3);
  const file = { sizeBytes: bytes.length, read: async (begin: number, end: number) => bytes.slice(begin, end) };
  return loadFilm(test.gpu, await openSafetensors(file, 'film'), undefined, type);
}

/**
 * Bytes above the present level while a clip of three frames is retimed: what waits for a frame, and the most at once.
 */
async function held(make: () => Interpolator, [height, width]: Size, count: number) {
  const { memory } = test.gpu;
  const base = memory.liveBytes;
  memory.resetPeak();
  let waiting = 0;
  const frameBytes = 12 * height * width;
  async function* frames(): AsyncGenerator<RgbFrame> {
    for (let frame = 0; frame < 3; frame++) {
      if (frame > 0) waiting = memory.liveBytes - base;
      using rgb = memory.upload('frame', 'float32', [3, 1, height, width], seededFloats(frame, 3 * height * width));
      yield { rgb, frame: 0 };
    }
  }
  using interpolator = make();
  for await (const _ of retime(frames(), interpolator, count));
  return { waiting, working: memory.peakBytes - base - frameBytes };
}

describe('FILM', () => {
  it.each([
    [[64, 64], [64, 64], 1],
    [[64, 64], [64, 64], 2],
    [[30, 70], [64, 128], 4],
    [[40, 400], [64, 256], 1],
    [[40, 400], [64, 256], 4],
  ] as [Size, Size, number][])('%s pixels in runs of %s, %i between', async (frame, tile, count) => {
    for (const type of types()) {
      const before = test.gpu.memory.liveBytes;
      using weights = await filmWeights(type);
      expect(filmWeightBytes(SMALLEST_FILM, type) / (test.gpu.memory.liveBytes - before)).toBeCloseTo(1, 2);
      const expected = filmBytes(SMALLEST_FILM, frame, tile, type, count);
      const [height, width] = frame;
      const make = () => new Film(test.gpu, weights, { width, height, tile });
      expect(await held(make, frame, count)).toEqual({ waiting: expected.waiting, working: expected.working });
    }
  });
});

type Version = keyof typeof SMALL_RIFE;

async function randomWeights(config: RifeConfig, type: 'f16' | 'f32') {
  return loadRife(test.gpu, (await importedRife(randomRife(config, 1))).open(), undefined, type);
}

describe('RIFE', () => {
  it.each([
    ['4.6', [64, 64], 1],
    ['4.6', [20, 49], 3],
    ['4.25', [20, 65], 1],
    ['4.26.heavy', [64, 64], 1],
  ] as [Version, Size, number][])('%s, [%s] pixels, %i between', async (version, frame, count) => {
    const config = version === '4.6' ? RIFE_46 : SMALL_RIFE[version];
    for (const type of types()) {
      const before = test.gpu.memory.liveBytes;
      using weights = await (version === '4.6' ? shippedRife(test.gpu, type) : randomWeights(config, type));
      expect(test.gpu.memory.liveBytes - before).toBe(rifeWeightBytes(config, type));
      const [height, width] = frame;
      const expected = rifeBytes(config, width, height, type);
      const make = () => new Rife(test.gpu, weights, { width, height });
      const { waiting, working } = await held(make, frame, count);
      expect(waiting / expected.waiting).toBeCloseTo(1, 2);
      expect(working / expected.working).toBeCloseTo(1, 2);
    }
  });
});
