import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { importFilm } from '../../src/checkpoint/film';
import type { GpuTensor } from '../../src/gpu/memory';
import { filmModel } from '../../src/interpolate/film';
import { loadFilm } from '../../src/interpolate/film-weights';
import type { Clip } from '../../src/interpolate/interpolator';
import { rifeModel } from '../../src/interpolate/rife';
import type { RifeWeights } from '../../src/interpolate/rife-weights';
import type { ByteSource } from '../../src/manifest';
import { videoFrames } from '../../src/pipeline/frames';
import { type VideoShape, videoShape } from '../../src/shape';
import { openPart } from '../../src/store/verified';
import { loadVae, type VaeWeights } from '../../src/vae/decoder';
import { chooseEncoder } from '../../src/video/encode';
import { saveMp4 } from '../../src/video/file';
import { encoderCandidates } from '../../src/video/levels';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { randomFilm, SMALLEST_FILM } from '../harness/film';
import { memoryFolder } from '../harness/memory-folder';
import { seededFloats } from '../harness/near';
import { replayHost } from '../harness/replay';
import { shippedRife } from '../harness/rife';
import { TINY_VAE, tinySource, tinyVaeTensors } from '../harness/tiny-vae';

/** How much more a clip of 121 frames may take than one of 17. */
const MAX_GROWTH = 1.05;

let test: TestGpu;
let vae: VaeWeights;
let rife: RifeWeights;
beforeAll(async () => {
  test = await openTestGpu();
  vae = await loadVae(test.gpu, TINY_VAE, tinySource(tinyVaeTensors(TINY_VAE, 1)));
  rife = await shippedRife(test.gpu);
});
afterAll(async () => {
  vae?.[Symbol.dispose]();
  rife?.[Symbol.dispose]();
  await test.close();
});

const sourceOf = (bytes: Uint8Array): ByteSource => ({
  sizeBytes: bytes.length,
  read: async (begin, end) => bytes.slice(begin, end),
});
const size: [number, number] = [32, 32];
const sizes = { '16:9': size, '9:16': size, '1:1': size };

function shapeOf(num_frames: number, num_interpolated_frames: number): VideoShape {
  const request = {
    num_frames,
    frames_per_second: 16,
    resolution: '480p',
    aspect_ratio: '1:1',
    interpolator_model: 'rife',
    num_interpolated_frames,
    adjust_fps_for_interpolation: true,
  } as const;
  return videoShape(request, { '480p': sizes, '580p': sizes, '720p': sizes });
}

function latentsOf({ latentFrames, latentHeight, latentWidth }: VideoShape): GpuTensor {
  const shape = [TINY_VAE.zDim, latentFrames, latentHeight, latentWidth];
  const count = shape.reduce((product, length) => product * length, 1);
  return test.gpu.memory.upload('latents', 'float32', shape, seededFloats(7, count));
}

function framesOf(
  latents: GpuTensor,
  shape: VideoShape,
  signal = new AbortController().signal,
  convolutionMac?: number,
) {
  const { gpu } = test;
  const parts = { vae: async () => vae, interpolator: async () => rifeModel(gpu, rife) };
  return videoFrames(latents, { shape, vaeTile: null, interpolator: 'rife', convolutionMac }, { gpu, signal }, parts);
}

/**
 * Streams a clip through the encoder into a file, and lists what happened: a latent frame decoded, a picture taken, its
 * chunk there, bytes in the file. `peakBytes` is beyond weights and latents.
 */
async function stream(frames: number) {
  const { memory } = test.gpu;
  const shape = shapeOf(frames, 1);
  using latents = latentsOf(shape);
  const events: ('decoded' | 'picture' | 'chunk' | 'bytes')[] = [];
  const tensor = memory.tensor.bind(memory);
  const spy = vi.spyOn(memory, 'tensor').mockImplementation((label, type, dimensions) => {
    if (label === 'rgb') events.push('decoded');
    return tensor(label, type, dimensions);
  });
  const before = memory.liveBytes;
  memory.resetPeak();
  async function* pictures() {
    for await (const frame of framesOf(latents, shape)) {
      events.push('picture');
      yield frame;
    }
  }
  const format = {
    width: shape.width,
    height: shape.height,
    framesPerSecond: 16,
    quality: 'high',
    writeMode: 'fast',
  } as const;
  const settings = await chooseEncoder(replayHost, encoderCandidates(format));
  const options = { host: replayHost, settings, frameCount: shape.outputFrames, writeMode: 'fast' } as const;
  const file = {
    write: async () => void events.push('bytes'),
    close: async () => undefined,
    abort: async () => undefined,
  };
  await saveMp4(pictures(), options, file, undefined, () => events.push('chunk'));
  spy.mockRestore();
  expect(memory.liveBytes).toBe(before);
  return { shape, events, peakBytes: memory.peakBytes - before };
}

it('takes no more memory for a clip seven times as long, and gives pictures between the latent frames', async () => {
  const short = await stream(17);
  const long = await stream(121);
  console.log(`Peak bytes of 17 and of 121 frames, interpolated: ${short.peakBytes} and ${long.peakBytes}`);
  expect(long.peakBytes).toBeLessThanOrEqual(MAX_GROWTH * short.peakBytes);
  for (const { shape, events } of [short, long]) {
    // One picture of the first latent frame, then four frames and the four between them of each.
    const expected = Array.from({ length: shape.latentFrames }, (_, t) => [
      'decoded',
      ...Array.from({ length: t === 0 ? 1 : 8 }, () => 'picture'),
    ]).flat();
    expect(events.filter((event) => event === 'decoded' || event === 'picture')).toEqual(expected);
    expect(events.filter((event) => event === 'picture')).toHaveLength(shape.outputFrames);
    expect(events.filter((event) => event === 'chunk')).toHaveLength(shape.outputFrames);
    const placesOf = (event: (typeof events)[number]) => events.flatMap((other, at) => (other === event ? [at] : []));
    expect(placesOf('chunk')[0]).toBeLessThan(placesOf('decoded')[1]!);
    // The file's header comes first of all, then fragments.
    expect(placesOf('bytes')[1]).toBeLessThan(placesOf('decoded').at(-1)!);
  }
});

it('makes smaller dispatches, and waits for fewer of them, where the plan says so, with the same pictures', async () => {
  const { queue } = test.gpu.device;
  const shape = shapeOf(17, 1);
  using latents = latentsOf(shape);
  async function first(count: number, convolutionMac?: number) {
    const submit = vi.spyOn(queue, 'submit');
    const wait = vi.spyOn(queue, 'onSubmittedWorkDone');
    const pictures: Uint8Array[] = [];
    for await (const { data } of framesOf(latents, shape, undefined, convolutionMac)) {
      if (pictures.push(data.slice()) === count) break;
    }
    const counts = { submits: submit.mock.calls.length, waits: wait.mock.calls.length };
    submit.mockRestore();
    wait.mockRestore();
    return { pictures, ...counts };
  }
  const usual = await first(3);
  const bounded = await first(3, 1e5);
  expect(bounded.pictures).toEqual(usual.pictures);
  expect(bounded.submits).toBeGreaterThan(usual.submits);
  expect(bounded.waits).toBeGreaterThan(10 * Math.max(1, usual.waits));
});

it('starts the interpolator as the plan says', async () => {
  const { gpu } = test;
  const shape = shapeOf(17, 1);
  using latents = latentsOf(shape);
  const { signal } = new AbortController();
  const clips: Clip[] = [];
  const model = {
    start(clip: Clip) {
      clips.push(clip);
      return rifeModel(gpu, rife).start(clip);
    },
  };
  const parts = { vae: async () => vae, interpolator: async () => model };
  const plan = { shape, vaeTile: null, interpolator: 'film', filmTile: [64, 64], convolutionMac: 3e8 } as const;
  for await (const _ of videoFrames(latents, plan, { gpu, signal }, parts)) break;
  expect(clips).toEqual([{ width: 32, height: 32, tile: [64, 64], maxMacPerDispatch: 3e8, signal }]);
});

it('hands bound and signal to either interpolator', async () => {
  const { gpu } = test;
  const sink = memoryFolder();
  await importFilm({ file: sourceOf(randomFilm(SMALLEST_FILM, 1)), what: 'film', sink });
  using film = await loadFilm(gpu, (await openPart(sink, 'film')).open());
  using rgb = gpu.memory.upload('rgb', 'float32', [3, 1, 32, 32], seededFloats(9, 3 * 32 * 32));
  for (const model of [rifeModel(gpu, rife), filmModel(gpu, film)]) {
    const waits = async (maxMacPerDispatch?: number) => {
      using clip = model.start({ width: 32, height: 32, maxMacPerDispatch });
      using first = await clip.prepare({ rgb, frame: 0 });
      using second = await clip.prepare({ rgb, frame: 0 });
      const wait = vi.spyOn(gpu.device.queue, 'onSubmittedWorkDone');
      for await (const _ of clip.between(first, second, 1));
      const count = wait.mock.calls.length;
      wait.mockRestore();
      return count;
    };
    expect(await waits(1e4)).toBeGreaterThan(10 + (await waits()));
    using clip = model.start({ width: 32, height: 32, signal: AbortSignal.abort() });
    await expect(clip.prepare({ rgb, frame: 0 })).rejects.toMatchObject({ code: 'aborted' });
  }
});

it('frees everything when the encoder stops in the middle, and when the job is cancelled', async () => {
  const { memory } = test.gpu;
  const shape = shapeOf(17, 4);
  using latents = latentsOf(shape);
  const level = memory.liveBytes;
  for (const taken of [1, 2, 8]) {
    const frames = framesOf(latents, shape);
    for (let i = 0; i < taken; i++) await frames.next();
    await frames.return(undefined);
    expect(memory.liveBytes, `after ${taken} pictures`).toBe(level);
  }
  const controller = new AbortController();
  const frames = framesOf(latents, shape, controller.signal);
  await frames.next();
  controller.abort();
  await expect(frames.next()).rejects.toMatchObject({ code: 'aborted' });
  expect(memory.liveBytes).toBe(level);
});
