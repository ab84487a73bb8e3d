import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { openDiffusers } from '../../src/checkpoint/diffusers';
import { diskFolder } from '../../src/cli/files';
import type { VaeConfig } from '../../src/config';
import { decodeF16, encodeF16 } from '../../src/floats';
import type { Gpu } from '../../src/gpu/device';
import type { GpuTensor } from '../../src/gpu/memory';
import type { TensorSource } from '../../src/manifest';
import { loadVae, type VaeWeights } from '../../src/vae/decoder';
import { decoderBytes } from '../../src/vae/memory';
import { createVaeStream, type VaeStream, type VaeStreamOptions } from '../../src/vae/stream';
import { findCases, readTensors } from '../fixtures/case';
import { vaeDecodeKind } from '../fixtures/vae';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, seededFloats, type Tolerance } from '../harness/near';
import { TINY_VAE, type TinyTensor, tinySource, tinyVaeTensors } from '../harness/tiny-vae';
import { decodeReference } from '../reference/vae';

/** f32 through 40 layers of random weights. Measured up to 6e-7 and 2e-6; four times that. */
const F32_DECODER: Tolerance = { relativeL2: 2.4e-6, maxAbs: 8e-6 };

/**
 * Histories of half floats, relative to f32 ones. Measured 3.4e-4 and 1.2e-3 in the second latent frame; four times
 * that.
 */
const F16_HISTORY: Tolerance = { relativeL2: 1.4e-3, maxAbs: 4.8e-3 };

const FIXTURES = resolve(import.meta.dirname, '../../../shared/fixtures');
const DEMO = resolve(import.meta.dirname, '../../../shared/data/demo-model');

let test: TestGpu;
let tensors: Map<string, TinyTensor>;
let weights: VaeWeights;
beforeAll(async () => {
  test = await openTestGpu();
  tensors = tinyVaeTensors(TINY_VAE, 1);
  weights = await loadVae(test.gpu, TINY_VAE, tinySource(tensors));
});
afterAll(async () => {
  weights[Symbol.dispose]();
  await test.close();
});

/** Latents [zDim, T, h, w]. */
interface Latents {
  frames: number;
  height: number;
  width: number;
  values: Float32Array;
}

function randomLatents(seed: number, frames: number, height: number, width: number, zDim = TINY_VAE.zDim): Latents {
  return { frames, height, width, values: seededFloats(seed, zDim * frames * height * width) };
}

/** Feeds one latent frame; gives [3, frames, 8h, 8w]. */
async function feed(gpu: Gpu, stream: VaeStream, latents: Latents, t: number): Promise<Float32Array> {
  const { frames, height, width, values } = latents;
  const size = height * width;
  const zDim = values.length / frames / size;
  const frame = new Float32Array(zDim * size);
  for (let c = 0; c < zDim; c++) {
    const begin = (c * frames + t) * size;
    frame.set(values.subarray(begin, begin + size), c * size);
  }
  using latent = gpu.memory.upload('latent', 'float32', [zDim, height, width], frame);
  using rgb = await stream.decode(latent);
  expect(rgb.shape).toEqual([3, t === 0 ? 1 : 4, 8 * height, 8 * width]);
  return gpu.memory.readFloats(rgb);
}

/** Decodes all latent frames, one result each. */
async function decodeAll(
  latents: Latents,
  options: Partial<VaeStreamOptions> = {},
  decoder: VaeWeights = weights,
  gpu: Gpu = test.gpu,
): Promise<Float32Array[]> {
  const { height: latentHeight, width: latentWidth } = latents;
  using stream = createVaeStream(gpu, decoder, { latentHeight, latentWidth, tile: null, ...options });
  const chunks = [];
  for (let t = 0; t < latents.frames; t++) chunks.push(await feed(gpu, stream, latents, t));
  gpu.check();
  return chunks;
}

/** Frames `begin` to `end` of [3, frames, H, W]. */
function cut(values: ArrayLike<number>, frames: number, begin: number, end: number): Float64Array {
  const size = values.length / 3 / frames;
  const part = new Float64Array(3 * (end - begin) * size);
  for (let color = 0; color < 3; color++) {
    const from = Array.prototype.slice.call(values, (color * frames + begin) * size, (color * frames + end) * size);
    part.set(from, color * (end - begin) * size);
  }
  return part;
}

/** How many values differ. */
function different(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((count, value, i) => count + (value === b[i] ? 0 : 1), 0);
}

async function withChanged<T>(names: RegExp, use: (changed: VaeWeights) => Promise<T>): Promise<T> {
  const changed = new Map(tensors);
  for (const [name, { shape, values }] of tensors) {
    if (names.test(name)) changed.set(name, { shape, values: values.map(() => Number.NaN) });
  }
  using decoder = await loadVae(test.gpu, TINY_VAE, tinySource(changed));
  return await use(decoder);
}

describe('the decoder against the full sequence in float64', () => {
  it.each([
    [1, 1, 1],
    [1, 3, 2],
    [4, 2, 3],
  ])('%i latent frames of %i × %i', async (frames, height, width) => {
    const latents = randomLatents(frames, frames, height, width);
    const expected = decodeReference(TINY_VAE, (name) => tensors.get(name)!, {
      ...latents,
      channels: TINY_VAE.zDim,
      values: Float64Array.from(latents.values),
    });
    expect(expected.frames).toBe(1 + 4 * (frames - 1));
    const chunks = await decodeAll(latents);
    chunks.forEach((chunk, t) => {
      const begin = t === 0 ? 0 : 4 * t - 3;
      const part = cut(expected.values, expected.frames, begin, 4 * t + 1);
      expectNear(chunk, part, F32_DECODER, `latent frame ${t}, seeds 1 and ${frames}`);
    });
  });
});

describe('the order of frames', () => {
  it('is causal: a later latent frame changes nothing before it, an earlier one everything after', async () => {
    const latents = randomLatents(1, 3, 2, 3);
    const plain = await decodeAll(latents);
    const change = (t: number): Latents => ({
      ...latents,
      values: latents.values.map((value, i) => (Math.floor(i / 6) % 3 === t ? value + 1 : value)),
    });
    const [first, second, third] = await decodeAll(change(2));
    expect([first, second]).toEqual(plain.slice(0, 2));
    expect(third).not.toEqual(plain[2]);
    const changed = await decodeAll(change(0));
    for (const [t, chunk] of changed.entries()) expect(chunk).not.toEqual(plain[t]);
  });

  it('keeps the doubling of frames from the first latent frame, and only from it', async () => {
    const latents = randomLatents(2, 2, 2, 2);
    const plain = await decodeAll(latents);
    await withChanged(/time_conv/, async (decoder) => {
      const [still, moving] = await decodeAll(latents, {}, decoder);
      expect(still).toEqual(plain[0]);
      expect(moving!.some(Number.isNaN)).toBe(true);
    });
  });

  it('shares nothing between streams of one decoder', async () => {
    const { gpu } = test;
    const [a, b] = [randomLatents(3, 2, 2, 2), randomLatents(4, 2, 2, 2)];
    const expected = await decodeAll(a);
    using one = createVaeStream(gpu, weights, { latentHeight: 2, latentWidth: 2, tile: null });
    using other = createVaeStream(gpu, weights, { latentHeight: 2, latentWidth: 2, tile: null });
    expect(await feed(gpu, one, a, 0)).toEqual(expected[0]);
    await feed(gpu, other, b, 0);
    expect(await feed(gpu, one, a, 1)).toEqual(expected[1]);
  });
});

describe('a latent frame of another size or type', () => {
  it('is refused, and the stream goes on', async () => {
    const { gpu } = test;
    using stream = createVaeStream(gpu, weights, { latentHeight: 2, latentWidth: 3, tile: null });
    using turned = gpu.memory.tensor('latent', 'float32', [TINY_VAE.zDim, 3, 2]);
    using half = gpu.memory.tensor('latent', 'float16', [TINY_VAE.zDim, 2, 3]);
    await expect(stream.decode(turned)).rejects.toThrow('takes latents of float32 [8,2,3], got float32 [8,3,2]');
    await expect(stream.decode(half)).rejects.toThrow('got float16 [8,2,3]');
    const latents = randomLatents(1, 1, 2, 3);
    expect(await feed(gpu, stream, latents, 0)).toEqual((await decodeAll(latents))[0]);
  });
});

describe('tiles', () => {
  it.each([
    ['one residual block less', TINY_VAE, 9, 7, 2],
    ['the real number of blocks', { ...TINY_VAE, numResBlocks: 2 }, 5, 14, 4],
  ] as const)('equal whole frames bit for bit with %s', async (_, config: VaeConfig, height, width, tile) => {
    using decoder = await loadVae(test.gpu, config, tinySource(tinyVaeTensors(config, 2)));
    const latents = randomLatents(5, 2, height, width);
    const whole = await decodeAll(latents, {}, decoder);
    const tiled = await decodeAll(latents, { tile }, decoder);
    expect(tiled.map((chunk, t) => different(chunk, whole[t]!))).toEqual([0, 0]);
  });

  it('equal whole frames bit for bit with histories of half floats', async () => {
    const latents = randomLatents(5, 3, 5, 4);
    const whole = await decodeAll(latents, { historyType: 'f16' });
    const tiled = await decodeAll(latents, { historyType: 'f16', tile: 2 });
    expect(tiled.map((chunk, t) => different(chunk, whole[t]!))).toEqual([0, 0, 0]);
    const exact = await decodeAll(latents);
    // The first latent frame has no past, the others do.
    expect(different(exact[0]!, whole[0]!)).toBe(0);
    expect(different(exact[2]!, whole[2]!)).toBeGreaterThan(0);
    for (const [t, chunk] of exact.entries()) expectNear(whole[t]!, chunk, F16_HISTORY, `latent frame ${t}, seed 5`);
  });

  it('keep every tensor within the binding that is foretold', async () => {
    const latents = randomLatents(6, 2, 2, 16);
    const tile = 8;
    const limit = 100_000;
    const made = vi.spyOn(test.gpu.memory, 'tensor');
    const largest = () => Math.max(...made.mock.results.map(({ value }) => (value as GpuTensor).sizeBytes));
    try {
      const tiled = await decodeAll(latents, { tile });
      expect(largest()).toBe(decoderBytes(TINY_VAE, 2, 16, tile, 2).largest);
      expect(largest()).toBeLessThanOrEqual(limit);
      made.mockClear();
      const whole = await decodeAll(latents);
      expect(tiled.map((chunk, t) => different(chunk, whole[t]!))).toEqual([0, 0]);
      expect(largest()).toBe(decoderBytes(TINY_VAE, 2, 16, null, 2).largest);
      expect(largest()).toBeGreaterThan(limit);
    } finally {
      made.mockRestore();
    }
  });
});

describe('memory', () => {
  it.each([
    [1, null, 'f32'],
    [3, null, 'f32'],
    [2, 2, 'f32'],
    [3, null, 'f16'],
    [2, 3, 'f16'],
  ] as const)(
    'is what was predicted, and all given back: %i latent frames, tiles %s, %s',
    async (frames, tile, historyType) => {
      const { memory } = test.gpu;
      const before = memory.liveBytes;
      const { gpu } = test;
      const [height, width] = [5, 3];
      const latents = randomLatents(7, frames, height, width);
      const predicted = decoderBytes(TINY_VAE, height, width, tile, frames, historyType);
      using stream = createVaeStream(gpu, weights, { latentHeight: height, latentWidth: width, tile, historyType });
      expect(memory.liveBytes - before).toBe(predicted.histories);
      memory.resetPeak();
      for (let t = 0; t < frames; t++) await feed(gpu, stream, latents, t);
      expect(memory.liveBytes - before).toBe(predicted.histories);
      // Beside what the decoder makes, the latent frame is there.
      expect(memory.peakBytes - before - height * width * TINY_VAE.zDim * 4).toBe(predicted.peak);
      stream[Symbol.dispose]();
      expect(memory.liveBytes).toBe(before);
    },
  );

  it('of the weights is what was predicted, and all given back', async () => {
    const { memory } = test.gpu;
    const before = memory.liveBytes;
    const decoder = await loadVae(test.gpu, TINY_VAE, tinySource(tensors));
    expect(memory.liveBytes - before).toBe(decoderBytes(TINY_VAE, 1, 1, null, 1).weights);
    decoder[Symbol.dispose]();
    decoder[Symbol.dispose]();
    expect(memory.liveBytes).toBe(before);
  });

  it('is given back when a signal fires in the middle of a frame, and the stream does not go on', async () => {
    const { gpu } = test;
    const before = gpu.memory.liveBytes;
    const controller = new AbortController();
    const tap = async (name: string) => {
      if (name === 'decoder.upsamples.4') controller.abort();
    };
    using stream = createVaeStream(gpu, weights, {
      latentHeight: 2,
      latentWidth: 2,
      tile: null,
      signal: controller.signal,
      tap,
    });
    const held = gpu.memory.liveBytes;
    const latents = randomLatents(8, 1, 2, 2);
    await expect(feed(gpu, stream, latents, 0)).rejects.toMatchObject({ code: 'aborted' });
    expect(gpu.memory.liveBytes).toBe(held);
    await expect(feed(gpu, stream, latents, 0)).rejects.toMatchObject({ code: 'internal' });
    stream[Symbol.dispose]();
    expect(gpu.memory.liveBytes).toBe(before);
  });
});

describe('loading', () => {
  async function refused(change: (source: TensorSource) => TensorSource, words: string, config = TINY_VAE) {
    const before = test.gpu.memory.liveBytes;
    const loading = loadVae(test.gpu, config, change(tinySource(tensors)));
    await expect(loading).rejects.toMatchObject({ code: 'bad-checkpoint', message: expect.stringContaining(words) });
    expect(test.gpu.memory.liveBytes).toBe(before);
  }

  const replaced = (name: string, entry: { dtype: 'F32' | 'U8'; shape: number[] }) => (source: TensorSource) => ({
    ...source,
    entries: new Map(source.entries).set(name, entry),
  });

  it('refuses what does not fit', async () => {
    const without = (source: TensorSource) => {
      const entries = new Map(source.entries);
      entries.delete('decoder.head.2.bias');
      return { ...source, entries };
    };
    await refused(without, '"decoder.head.2.bias" of the video decoder is missing');
    const flat = { dtype: 'F32', shape: [4, 8, 3, 3] } as const;
    await refused(
      replaced('decoder.upsamples.8.resample.1.weight', { ...flat, shape: [8, 4, 3, 3] }),
      'has shape [8,4,3,3], expected [4,8,3,3]',
    );
    await refused(replaced('decoder.head.0.gamma', { dtype: 'U8', shape: [4, 1, 1, 1] }), 'has type U8');
    await refused((source) => source, 'come in fours, got a level of 6', { ...TINY_VAE, baseDim: 6 });
    await refused((source) => source, 'two levels or more', { ...TINY_VAE, dimMult: [1], temporalUpsample: [] });
  });

  it('takes a norm whose gamma has no trailing axes', async () => {
    const source = replaced('decoder.head.0.gamma', { dtype: 'F32', shape: [4] })(tinySource(tensors));
    (await loadVae(test.gpu, TINY_VAE, source))[Symbol.dispose]();
  });

  it('stops when the signal fires', async () => {
    const before = test.gpu.memory.liveBytes;
    const controller = new AbortController();
    const source = tinySource(tensors);
    const read = (name: string) => {
      if (name.startsWith('decoder.middle.2')) controller.abort();
      return source.read(name);
    };
    const loading = loadVae(test.gpu, TINY_VAE, { ...source, read }, controller.signal);
    await expect(loading).rejects.toMatchObject({ code: 'aborted' });
    expect(test.gpu.memory.liveBytes).toBe(before);
  });

  it('reads half floats', async () => {
    const rounded = new Map(
      [...tensors].map(([name, { shape, values }]) => [name, { shape, values: decodeF16(encodeF16(values)) }]),
    );
    using half = await loadVae(test.gpu, TINY_VAE, tinySource(tensors, 'F16'));
    using single = await loadVae(test.gpu, TINY_VAE, tinySource(rounded));
    const latents = randomLatents(9, 1, 2, 2);
    expect(await decodeAll(latents, {}, half)).toEqual(await decodeAll(latents, {}, single));
  });
});

describe.skipIf(!existsSync(FIXTURES))('the fixtures of the official decoder', () => {
  const folders = existsSync(FIXTURES) ? findCases(FIXTURES).filter((folder) => /vae-decode-[^/]+$/.test(folder)) : [];
  it.each(folders)('%s', async (folder) => {
    const checks = await vaeDecodeKind.run({ folder, gpu: test, type: 'f32', model: DEMO });
    expect(checks.length).toBeGreaterThan(3);
    expect(checks.filter(({ value, limit }) => !(value <= limit))).toEqual([]);
  });
});

/** Decibels of an exact decode, whose bytes differ only where a value lies at a half; measured 96.6 and more. */
const DEMO_DECIBELS = 80;

/** With histories of half floats: measured 72.5, one step of 255 in 0.4 % of the values. */
const F16_DECIBELS = 66;

describe.skipIf(!existsSync(DEMO))('the demo checkpoint', () => {
  it.each([
    ['red-circle-right', 'f32', DEMO_DECIBELS],
    ['red-circle-right', 'f16', F16_DECIBELS],
    ['negative-prompt', 'f32', DEMO_DECIBELS],
    ['wide', 'f32', DEMO_DECIBELS],
  ] as const)('%s with histories of %s', async (name, historyType, decibels) => {
    const { vae: config, weights: files } = await openDiffusers(diskFolder(DEMO));
    const floats = files.vae!;
    const entries = new Map([...floats.entries].map(([key, { shape }]) => [key, { dtype: 'F32', shape } as const]));
    const read = async (key: string) => {
      const count = entries.get(key)!.shape.reduce((product, size) => product * size, 1);
      const values = await floats.readFloats(key, 0, count);
      return new Uint8Array(values.buffer as ArrayBuffer, values.byteOffset, values.byteLength);
    };
    using decoder = await loadVae(test.gpu, config, { entries, read });
    const golden = readTensors(`${DEMO}/golden/${name}/golden.safetensors`);
    const { shape, values } = golden.get('latents_after_step_7')!;
    const [frames, height, width] = shape.slice(-3) as [number, number, number];
    const chunks = await decodeAll({ frames, height, width, values: values as Float32Array }, { historyType }, decoder);
    const bytes = golden.get('frames_u8')!.values;
    let squares = 0;
    let at = 0;
    for (const chunk of chunks) {
      const size = 64 * height * width;
      for (let i = 0; i < chunk.length / 3; i++, at++) {
        for (let color = 0; color < 3; color++) {
          const value = Math.max(-1, Math.min(1, chunk[color * (chunk.length / 3) + i]!));
          squares += (Math.round(((value + 1) / 2) * 255) - bytes[at * 3 + color]!) ** 2;
        }
      }
      expect(chunk.length % (3 * size)).toBe(0);
    }
    expect(at * 3).toBe(bytes.length);
    expect(10 * Math.log10(255 ** 2 / (squares / bytes.length))).toBeGreaterThan(decibels);
  });
});
