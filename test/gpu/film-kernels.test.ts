import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type FlowDoubleShape, flowDouble } from '../../kernels/flow-double';
import { type FlowResidualShape, flowResidual } from '../../kernels/flow-residual';
import { type FlowSliceShape, flowSlice } from '../../kernels/flow-slice';
import { type PyramidConvShape, pyramidConv } from '../../kernels/pyramid-conv';
import { type PyramidPoolShape, pyramidPool } from '../../kernels/pyramid-pool';
import { type TileOutputShape, tileOutput } from '../../kernels/tile-output';
import { type TilePictureShape, tilePicture } from '../../kernels/tile-picture';
import { type WarpSliceShape, warpSlice } from '../../kernels/warp-slice';
import { packColumns, packPyramidConv } from '../../src/interpolate/film-weights';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, seededFloats, type Tolerance } from '../harness/near';
import { asHeld, F16_STORE, type FloatType, readAs, uploadAs } from '../harness/typed';
import { flowDoubleReference } from '../reference/flow-double';
import { flowResidualReference } from '../reference/flow-residual';
import { flowSliceReference } from '../reference/flow-slice';
import { pyramidConvReference } from '../reference/pyramid-conv';
import { pyramidPoolReference } from '../reference/pyramid-pool';
import { tileOutputReference } from '../reference/tile-output';
import { tilePictureReference } from '../reference/tile-picture';
import { warpSliceReference } from '../reference/warp-slice';

/** The kernels of FILM, each against its reference. */

/**
 * f32 sums of up to 600 products of deviation 0.3, in another order. Measured up to 1e-7 and 3.3e-6; four times that.
 */
const F32_SUM: Tolerance = { relativeL2: 4e-7, maxAbs: 1.4e-5 };
/**
 * Coordinates up to 16 have f32 steps of 1e-6, which differences of pixels scale. Measured up to 1.5e-7 and 1.5e-6;
 * four times that.
 */
const F32_SAMPLE: Tolerance = { relativeL2: 6e-7, maxAbs: 6e-6 };

/** Elements behind an output that a launch must leave alone, and what it holds before. */
const GUARDS = 64;
const GUARD = 777;

type Size = readonly [height: number, width: number];

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

/** Random pixels, channels last, with a border of zeros. */
function bordered(seed: number, type: FloatType, [height, width]: Size, channels: number): Float32Array {
  const values = asHeld(type, seededFloats(seed, (height + 2) * (width + 2) * channels));
  return values.map((value, i) => {
    const column = Math.floor(i / channels) % (width + 2);
    const row = Math.floor(i / channels / (width + 2));
    return row === 0 || column === 0 || row === height + 1 || column === width + 1 ? 0 : value;
  });
}

/**
 * Runs a launch on an output of guards and compares: what the reference does not make holds the guard, behind the end
 * too.
 */
async function check(
  type: FloatType,
  expected: Float64Array,
  tolerance: Tolerance,
  label: string,
  launch: (y: ReturnType<typeof uploadAs>) => Promise<void>,
): Promise<void> {
  using y = uploadAs(test.gpu, type, new Float32Array(expected.length + GUARDS).fill(GUARD));
  await launch(y);
  const values = await readAs(test.gpu, type, y);
  test.gpu.check();
  const made = (_: number, i: number) => i < expected.length && expected[i] !== GUARD;
  expectNear(values.filter(made), expected.filter(made), tolerance, label);
  expect(new Set(values.filter((value, i) => !made(value, i))), 'guards').toEqual(new Set([GUARD]));
}

describe.each(['f32', 'f16'] as const)('in %s', (type) => {
  const missing = 'this adapter has no shader-f16';
  const absent = () => type === 'f16' && !test.gpu.f16;
  const stored = (f32: Tolerance) => (type === 'f16' ? F16_STORE : f32);

  const convolutions: [string, Omit<PyramidConvShape, 'type'>][] = [
    ['3 × 3, one pixel', { size: [1, 1], kernel: 3, into: 4, out: 4, slice: [4, 0], slope: 0.2 }],
    ['3 × 3, odd sides, a slice', { size: [5, 7], kernel: 3, into: 8, out: 12, slice: [24, 8], slope: 0.2 }],
    ['3 × 3, many lanes', { size: [3, 9], kernel: 3, into: 64, out: 64, slice: [64, 0], slope: 0.2 }],
    ['3 × 3, some rows', { size: [11, 6], kernel: 3, into: 4, out: 8, slice: [8, 0], slope: 0.2, rows: [4, 10] }],
    ['2 × 2, two pixels', { size: [2, 2], kernel: 2, into: 4, out: 4, slice: [4, 0], slope: 1 }],
    ['2 × 2, no whole square, a slice', { size: [6, 10], kernel: 2, into: 12, out: 8, slice: [20, 12], slope: 1 }],
    ['2 × 2, some rows', { size: [12, 4], kernel: 2, into: 8, out: 4, slice: [4, 0], slope: 1, rows: [8, 12] }],
    ['1 × 1, one row', { size: [1, 5], kernel: 1, into: 16, out: 8, slice: [8, 0], slope: 0.2 }],
    ['1 × 1, some rows', { size: [9, 3], kernel: 1, into: 4, out: 4, slice: [12, 4], slope: 0.2, rows: [4, 9] }],
  ];
  it.for(convolutions)('pyramid-conv: %s', async ([name, shape], { skip }) => {
    skip(absent(), missing);
    const { size, kernel, into, out } = shape;
    const factor = kernel === 2 ? 2 : 1;
    const x = bordered(10, type, [size[0] / factor, size[1] / factor], into);
    const weight = asHeld(type, seededFloats(11, out * into * kernel ** 2, 0.3));
    const bias = seededFloats(12, out);
    using xs = uploadAs(test.gpu, type, x);
    using weights = uploadAs(test.gpu, type, packPyramidConv(weight, [out, into, kernel]).weight);
    using biases = uploadAs(test.gpu, 'f32', bias);
    const expected = pyramidConvReference(shape, x, weight, bias, GUARD);
    await check(type, expected, stored(F32_SUM), `${name}, seeds from 10`, (y) =>
      pyramidConv.run(test.gpu, { ...shape, type }, { x: xs, weight: weights, bias: biases, y }),
    );
  });

  const pools: [string, Omit<PyramidPoolShape, 'type'>][] = [
    ['one pixel', { size: [1, 1], channels: 4, slice: [4, 0] }],
    ['odd sides, a slice', { size: [3, 5], channels: 8, slice: [20, 12] }],
  ];
  it.for(pools)('pyramid-pool: %s', async ([name, shape], { skip }) => {
    skip(absent(), missing);
    const { size, slice } = shape;
    const x = bordered(20, type, [2 * size[0], 2 * size[1]], slice[0]);
    using xs = uploadAs(test.gpu, type, x);
    await check(type, pyramidPoolReference(shape, x, GUARD), stored(F32_SAMPLE), `${name}, seed 20`, (y) =>
      pyramidPool.run(test.gpu, { ...shape, type }, { x: xs, y }),
    );
  });

  const warps: [string, Omit<WarpSliceShape, 'type'>][] = [
    ['one pixel', { size: [1, 1], channels: 4, slice: [4, 0], scale: 1 }],
    ['odd sides, a slice', { size: [5, 7], channels: 8, slice: [24, 8], scale: 1 }],
    ['scaled', { size: [6, 9], channels: 4, slice: [8, 4], scale: 0.25 }],
    ['copied', { size: [5, 3], channels: 12, slice: [16, 4], scale: null }],
  ];
  it.for(warps)('warp-slice: %s', async ([name, shape], { skip }) => {
    skip(absent(), missing);
    const { size, channels } = shape;
    const x = bordered(30, type, size, channels);
    // Flows that leave the picture on every side.
    const flow = seededFloats(31, 2 * size[0] * size[1], 5);
    using xs = uploadAs(test.gpu, type, x);
    using flows = uploadAs(test.gpu, 'f32', flow);
    await check(type, warpSliceReference(shape, x, flow, GUARD), stored(F32_SAMPLE), `${name}, seeds from 30`, (y) =>
      warpSlice.run(test.gpu, { ...shape, type }, { x: xs, flow: flows, y }),
    );
  });

  it('flow-slice', async ({ skip }) => {
    skip(absent(), missing);
    const shape: Omit<FlowSliceShape, 'type'> = { size: [5, 7], slice: [12, 4], time: 0.25 };
    const [backward, forward] = [seededFloats(40, 70, 4), seededFloats(41, 70, 4)];
    using backwards = uploadAs(test.gpu, 'f32', backward);
    using forwards = uploadAs(test.gpu, 'f32', forward);
    const expected = flowSliceReference(shape, backward, forward, GUARD);
    await check(type, expected, stored(F32_SAMPLE), 'seeds from 40', (y) =>
      flowSlice.run(test.gpu, { ...shape, type }, { backward: backwards, forward: forwards, y }),
    );
  });

  it.for([true, false])('flow-residual, first: %s', async (first, { skip }) => {
    skip(absent(), missing);
    const shape: Omit<FlowResidualShape, 'type'> = { size: [5, 3], into: 12, first };
    const x = bordered(50, type, shape.size, 12);
    const [weight, bias, flow] = [seededFloats(51, 24), seededFloats(52, 2), seededFloats(53, 30)];
    const guards = new Float32Array(GUARDS).fill(GUARD);
    using xs = uploadAs(test.gpu, type, x);
    using weights = uploadAs(test.gpu, 'f32', packColumns(weight, 2, 12, 2));
    using biases = uploadAs(test.gpu, 'f32', bias);
    using flows = uploadAs(test.gpu, 'f32', Float32Array.from([...flow, ...guards]));
    await flowResidual.run(test.gpu, { ...shape, type }, { x: xs, weight: weights, bias: biases, flow: flows });
    const values = await test.gpu.memory.readFloats(flows);
    const expected = flowResidualReference(shape, x, weight, bias, flow);
    expectNear(values.subarray(0, 30), expected, F32_SUM, `first ${first}, seeds from 50`);
    expect(values.subarray(30)).toEqual(guards);
  });

  const pictures: [string, Omit<TilePictureShape, 'type'>][] = [
    ['a whole frame in the middle', { frames: 1, frame: 0, from: [3, 5], at: [-2, -1], size: [8, 8] }],
    ['a part of the last of four', { frames: 4, frame: 3, from: [6, 9], at: [2, 4], size: [4, 5] }],
  ];
  it.for(pictures)('tile-picture: %s', async ([name, shape], { skip }) => {
    skip(absent(), missing);
    // Some values lie beyond -1..1.
    const rgb = seededFloats(60, 3 * shape.frames * shape.from[0] * shape.from[1]);
    using colors = uploadAs(test.gpu, 'f32', rgb);
    await check(type, tilePictureReference(shape, rgb, GUARD), stored(F32_SAMPLE), `${name}, seed 60`, (y) =>
      tilePicture.run(test.gpu, { ...shape, type }, { rgb: colors, y }),
    );
  });

  it('tile-output: four tiles that overlap, cropped', async ({ skip }) => {
    skip(absent(), missing);
    const [weight, bias] = [seededFloats(70, 24), seededFloats(71, 3)];
    const to = [9, 11] as const;
    const rows = [
      [0, 0, 6, 0, 3],
      [1, 3, 6, 3, 0],
    ] as const;
    const columns = [
      [0, 0, 7, 0, 2],
      [1, 5, 6, 2, 0],
    ] as const;
    using weights = uploadAs(test.gpu, 'f32', packColumns(weight, 3, 8, 4));
    using biases = uploadAs(test.gpu, 'f32', Float32Array.from([...bias, 0]));
    const tiles = rows.flatMap(([top, y, high, rise, fall], i) =>
      columns.map(([left, x, wide, before, after], j) => {
        const shape: Omit<TileOutputShape, 'type'> = {
          from: [8, 8],
          into: 8,
          fromAt: [top, left],
          size: [high, wide],
          to,
          toAt: [y, x],
          fade: [rise, fall, before, after],
        };
        return { shape, x: bordered(72 + 2 * i + j, type, [8, 8], 8) };
      }),
    );
    const expected = new Float64Array(3 * to[0] * to[1]);
    for (const { shape, x } of tiles) {
      const own = tileOutputReference(shape, x, weight, bias);
      for (const i of expected.keys()) expected[i]! += own[i]!;
    }
    await check('f32', expected, F32_SUM, 'seeds from 70', async (rgb) => {
      for (const { shape, x } of tiles) {
        using xs = uploadAs(test.gpu, type, x);
        await tileOutput.run(test.gpu, { ...shape, type }, { x: xs, weight: weights, bias: biases, rgb });
      }
    });
  });
});

const doubled: [string, FlowDoubleShape][] = [
  ['one pixel', { size: [2, 2] }],
  ['odd sides', { size: [6, 10] }],
];
it.each(doubled)('flow-double: %s', async (name, shape) => {
  const coarse = seededFloats(80, (2 * shape.size[0] * shape.size[1]) / 4, 4);
  using coarses = uploadAs(test.gpu, 'f32', coarse);
  await check('f32', flowDoubleReference(shape, coarse), F32_SAMPLE, `${name}, seed 80`, (fine) =>
    flowDouble.run(test.gpu, shape, { coarse: coarses, fine }),
  );
});
