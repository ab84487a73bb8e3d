import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { importFilm } from '../../src/checkpoint/film';
import type { GpuTensor } from '../../src/gpu/memory';
import { Film, type FilmOptions, type FilmPicture } from '../../src/interpolate/film';
import { filmMemory } from '../../src/interpolate/film-tiles';
import { type FilmWeights, loadFilm } from '../../src/interpolate/film-weights';
import { filmShapes } from '../../src/part/film';
import { openPart, type VerifiedComponent } from '../../src/store/verified';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { filmGolden, hasFilmReference, planesOf, randomFilm, SMALLEST_FILM, tinyFilm } from '../harness/film';
import { memoryFolder } from '../harness/memory-folder';
import { expectNear, type Tolerance } from '../harness/near';
import { readFrame, uploadFrame } from '../harness/rife';
import { movingTexture } from '../harness/texture';
import { type FilmTensors, filmReferenceFrame } from '../reference/film';

/** f32 through up to 40 layers, against fp32 and float64. Measured up to 4.5e-7 and 4.8e-6; four times that. */
const F32_NETWORK: Tolerance = { relativeL2: 1.8e-6, maxAbs: 2e-5 };
/** The same values from tiles, blended here and in the kernel. Measured up to 1.8e-8 and 4.8e-7; four times that. */
const F32_MOVED: Tolerance = { relativeL2: 8e-8, maxAbs: 2e-6 };

const SEED = 100;

let test: TestGpu;
let source: VerifiedComponent;
let weights: FilmWeights;
beforeAll(async () => {
  test = await openTestGpu();
  const sink = memoryFolder();
  const file = randomFilm(SMALLEST_FILM, SEED);
  await importFilm({
    file: { sizeBytes: file.length, read: async (begin, end) => file.slice(begin, end) },
    what: 'random.safetensors',
    sink,
  });
  source = (await openPart(sink, 'film')).open();
  weights = await loadFilm(test.gpu, source, undefined, 'f32');
});
afterAll(async () => {
  weights?.[Symbol.dispose]();
  await test.close();
});

/** Two frames of a texture that moves, planes in 0..1. */
function pair(seed: number, width: number, height: number): [Float32Array, Float32Array] {
  const texture = movingTexture(seed, 6, 64);
  return [texture(width, height, 0, 0), texture(width, height, 5, -3)];
}

interface Job {
  film: Film;
  before: FilmPicture;
  after: FilmPicture;
}

/** Runs with both frames prepared, and sees that nothing is left behind. */
async function withPair<T>(
  [first, second]: readonly [Float32Array, Float32Array],
  options: FilmOptions,
  run: (job: Job) => Promise<T>,
  chosen: FilmWeights = weights,
): Promise<T> {
  const { memory } = test.gpu;
  const live = memory.liveBytes;
  const result = await (async () => {
    using a = uploadFrame(test.gpu, first, [3, options.height, options.width]);
    using b = uploadFrame(test.gpu, second, [3, options.height, options.width]);
    using film = new Film(test.gpu, chosen, options);
    using before = await film.prepare({ rgb: a, frame: 0 });
    using after = await film.prepare({ rgb: b, frame: 0 });
    return await run({ film, before, after }); // What is used here is freed when this returns.
  })();
  expect(memory.liveBytes).toBe(live);
  test.gpu.check();
  return result;
}

async function frameAt({ film, before, after }: Job, time: number): Promise<Float32Array> {
  using rgb = await film.at(before, after, time);
  return readFrame(test.gpu, rgb);
}

describe.skipIf(!hasFilmReference)('the tiny network against its reference outputs', () => {
  it('makes features, flows and frames', async () => {
    const golden = filmGolden();
    using tiny = await loadFilm(test.gpu, await tinyFilm(), undefined, 'f32');
    const { shape, values } = golden.get('img0')!;
    const stored: Record<string, string> = {
      'features 0': 'feat0_level0',
      'features 3': 'feat0_level3',
      'forward 6': 'forward_residual_flow_level6',
      'forward 0': 'forward_flow_level0',
      'backward 0': 'backward_flow_level0',
    };
    const seen = new Set<string>();
    const tap = async (name: string, tensor: GpuTensor) => {
      const expected = stored[name];
      if (expected === undefined) return;
      seen.add(name);
      const read = await test.gpu.memory.readFloats(tensor);
      const planes = planesOf(read, tensor.shape, name.startsWith('features') ? 1 : 0);
      expectNear(planes, golden.get(expected)!.values, F32_NETWORK, name);
    };
    const options = { width: shape[2]!, height: shape[1]!, tap };
    const frames = [values, golden.get('img1')!.values] as const;
    const run = async (job: Job) => {
      for (const time of [0.5, 0.25]) {
        expectNear(await frameAt(job, time), golden.get(`out@${time}`)!.values, F32_NETWORK, `out@${time}`);
      }
    };
    await withPair(frames, options, run, tiny);
    expect(seen.size).toBe(5);
  });
});

it.each([
  [70, 33, 0.5],
  [1, 65, 0.3],
])('makes the frame of float64 for %i × %i pixels at %f', async (width, height, time) => {
  const names = [...filmShapes(SMALLEST_FILM)];
  const read = async (name: string) => new Float32Array((await source.read(name)).buffer);
  const tensors: FilmTensors = new Map(
    await Promise.all(names.map(async ([name, shape]) => [name, { shape, values: await read(name) }] as const)),
  );
  const frames = pair(5, width, height);
  const expected = filmReferenceFrame(SMALLEST_FILM, tensors, frames, [height, width], time);
  const actual = await withPair(frames, { width, height }, (job) => frameAt(job, time));
  expectNear(actual, expected, F32_NETWORK, `${width} × ${height}, texture 5, weights ${SEED}`);
});

describe('between', () => {
  const [width, height] = [20, 12];
  const frames = pair(6, width, height);

  /** All frames that are yielded, read before the next is asked for. */
  async function between({ film, before, after }: Job, count: number): Promise<Float32Array[]> {
    const made: Float32Array[] = [];
    for await (const { rgb, frame } of film.between(before, after, count)) {
      expect(frame).toBe(0);
      made.push(await readFrame(test.gpu, rgb));
    }
    return made;
  }

  it('makes one frame in the middle', async () => {
    const [made, wanted] = await withPair(frames, { width, height }, async (job) => [
      await between(job, 1),
      [await frameAt(job, 0.5)],
    ]);
    expect(made).toEqual(wanted);
  });

  it('makes four, each of the frames round its gap, in the order of time', async () => {
    await withPair(frames, { width, height }, async (job) => {
      const { film, before, after } = job;
      using two = await film.at(before, after, 2 / 5);
      using atTwo = await film.prepare({ rgb: two, frame: 0 });
      using one = await film.at(before, atTwo, 1 / 2);
      using four = await film.at(atTwo, after, 2 / 3);
      using atFour = await film.prepare({ rgb: four, frame: 0 });
      using three = await film.at(atTwo, atFour, 1 / 2);
      const wanted = [];
      for (const rgb of [one, two, three, four]) wanted.push(await readFrame(test.gpu, rgb));
      expect(await between(job, 4)).toEqual(wanted);
    });
  });

  it('frees everything when it is left early', async () => {
    await withPair(frames, { width, height }, async ({ film, before, after }) => {
      for await (const _ of film.between(before, after, 3)) break;
    });
  });

  it.each([
    [1, 2],
    [4, 4],
  ])('holds for %i frames what is predicted, with %i pictures', async (count, pictures) => {
    const { memory } = test.gpu;
    await withPair(frames, { width, height }, async (job) => {
      const { pictureBytes, scratchBytes } = filmMemory(SMALLEST_FILM, [64, 64], 'f32');
      const others = memory.liveBytes - 2 * pictureBytes;
      memory.resetPeak();
      await between(job, count);
      const frameBytes = 3 * width * height * 4;
      const held = memory.peakBytes - others - pictures * pictureBytes - scratchBytes;
      expect(held).toBeGreaterThanOrEqual(frameBytes);
      expect(held).toBeLessThanOrEqual(3 * frameBytes);
    });
  });

  it.each([0, 1, -0.1, Number.NaN])('refuses the time %d', async (time) => {
    await withPair(frames, { width, height }, async ({ film, before, after }) => {
      await expect(film.at(before, after, time)).rejects.toMatchObject({ code: 'internal' });
    });
  });
});

describe('in tiles', () => {
  const [width, height] = [340, 50];
  const frames = pair(7, width, height);
  const { pictureBytes, scratchBytes } = filmMemory(SMALLEST_FILM, [64, 256], 'f32');
  const budgetBytes = 2 * pictureBytes + scratchBytes;

  /** Columns of all planes. */
  function columns(values: Float32Array, begin: number, end: number): Float32Array {
    return values.filter((_, i) => i % width >= begin && i % width < end);
  }

  it('makes of each side what the network makes of its tile alone, and blends them in the middle', async () => {
    // Two tiles of 256 columns share columns 84 to 255, and fade over 138 to 201.
    const tiled = await withPair(frames, { width, height, budgetBytes }, (job) => frameAt(job, 0.5));
    const alone = async (begin: number, end: number) => {
      const part = frames.map((frame) => columns(frame, begin, end)) as [Float32Array, Float32Array];
      return withPair(part, { width: end - begin, height }, (job) => frameAt(job, 0.5));
    };
    const [left, right] = [await alone(0, 256), await alone(84, 340)];
    const share = (column: number) => Math.min(Math.max((column - 138 + 0.5) / 64, 0), 1);
    const wanted = tiled.map((_, i) => {
      const [row, column] = [Math.floor(i / width), i % width];
      const before = column < 256 ? left[row * 256 + column]! : 0;
      const after = column >= 84 ? right[row * 256 + column - 84]! : 0;
      return before * (1 - share(column)) + after * share(column);
    });
    expectNear(tiled, wanted, F32_MOVED, 'texture 7');
  });

  it('refuses a budget that not even the smallest tile fits', () => {
    const make = () => new Film(test.gpu, weights, { width, height, budgetBytes: 1e6 });
    expect(make).toThrowError(expect.objectContaining({ code: 'out-of-memory' }));
  });
});

it('ends between two dispatches when it is cancelled, and leaves nothing behind', async () => {
  const controller = new AbortController();
  const [width, height] = [20, 12];
  let taps = 0;
  const tap = async () => {
    if (++taps === 3) controller.abort();
  };
  await withPair(pair(8, width, height), { width, height, signal: controller.signal, tap }, async (job) => {
    await expect(frameAt(job, 0.5)).rejects.toMatchObject({ code: 'aborted' });
  });
  expect(taps).toBeGreaterThanOrEqual(3);
});
