import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type QkNormRopeShape, qkNormRope } from '../../kernels/qk-norm-rope';
import { ropeTable } from '../../src/diffusion/rope';
import { decodeF16, encodeF16 } from '../../src/floats';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, seededFloats, type Tolerance } from '../harness/near';
import { qkNormRopeReference } from '../reference/qk-norm-rope';

/** f32 throughout, values up to 15: measured 3e-8..1e-7 and 5e-7..1.4e-6 on SwiftShader; about four times that. */
const F32_STORE: Tolerance = { relativeL2: 4e-7, maxAbs: 6e-6 };
/**
 * One conversion to f16 at the end, which WGSL lets round up or down: relative 2^-10 at most, 5.6e-4 as a root mean
 * square, and one step, 2^-7, of values from 8 to 16.
 */
const F16_STORE: Tolerance = { relativeL2: 6e-4, maxAbs: 2 ** -7 };

/** Fills `out` before the launch: exact in f16, far from any result. */
const GUARD = 777;
const HEAD_DIM = 128;

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

/** A launch over a whole sequence that stores all heads; a case says what differs. */
function shapeOf(differing: Partial<QkNormRopeShape>): QkNormRopeShape {
  const { tokens = 30, dim = 256 } = differing;
  return {
    type: 'f32',
    tokens,
    dim,
    heads: dim / HEAD_DIM,
    headOffset: 0,
    norm: true,
    rope: true,
    outTokens: tokens,
    storeOffset: 0,
    ropeOffset: 0,
    grid: [2, 3, 5],
    eps: 1e-6,
    ...differing,
  };
}

function inputs(seed: number, { tokens, dim }: QkNormRopeShape, scale = 3) {
  return {
    x: seededFloats(seed, tokens * dim, scale),
    weight: seededFloats(seed + 1, dim, 0.2).map((value) => 1 + value),
  };
}

/** Carries out launches one after the other on one output, which starts as guards. */
async function launch(shapes: QkNormRopeShape[], xs: Float32Array[], weight: Float32Array): Promise<Float32Array> {
  const { gpu } = test;
  const { type, heads, outTokens, grid } = shapes[0]!;
  const half = type === 'f16';
  const guards = new Float32Array(heads * outTokens * HEAD_DIM).fill(GUARD);
  using out = gpu.memory.upload(
    'out',
    half ? 'float16' : 'float32',
    [heads, outTokens, HEAD_DIM],
    half ? encodeF16(guards) : guards,
  );
  using w = gpu.memory.upload('weight', 'float32', [weight.length], weight);
  const table = ropeTable(...grid);
  using rope = gpu.memory.upload('rope', 'float32', [table.length / 2, 2], table);
  for (const [i, shape] of shapes.entries()) {
    using x = gpu.memory.upload('x', 'float32', [shape.tokens, shape.dim], xs[i]!);
    await qkNormRope.run(gpu, shape, { x, weight: w, rope, out });
  }
  const bytes = await gpu.memory.read(out);
  gpu.check();
  return half ? decodeF16(new Uint16Array(bytes.buffer)) : new Float32Array(bytes.buffer);
}

/** Compares the stored rows within the type's tolerance and every other row exactly. */
function expectStored(
  actual: Float32Array,
  shape: QkNormRopeShape,
  { x, weight }: { x: Float32Array; weight: Float32Array },
  label: string,
): void {
  const expected = new Float64Array(actual.length).fill(GUARD);
  qkNormRopeReference(x, weight, expected, shape);
  const stored = (_: number, i: number) => {
    const row = Math.floor(i / HEAD_DIM) % shape.outTokens;
    return row >= shape.storeOffset && row < shape.storeOffset + shape.tokens;
  };
  const inside = actual.filter(stored);
  expect(inside.length).toBe(shape.heads * shape.tokens * HEAD_DIM);
  expectNear(inside, expected.filter(stored), shape.type === 'f16' ? F16_STORE : F32_STORE, label);
  const outside = actual.filter((value, i) => !stored(value, i));
  expect(
    outside.every((value) => value === GUARD),
    `${label}: rows outside the chunk stay`,
  ).toBe(true);
}

const CASES: [name: string, seed: number, Partial<QkNormRopeShape>][] = [
  ['one token', 1, { tokens: 1, grid: [1, 1, 1] }],
  ['one token at the end of the grid', 2, { tokens: 1, ropeOffset: 29 }],
  ['the whole grid', 3, {}],
  ['65 tokens, odd grid', 4, { tokens: 65, grid: [1, 5, 13] }],
  ['a chunk in a longer output', 5, { tokens: 17, outTokens: 41, storeOffset: 11, ropeOffset: 6 }],
  ['a chunk whose row is not its position', 6, { tokens: 9, outTokens: 9, ropeOffset: 21 }],
  ['the second head alone', 7, { tokens: 13, heads: 1, headOffset: 1 }],
  ['a single head wide', 8, { tokens: 5, dim: 128 }],
  ['1.3B width', 9, { dim: 1536 }],
  [
    '1.3B width, middle heads, guard rows',
    10,
    { dim: 1536, tokens: 7, heads: 5, headOffset: 4, outTokens: 12, storeOffset: 3 },
  ],
  ['14B width', 11, { dim: 5120, tokens: 7 }],
  ['14B width, last heads', 12, { dim: 5120, tokens: 7, heads: 16, headOffset: 24, outTokens: 9, storeOffset: 1 }],
  ['norm without rotation', 13, { rope: false, grid: [1, 1, 1] }],
  ['rotation without norm', 14, { norm: false }],
  ['far positions', 15, { tokens: 40, grid: [21, 45, 80], ropeOffset: 75_560 }],
];

describe.each(['f32', 'f16'] as const)('qk-norm-rope in %s', (type) => {
  it.for(CASES)('%s', async ([name, seed, differing], { skip }) => {
    skip(type === 'f16' && !test.gpu.f16, 'this adapter has no shader-f16');
    const shape = shapeOf({ ...differing, type });
    const given = inputs(seed, shape);
    expectStored(await launch([shape], [given.x], given.weight), shape, given, `${name}, seed ${seed}`);
  });
});

describe('qk-norm-rope', () => {
  it('adds eps to the mean square', async () => {
    const shape = shapeOf({ eps: 1e-4 });
    const given = inputs(20, shape, 0.01);
    expectStored(await launch([shape], [given.x], given.weight), shape, given, 'seed 20');
  });

  it('tells rows from columns of the grid', async () => {
    const shape = shapeOf({});
    const given = inputs(21, shape);
    const actual = await launch([shape], [given.x], given.weight);
    expectStored(actual, shape, given, 'seed 21');
    expect(() => expectStored(actual, { ...shape, grid: [2, 5, 3] }, given, 'transposed')).toThrow('relative L2');
  });

  it('gives the same bits in chunks and head groups as at once', async () => {
    const shape = shapeOf({ dim: 512 });
    const { x, weight } = inputs(22, shape);
    const whole = await launch([shape], [x], weight);
    const group = { ...shape, heads: 2, headOffset: 2 };
    const cuts = [0, 1, 14, 30];
    const chunks = cuts.slice(1).map((end, i) => {
      const begin = cuts[i]!;
      return { ...group, tokens: end - begin, storeOffset: begin, ropeOffset: begin };
    });
    const xs = chunks.map(({ storeOffset, tokens }) => x.slice(storeOffset * 512, (storeOffset + tokens) * 512));
    expect(await launch(chunks, xs, weight)).toEqual(whole.slice(whole.length / 2));
  });

  it('stores values bit for bit, and reads neither weight nor table for them', async () => {
    const shape = shapeOf({ norm: false, rope: false, tokens: 33, outTokens: 35, storeOffset: 2 });
    const { gpu } = test;
    const x = seededFloats(23, 33 * 256);
    using source = gpu.memory.upload('x', 'float32', [33, 256], x);
    using nothing = gpu.memory.upload('nothing', 'float32', [4], new Float32Array(4).fill(Number.NaN));
    using out = gpu.memory.tensor('out', 'float32', [2, 35, HEAD_DIM]);
    await qkNormRope.run(gpu, shape, { x: source, weight: nothing, rope: nothing, out });
    const expected = new Float64Array(2 * 35 * HEAD_DIM);
    qkNormRopeReference(x, [], expected, shape);
    expect(await gpu.memory.readFloats(out)).toEqual(new Float32Array(expected));
  });

  it('folds more tokens than a grid has workgroups along an axis', async () => {
    const tokens = 65_537;
    const shape = shapeOf({ dim: HEAD_DIM, tokens, norm: false, rope: false });
    const x = seededFloats(24, tokens * HEAD_DIM);
    const actual = await launch([shape], [x], new Float32Array(HEAD_DIM));
    expect(actual.findIndex((value, i) => value !== x[i])).toBe(-1);
  });
});
