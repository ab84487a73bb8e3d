import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Rife, type RifeOptions } from '../../src/interpolate/rife';
import type { RifeWeights } from '../../src/interpolate/rife-weights';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { distance, expectNear, type Tolerance } from '../harness/near';
import { hasRifeReference, readFrame, rifeGolden, shippedRife, uploadFrame } from '../harness/rife';
import { movingTexture, psnr } from '../harness/texture';

/** f32 against the fp32 reference, through 44 convolutions. Measured up to 4e-7 and 6.1e-6; four times that. */
const F32_NETWORK: Tolerance = { relativeL2: 1.6e-6, maxAbs: 2.5e-5 };
/** Features, flows of up to 7 pixels and logits on the way there. Measured up to 3.8e-6 and 1.6e-5; four times that. */
const F32_VALUES: Tolerance = { relativeL2: 1.6e-5, maxAbs: 6.4e-5 };
/**
 * Weights and activations in f16, flow, mask and pictures in f32. Measured up to 2.5e-4 on lavapipe; four times that.
 */
const F16_NETWORK: Tolerance = { relativeL2: 1e-3, maxAbs: 1e-3 };

/** PSNR that the reference reaches at fifths of the way, on a translated texture (its page; plain blending: 25 dB). */
const REFERENCE_DB = new Map([
  [0.2, 43.4],
  [0.4, 39.8],
  [0.6, 37.9],
  [0.8, 41.7],
]);
/** How much less counts as the same. */
const MARGIN_DB = 0.5;

let test: TestGpu;
let weights: RifeWeights;
let halves: RifeWeights | undefined;
beforeAll(async () => {
  test = await openTestGpu();
  weights = await shippedRife(test.gpu, 'f32');
  if (test.gpu.f16) halves = await shippedRife(test.gpu, 'f16');
});
afterAll(async () => {
  weights?.[Symbol.dispose]();
  halves?.[Symbol.dispose]();
  await test.close();
});

describe.skipIf(!hasRifeReference)('RIFE 4.6 against its reference outputs', () => {
  const golden = hasRifeReference ? rifeGolden() : new Map();

  async function run(
    name: string,
    time: number,
    options: Partial<RifeOptions>,
    chosen: RifeWeights = weights,
  ): Promise<Float32Array> {
    const { gpu } = test;
    const { shape, values } = golden.get(`${name}.img0`)!;
    using first = uploadFrame(gpu, values, shape);
    using second = uploadFrame(gpu, golden.get(`${name}.img1`)!.values, shape);
    using rife = new Rife(gpu, chosen, { width: shape[2]!, height: shape[1]!, ...options });
    using before = await rife.prepare({ rgb: first, frame: 0 });
    using after = await rife.prepare({ rgb: second, frame: 0 });
    const { rgb } = await rife.at(before, after, time);
    return readFrame(gpu, rgb);
  }

  const cases = [
    ['a', 0.5, 'replicate'],
    ['a', 0.2, 'replicate'],
    ['b', 0.5, 'zero'],
  ] as const;
  it.each(cases)('makes the frame of case %s at %s', async (name, time, edge) => {
    const before = test.gpu.memory.liveBytes;
    const out = await run(name, time, { edge });
    expectNear(out, golden.get(`${name}.out@${time}`)!.values, F32_NETWORK, `${name} at ${time}`);
    expect(test.gpu.memory.liveBytes).toBe(before);
  });

  it.for(cases)('makes it in half floats too: case %s at %s', async ([name, time, edge], { skip }) => {
    skip(!halves, 'this adapter has no shader-f16');
    const out = await run(name, time, { edge }, halves);
    const expected = golden.get(`${name}.out@${time}`)!.values;
    console.log(`f16, case ${name} at ${time}: max error ${distance(out, expected, 1).maxAbs.toExponential(1)}`);
    expectNear(out, expected, F16_NETWORK, `${name} at ${time} in f16`);
  });

  it('makes the intermediate values of case a', async () => {
    const { memory } = test.gpu;
    const seen = new Map<string, Float32Array>();
    const tap: RifeOptions['tap'] = async (name, tensor, size) => {
      const values = await memory.readFloats(tensor);
      seen.set(
        name,
        name === 'flow'
          ? planar(values, size, 4, 0)
          : name.endsWith('.feat')
            ? planar(values, size, tensor.shape[2]!, 1)
            : values,
      );
    };
    await run('a', 0.5, { tap });
    for (const [tensor, name] of [
      ['block0.feat', 'a.block0_feat_conv0@0.5'],
      ['block0.head', 'a.block0_head@0.5'],
      ['block1.head', 'a.block1_head@0.5'],
      ['mask', 'a.mask_logit_final@0.5'],
      ['flow', 'a.flow_final@0.5'],
    ] as const) {
      expectNear(seen.get(tensor)!, golden.get(name)!.values, F32_VALUES, tensor);
    }
  });

  it('differs with the edge that a frame is extended by', async () => {
    const [replicated, zeros] = [await run('b', 0.5, {}), await run('b', 0.5, { edge: 'zero' })];
    expect(distance(replicated, zeros, 1).maxAbs).toBeGreaterThan(1e-3);
  });
});

/** Values with channels last, `border` pixels round them left out, as planes. */
function planar(values: Float32Array, [height, width]: readonly [number, number], channels: number, border: 0 | 1) {
  const planes = new Float32Array(channels * height * width);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const from = ((y + border) * (width + 2 * border) + x + border) * channels + c;
        planes[(c * height + y) * width + x] = values[from]!;
      }
    }
  }
  return planes;
}

it('refuses times at and beyond the frames, which need no network', async () => {
  using rgb = uploadFrame(test.gpu, new Float32Array(3 * 32 * 32), [3, 32, 32]);
  using rife = new Rife(test.gpu, weights, { width: 32, height: 32 });
  using picture = await rife.prepare({ rgb, frame: 0 });
  for (const time of [0, 1, Number.NaN]) {
    await expect(rife.at(picture, picture, time)).rejects.toMatchObject({ code: 'internal' });
  }
});

describe('RIFE 4.6 on moving textures', () => {
  /** Frames of a texture that moves, made by the network at some times, and as they should be. */
  async function between(seed: number, [width, height]: readonly [number, number], times: readonly number[]) {
    const { gpu } = test;
    const [dx, dy] = [6, -4];
    const texture = movingTexture(seed, 6, 64);
    const [first, second] = [texture(width, height, 0, 0), texture(width, height, dx, dy)];
    using a = uploadFrame(gpu, first, [3, height, width]);
    using b = uploadFrame(gpu, second, [3, height, width]);
    using rife = new Rife(gpu, weights, { width, height });
    using before = await rife.prepare({ rgb: a, frame: 0 });
    using after = await rife.prepare({ rgb: b, frame: 0 });
    const frames = [];
    for (const time of times) {
      const { rgb } = await rife.at(before, after, time);
      const blended = first.map((value, i) => value * (1 - time) + second[i]! * time);
      frames.push({ made: await readFrame(gpu, rgb), wanted: texture(width, height, time * dx, time * dy), blended });
    }
    return frames;
  }

  it.each([5, 6, 7])('reaches the reference’s figures at fifths of the way, texture %i', async (seed) => {
    const frames = await between(seed, [128, 96], [...REFERENCE_DB.keys()]);
    const figures = frames.map(({ made, wanted, blended }) => [psnr(made, wanted), psnr(blended, wanted)] as const);
    console.log(
      `Texture ${seed}: ${figures.map(([made, blended]) => `${made.toFixed(1)} (blended ${blended.toFixed(1)})`).join(', ')} dB`,
    );
    [...REFERENCE_DB.values()].forEach((reference, i) => {
      expect(figures[i]![0], `frame ${i + 1} of 4`).toBeGreaterThan(reference - MARGIN_DB);
    });
  });
});
