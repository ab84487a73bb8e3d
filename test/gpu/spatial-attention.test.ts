import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { spatialAttention, spatialAttentionLaunches } from '../../kernels/spatial-attention';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, seededFloats, type Tolerance } from '../harness/near';
import { asHeld, F16_STORE, type FloatType, readAs, uploadAs } from '../harness/typed';
import { spatialAttentionReference } from '../reference/spatial-attention';

/** f32 inside. Measured up to 2.6e-7 and 6e-7; four times that. */
const F32_ATTENTION: Tolerance = { relativeL2: 1e-6, maxAbs: 2.4e-6 };
/**
 * Logits of a few hundred lose digits in their sums before the exponential. Measured 1.2e-6 and 7.1e-5; four times
 * that.
 */
const F32_SHARP: Tolerance = { relativeL2: 5e-6, maxAbs: 3e-4 };

const GUARD = 777;

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

async function check(
  type: FloatType,
  [height, width, channels]: readonly [number, number, number],
  { scale = 1, tolerance = type === 'f16' ? F16_STORE : F32_ATTENTION, maxMac = 1e12, seed = 1 } = {},
): Promise<void> {
  const { gpu } = test;
  const positions = (height + 2) * (width + 2);
  // Borders hold NaN: whoever reads them spreads it.
  const inside = (i: number, depth: number) => {
    const [row, column] = [Math.floor(i / depth / (width + 2)), Math.floor(i / depth) % (width + 2)];
    return row > 0 && row <= height && column > 0 && column <= width;
  };
  const qkv = asHeld(type, seededFloats(seed, positions * 3 * channels, scale)).map((value, i) =>
    inside(i, 3 * channels) ? value : Number.NaN,
  );
  using source = uploadAs(gpu, type, qkv);
  const size = positions * channels;
  using y = uploadAs(gpu, type, new Float32Array(size).fill(GUARD));
  for (const launch of spatialAttentionLaunches({ type, height, width, channels }, maxMac)) {
    await spatialAttention.run(gpu, launch, { qkv: source, y });
  }
  const values = await readAs(gpu, type, y);
  gpu.check();
  const expected = spatialAttentionReference(qkv, height, width, channels);
  expect(values.filter((value, i) => !inside(i, channels) && value !== GUARD)).toHaveLength(0);
  const pick = (_: number, i: number) => inside(i, channels);
  expectNear(values.filter(pick), expected.filter(pick), tolerance, `${height} × ${width} × ${channels}, seed ${seed}`);
}

const SIZES = [
  [1, 1, 4],
  [1, 3, 16], // fewer positions than queries of a workgroup
  [3, 5, 16], // fewer than keys of a round, not a multiple of eight
  [4, 4, 64],
  [5, 7, 64], // several rounds, the last one short
  [9, 8, 16],
  [3, 11, 96],
  [5, 5, 384],
  [2, 3, 396], // all the workgroup memory there is
] as const;

describe('spatial-attention', () => {
  it.each(SIZES)('%i × %i positions of %i channels', (...size) => check('f32', size));

  it('takes logits of a few hundred', () => check('f32', [6, 6, 64], { scale: 6, tolerance: F32_SHARP, seed: 2 }));

  it('takes equal scores', () => check('f32', [4, 5, 8], { scale: 0, seed: 3 }));

  it('answers in several launches', async () => {
    expect(spatialAttentionLaunches({ type: 'f32', height: 6, width: 7, channels: 32 }, 5e4).length).toBe(3);
    await check('f32', [6, 7, 32], { maxMac: 5e4, seed: 4 });
  });

  it('takes and gives half floats', async ({ skip }) => {
    skip(!test.gpu.f16, 'this adapter has no shader-f16');
    for (const size of [SIZES[1], SIZES[4], SIZES[7]]) await check('f16', size, { seed: 5 });
  });
});
