import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { channelNorm } from '../../kernels/channel-norm';
import { cropPlanes } from '../../kernels/crop-planes';
import { denormalize } from '../../kernels/denormalize';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, seededFloats, type Tolerance } from '../harness/near';
import { asHeld, F16_STORE, type FloatType, readAs, uploadAs } from '../harness/typed';
import { channelNormReference } from '../reference/channel-norm';
import { cropPlanesReference } from '../reference/crop-planes';
import { denormalizeReference } from '../reference/denormalize';

/** A few f32 operations on values up to 20. Measured up to 9e-8 and 9.6e-7; four times that. */
const F32_FEW: Tolerance = { relativeL2: 3.6e-7, maxAbs: 4e-6 };

const GUARD = 777;

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

async function norm(type: FloatType, x: Float32Array, gamma: Float32Array, silu: boolean): Promise<Float32Array> {
  const { gpu } = test;
  const channels = gamma.length;
  using xs = uploadAs(gpu, type, x);
  using gammas = uploadAs(gpu, 'f32', gamma);
  using y = uploadAs(gpu, type, new Float32Array(x.length + 64).fill(GUARD));
  const shape = { type, positions: x.length / channels, channels, silu } as const;
  await channelNorm.run(gpu, shape, { x: xs, gamma: gammas, y });
  const values = await readAs(gpu, type, y);
  gpu.check();
  expect(new Set(values.slice(-64))).toEqual(new Set([GUARD]));
  return values.slice(0, -64);
}

describe('channel-norm', () => {
  it.each([
    [1, 4, false],
    [63, 16, true],
    [64, 64, true],
    [130, 96, false],
    [7, 384, true],
  ])('%i positions of %i channels, SiLU %s', async (positions, channels, silu) => {
    const gamma = seededFloats(channels, channels);
    for (const type of test.gpu.f16 ? (['f32', 'f16'] as const) : (['f32'] as const)) {
      const x = asHeld(type, seededFloats(positions, positions * channels, 3));
      const expected = channelNormReference(x, gamma, silu);
      const tolerance = type === 'f16' ? F16_STORE : F32_FEW;
      expectNear(await norm(type, x, gamma, silu), expected, tolerance, `${type}, seeds as sizes`);
    }
  });

  it('has no epsilon: tiny vectors get the full length, zeros stay zeros', async () => {
    const x = seededFloats(1, 8 * 16, 1e-9);
    x.fill(0, 16, 32);
    const gamma = new Float32Array(16).fill(1);
    const y = await norm('f32', x, gamma, false);
    expectNear(y, channelNormReference(x, gamma, false), F32_FEW, 'seed 1');
    expect([...y.subarray(16, 32)]).toEqual(new Array(16).fill(0));
  });

  it('gives zeros to a border of zeros under SiLU too', async () => {
    const y = await norm('f32', new Float32Array(12 * 8), seededFloats(2, 8), true);
    expect(y.every((value) => value === 0)).toBe(true);
  });
});

describe('denormalize', () => {
  it('gives half floats', async ({ skip }) => {
    skip(!test.gpu.f16, 'this adapter has no shader-f16');
    const { gpu } = test;
    const z = seededFloats(4, 16 * 15);
    using zs = uploadAs(gpu, 'f32', z);
    using ones = uploadAs(gpu, 'f32', new Float32Array(16).fill(1));
    using y = uploadAs(gpu, 'f16', new Float32Array(5 * 7 * 16));
    await denormalize.run(
      gpu,
      { type: 'f16', height: 3, width: 5, channels: 16 },
      { z: zs, scale: ones, mean: ones, y },
    );
    const expected = denormalizeReference(z, new Float32Array(16).fill(1), new Float32Array(16).fill(1), 3, 5);
    expectNear(await readAs(gpu, 'f16', y), expected, F16_STORE, 'seed 4');
  });

  it.each([
    [1, 1, 4],
    [5, 7, 16],
    [12, 3, 16],
  ])('%i × %i positions of %i channels', async (height, width, channels) => {
    const { gpu } = test;
    const z = seededFloats(1, channels * height * width, 2);
    const deviations = seededFloats(2, channels);
    const means = seededFloats(3, channels);
    using zs = uploadAs(gpu, 'f32', z);
    using scale = uploadAs(gpu, 'f32', deviations);
    using mean = uploadAs(gpu, 'f32', means);
    using y = gpu.memory.tensor('y', 'float32', [height + 2, width + 2, channels]);
    await denormalize.run(gpu, { type: 'f32', height, width, channels }, { z: zs, scale, mean, y });
    const expected = denormalizeReference(z, deviations, means, height, width);
    const actual = await gpu.memory.readFloats(y);
    gpu.check();
    expectNear(actual, expected, F32_FEW, 'seeds 1 to 3');
    // Exactly zero outside, whatever the tolerance.
    expect(actual.filter((value, i) => value !== 0 && expected[i] === 0)).toHaveLength(0);
  });
});

describe('crop-planes', () => {
  it('takes half floats', async ({ skip }) => {
    skip(!test.gpu.f16, 'this adapter has no shader-f16');
    const { gpu } = test;
    const x = asHeld('f16', seededFloats(6, 2 * 5 * 6 * 4));
    const shape = {
      frames: 2,
      toFrames: 2,
      toFrame: 0,
      from: [3, 4],
      fromAt: [1, 1],
      to: [4, 4],
      toAt: [2, 0],
      size: [2, 3],
    } as const;
    const expected = new Float32Array(3 * 2 * 16).fill(GUARD);
    using xs = uploadAs(gpu, 'f16', x);
    using y = uploadAs(gpu, 'f32', expected);
    cropPlanesReference(x, expected, shape);
    await cropPlanes.run(gpu, { type: 'f16', ...shape }, { x: xs, y });
    expect(await gpu.memory.readFloats(y), 'seed 6').toEqual(expected);
  });

  it.each([
    [
      'all of one frame',
      { frames: 1, toFrames: 1, toFrame: 0, from: [3, 5], fromAt: [0, 0], to: [3, 5], toAt: [0, 0], size: [3, 5] },
    ],
    [
      'the inside of a tile',
      { frames: 4, toFrames: 4, toFrame: 0, from: [9, 7], fromAt: [2, 3], to: [16, 24], toAt: [5, 8], size: [6, 4] },
    ],
    [
      'the last corner',
      { frames: 3, toFrames: 4, toFrame: 1, from: [8, 8], fromAt: [4, 5], to: [10, 9], toAt: [6, 6], size: [4, 3] },
    ],
  ] as const)('%s', async (name, shape) => {
    const { gpu } = test;
    const x = seededFloats(5, shape.frames * (shape.from[0] + 2) * (shape.from[1] + 2) * 4);
    const expected = new Float32Array(3 * shape.toFrames * shape.to[0] * shape.to[1]).fill(GUARD);
    using xs = uploadAs(gpu, 'f32', x);
    using y = uploadAs(gpu, 'f32', expected);
    cropPlanesReference(x, expected, shape);
    await cropPlanes.run(gpu, { type: 'f32', ...shape }, { x: xs, y });
    const values = await gpu.memory.readFloats(y);
    gpu.check();
    expect(values, `${name}, seed 5`).toEqual(expected);
  });
});
