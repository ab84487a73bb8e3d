import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type CausalConv, causalConv, causalConvLaunches, type Past } from '../../kernels/causal-conv';
import { packConv } from '../../src/vae/decoder';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, seededFloats, type Tolerance } from '../harness/near';
import { asHeld, F16_STORE, type FloatType, readAs, uploadAs } from '../harness/typed';
import { causalConvReference } from '../reference/causal-conv';

/**
 * f32 sums of up to 1,728 products of deviation 0.3, in another order. Measured up to 1.6e-7 and 1.2e-5; four times
 * that.
 */
const F32_SUM: Tolerance = { relativeL2: 6.4e-7, maxAbs: 5e-5 };

/** What the past contributes is stored once, and again with what the present does. */
const F16_TWO_STORES: Tolerance = { relativeL2: 2 * F16_STORE.relativeL2!, maxAbs: 2 * F16_STORE.maxAbs! };

/** Elements behind y that a launch must leave alone, and what they and the border hold. */
const GUARDS = 64;
const GUARD = 777;

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

type Case = Omit<CausalConv, 'type'> & { past?: Past };

/** Whether an element of y belongs to a border. */
function border({ to, out, parts = 1 }: Case, index: number): boolean {
  const position = Math.floor(index / (out / parts));
  const column = position % (to[1] + 2);
  const row = Math.floor(position / (to[1] + 2)) % (to[0] + 2);
  return column === 0 || row === 0 || column === to[1] + 1 || row === to[0] + 1;
}

/** Random frames whose borders are zero. */
function framesOf(seed: number, count: number, [height, width]: readonly [number, number], channels: number) {
  const values = seededFloats(seed, count * (height + 2) * (width + 2) * channels);
  const shape = { to: [height, width] as const, out: channels } as Case;
  return values.map((value, i) => (border(shape, i) ? 0 : value));
}

async function check(
  type: FloatType,
  name: string,
  { past: given, ...conv }: Case,
  seed: number,
  maxMac = 1e12,
): Promise<void> {
  const { gpu } = test;
  const { frames, firstFrame = 0, from, into, to, out, taps, kernel, parts = 1, accumulate } = conv;
  const past = given ?? { type, older: 0 };
  const frameSize = (from[0] + 2) * (from[1] + 2) * into;
  const x = asHeld(type, framesOf(seed, firstFrame + frames, from, into));
  const before = asHeld(past.type, framesOf(seed + 4, taps - 1, from, into));
  const turned = [...before.subarray(frameSize), ...before.subarray(0, frameSize)];
  const sequence = Float32Array.from([...before, ...x.subarray(firstFrame * frameSize)]);
  const shape = [out, into, taps, kernel, kernel];
  const weight = asHeld(type, seededFloats(seed + 1, out * into * taps * kernel * kernel, 0.3));
  const bias = seededFloats(seed + 2, out);
  const size = frames * parts * (to[0] + 2) * (to[1] + 2) * (out / parts);
  const held = asHeld(type, seededFloats(seed + 3, size + GUARDS)).map((value, i) =>
    i >= size || border(conv, i) ? GUARD : accumulate ? value : Number.NaN,
  );
  const expected = causalConvReference(conv, sequence, weight, bias, accumulate ? held.subarray(0, size) : undefined);

  using xs = uploadAs(gpu, type, x);
  using kept = uploadAs(gpu, past.type, past.older ? Float32Array.from(turned) : before);
  using weights = uploadAs(gpu, type, packConv(weight, shape).weight);
  using biases = uploadAs(gpu, 'f32', bias);
  using y = uploadAs(gpu, type, held);
  const launches = [
    ...(taps === 3 ? causalConvLaunches({ ...conv, type }, maxMac, past) : []),
    ...causalConvLaunches({ ...conv, type }, maxMac),
  ];
  for (const launch of launches) {
    await causalConv.run(gpu, launch, { x: launch.past ? kept : xs, weight: weights, bias: biases, y });
  }
  const values = await readAs(gpu, type, y);
  gpu.check();
  const inside = (_: number, i: number) => i < size && !border(conv, i);
  expect(values.filter((value, i) => !inside(value, i) && value !== GUARD)).toHaveLength(0);
  const tolerance = type === 'f16' ? (taps === 3 ? F16_TWO_STORES : F16_STORE) : F32_SUM;
  expectNear(values.filter(inside), expected.filter(inside), tolerance, `${name}, seeds from ${seed}`);
}

describe.each(['f32', 'f16'] as const)('causal-conv in %s', (type) => {
  const square = { taps: 3, kernel: 3 } as const;
  const cases: [string, Case][] = [
    ['one pixel', { frames: 1, from: [1, 1], into: 4, to: [1, 1], out: 4, ...square }],
    ['odd sides', { frames: 2, from: [5, 7], into: 8, to: [5, 7], out: 12, ...square }],
    ['whole squares', { frames: 3, from: [8, 4], into: 16, to: [8, 4], out: 16, ...square }],
    ['many lanes', { frames: 1, from: [3, 9], into: 64, to: [3, 9], out: 64, ...square }],
    ['lanes that do not fill a workgroup', { frames: 2, from: [4, 4], into: 4, to: [4, 4], out: 96, ...square }],
    ['residual', { frames: 2, from: [6, 5], into: 8, to: [6, 5], out: 8, ...square, accumulate: true }],
    ['single pixels', { frames: 2, from: [5, 6], into: 8, to: [5, 6], out: 24, taps: 1, kernel: 1 }],
    ['added pixels', { frames: 1, from: [5, 6], into: 8, to: [5, 6], out: 8, taps: 1, kernel: 1, accumulate: true }],
    ['two frames from one', { frames: 3, from: [3, 5], into: 8, to: [3, 5], out: 32, taps: 3, kernel: 1, parts: 2 }],
    [
      'a past of half floats',
      { frames: 1, from: [5, 7], into: 8, to: [5, 7], out: 12, ...square, past: { type: 'f16', older: 0 } },
    ],
    ['a turned past', { frames: 1, from: [5, 6], into: 12, to: [5, 6], out: 8, ...square, past: { type, older: 1 } }],
    [
      'a turned past of half floats, frames from the second',
      {
        frames: 3,
        firstFrame: 1,
        from: [3, 5],
        into: 4,
        to: [3, 5],
        out: 8,
        ...square,
        accumulate: true,
        past: { type: 'f16', older: 1 },
      },
    ],
    [
      'two frames from one after half floats',
      {
        frames: 2,
        from: [3, 5],
        into: 12,
        to: [3, 5],
        out: 16,
        taps: 3,
        kernel: 1,
        parts: 2,
        past: { type: 'f16', older: 0 },
      },
    ],
    [
      'doubled, the third frame',
      { frames: 1, firstFrame: 2, from: [3, 2], into: 4, to: [6, 4], out: 4, taps: 1, kernel: 3, doubledFrom: [0, 0] },
    ],
    ['doubled', { frames: 2, from: [3, 5], into: 8, to: [6, 10], out: 4, taps: 1, kernel: 3, doubledFrom: [0, 0] }],
    [
      'doubled inside',
      { frames: 1, from: [7, 9], into: 4, to: [5, 6], out: 8, taps: 1, kernel: 3, doubledFrom: [3, 8] },
    ],
    [
      'doubled to the edge',
      { frames: 1, from: [6, 6], into: 4, to: [7, 3], out: 8, taps: 1, kernel: 3, doubledFrom: [5, 9] },
    ],
  ];
  it.for(cases)('%s', async ([name, conv], { skip }) => {
    skip(type === 'f16' && !test.gpu.f16, 'this adapter has no shader-f16');
    await check(type, name, conv, 10);
  });

  it('gives the same in many launches, each of which adds once', async ({ skip }) => {
    skip(type === 'f16' && !test.gpu.f16, 'this adapter has no shader-f16');
    const conv: Case = { frames: 2, from: [9, 11], into: 8, to: [9, 11], out: 96, ...square, accumulate: true };
    const launches = causalConvLaunches({ ...conv, type }, 5e5);
    expect(launches.length).toBeGreaterThan(4);
    await check(type, 'in launches', conv, 20, 5e5);
  });
});
