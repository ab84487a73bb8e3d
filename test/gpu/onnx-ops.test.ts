import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { GpuType } from '../../src/gpu/memory';
import { Graph, type Value } from '../../src/onnx/graph';
import * as ops from '../../src/onnx/ops';
import { linearInputs } from '../../src/onnx/weight-inputs';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, seededFloats, seededUniform, type Tolerance } from '../harness/near';
import * as reference from '../reference/onnx-ops';

/** Copies and rearrangements. */
const EXACT: Tolerance = { relativeL2: 0, maxAbs: 0 };
/**
 * One f32 operation, quotients and roots within WGSL's 2.5 ulp. Measured up to 3.2e-8 and 6e-7; about four times that.
 */
const ELEMENTWISE: Tolerance = { relativeL2: 1.5e-7, maxAbs: 2.5e-6 };
/**
 * Functions of exp and tanh. Measured up to 6e-8 and 9e-7; WGSL's bound, (3 + 2|x|) ulp, asks for more room than four
 * times.
 */
const TRANSCENDENTAL: Tolerance = { relativeL2: 4e-7, maxAbs: 4e-6 };
/** Row statistics in f32. Measured up to 1.3e-7 and 1.2e-6; about four times that. */
const NORM: Tolerance = { relativeL2: 5e-7, maxAbs: 5e-6 };
/** f32 sums of up to 288 products. Measured up to 3.5e-7 and 1.3e-5, both in a convolution; four times that. */
const PRODUCT: Tolerance = { relativeL2: 1.4e-6, maxAbs: 5e-5 };

interface Input {
  shape: number[];
  data: Float32Array | Int32Array | Uint8Array;
}

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

/**
 * Runs the graph that `build` makes; `input` declares one of `inputs` at its first call. Gives the values of each
 * output that it names.
 */
async function run(
  inputs: Record<string, Input>,
  build: (input: (name: string) => Value, graph: Graph) => Record<string, Value>,
): Promise<Record<string, { shape: readonly number[]; data: Float32Array }>> {
  const { gpu, ort } = test;
  const graph = new Graph('test');
  const declared = new Map<string, Value>();
  const input = (name: string) => {
    const value = declared.get(name) ?? graph.input(name, typeOf(inputs[name]!.data), inputs[name]!.shape);
    declared.set(name, value);
    return value;
  };
  for (const [name, value] of Object.entries(build(input, graph))) graph.output(name, value);
  expect([...graph.inputs.keys()].sort()).toEqual(Object.keys(inputs).sort());
  const session = await ort.compile(graph);
  const feeds = Object.entries(inputs).map(([name, { data, shape }]) => {
    return [name, gpu.memory.upload(name, typeOf(data), shape, data)] as const;
  });
  const outputs = [...graph.outputs].map(([name, { shape }]) => {
    return [name, gpu.memory.tensor(name, 'float32', shape)] as const;
  });
  try {
    await session.run(Object.fromEntries(feeds), Object.fromEntries(outputs));
    const read = outputs.map(async ([name, tensor]) => {
      return [name, { shape: tensor.shape, data: await gpu.memory.readFloats(tensor) }] as const;
    });
    return Object.fromEntries(await Promise.all(read));
  } finally {
    await session.release();
    for (const [, tensor] of [...feeds, ...outputs]) tensor[Symbol.dispose]();
  }
}

function typeOf(data: Input['data']): Extract<GpuType, 'float32' | 'int32' | 'uint8'> {
  if (data instanceof Float32Array) return 'float32';
  return data instanceof Int32Array ? 'int32' : 'uint8';
}

/** Normal numbers. */
function floats(seed: number, shape: number[], scale = 1): Input & { data: Float32Array } {
  return {
    shape,
    data: seededFloats(
      seed,
      shape.reduce((product, size) => product * size, 1),
      scale,
    ),
  };
}

function expectSame(
  actual: { shape: readonly number[]; data: Float32Array },
  expected: reference.Array64,
  tolerance: Tolerance,
  label: string,
): void {
  expect(actual.shape, label).toEqual(expected.shape);
  expectNear(actual.data, expected.data, tolerance, label);
}

describe('elementwise operators', () => {
  const SHAPES: [number[], number[], number[]][] = [
    [
      [3, 5],
      [3, 5],
      [3, 5],
    ],
    [[3, 5], [5], [3, 5]],
    [
      [7, 1],
      [1, 4],
      [7, 4],
    ],
    [
      [2, 1, 6, 3],
      [4, 1, 3],
      [2, 4, 6, 3],
    ],
    [[1], [2, 3], [2, 3]],
  ];
  it.each(SHAPES)('broadcast %j and %j', async (first, second, shape) => {
    const a = floats(1, first);
    const b = floats(2, second);
    const out = await run({ a, b }, (input) => ({
      add: ops.add(input('a'), input('b')),
      sub: ops.sub(input('a'), input('b')),
      mul: ops.mul(input('a'), input('b')),
    }));
    expectSame(
      out.add!,
      reference.binary(a, b, shape, (x, y) => x + y),
      ELEMENTWISE,
      'add',
    );
    expectSame(
      out.sub!,
      reference.binary(a, b, shape, (x, y) => x - y),
      ELEMENTWISE,
      'sub',
    );
    expectSame(
      out.mul!,
      reference.binary(a, b, shape, (x, y) => x * y),
      ELEMENTWISE,
      'mul',
    );
  });

  it.each([
    ['near zero', floats(3, [11, 13], 4)],
    ['far from zero', { shape: [10], data: Float32Array.of(0, -0, 30, -30, 100, -100, 1000, -1000, 1e-6, -1e-6) }],
  ])('sigmoid, silu and geluTanh %s', async (_, x) => {
    const out = await run({ x }, (input) => ({
      sigmoid: ops.sigmoid(input('x')),
      silu: ops.silu(input('x')),
      gelu: ops.geluTanh(input('x')),
    }));
    expectSame(out.sigmoid!, reference.map(x, reference.sigmoid), TRANSCENDENTAL, 'sigmoid');
    expectSame(
      out.silu!,
      reference.map(x, (value) => value * reference.sigmoid(value)),
      TRANSCENDENTAL,
      'silu',
    );
    expectSame(out.gelu!, reference.map(x, reference.geluTanh), TRANSCENDENTAL, 'geluTanh');
  });
});

describe('rearrangements', () => {
  it('reshape', async () => {
    const x = floats(4, [4, 6]);
    const out = await run({ x }, (input) => ({ y: ops.reshape(input('x'), [2, 3, 4]) }));
    expectSame(out.y!, { shape: [2, 3, 4], data: x.data }, EXACT, 'reshape');
  });

  it.each([
    [
      [3, 5],
      [1, 0],
    ],
    [
      [2, 3, 4],
      [2, 0, 1],
    ],
    [
      [2, 3, 2, 4, 2, 3],
      [1, 2, 4, 0, 3, 5],
    ],
    [
      [2, 3, 4, 2, 2, 3],
      [5, 0, 1, 3, 2, 4],
    ],
  ])('transpose %j by %j', async (shape, order) => {
    const x = floats(5, shape);
    const out = await run({ x }, (input) => ({ y: ops.transpose(input('x'), order) }));
    expectSame(out.y!, reference.transpose(x, order), EXACT, 'transpose');
  });

  it.each([
    [[6, 5], 0, 2, 3],
    [[6, 5], 1, 1, 5],
    [[2, 7, 3], 1, 0, 7],
  ])('slice %j along axis %i, %i..%i', async (shape, axis, begin, end) => {
    const x = floats(6, shape);
    const out = await run({ x }, (input) => ({ y: ops.slice(input('x'), axis, begin, end) }));
    expectSame(out.y!, reference.slice(x, axis, begin, end), EXACT, 'slice');
  });

  it.each([0, 1, 2])('concat of three along axis %i', async (axis) => {
    const [a, b, c] = [2, 1, 3].map((size, i) => floats(7 + i, [2, 3, 5].with(axis, size))) as [Input, Input, Input];
    const out = await run({ a, b, c }, (input) => ({ y: ops.concat([input('a'), input('b'), input('c')], axis) }));
    expectSame(out.y!, reference.concat([a, b, c], axis), EXACT, 'concat');
  });

  it('gather of rows, repeated and in any order, by indices of two axes', async () => {
    const table = floats(10, [9, 2, 3]);
    const indices = { shape: [2, 4], data: Int32Array.of(8, 0, 3, 3, 1, 7, 0, 5) };
    const out = await run({ table, indices }, (input) => ({ y: ops.gather(input('table'), input('indices')) }));
    expectSame(out.y!, reference.gather(table, indices), EXACT, 'gather');
  });
});

describe('rows', () => {
  it.each([[[1, 1]], [[3, 33]], [[2, 3, 256]], [[65, 130]]])('norms and softmax of %j', async (shape) => {
    const width = shape.at(-1)!;
    const x = floats(12, shape, 2);
    const shifted = { shape, data: x.data.map((value) => value + 1) };
    const weight = floats(13, [width]);
    const bias = floats(14, [width]);
    const logits = floats(15, shape, 60);
    const out = await run({ shifted, weight, bias, logits }, (input) => ({
      layerNorm: ops.layerNorm(input('shifted'), input('weight'), input('bias'), 1e-6),
      noBias: ops.layerNorm(input('shifted'), input('weight'), null, 1e-6),
      largeEps: ops.layerNorm(input('shifted'), input('weight'), input('bias'), 0.5),
      rmsNorm: ops.rmsNorm(input('shifted'), input('weight'), 1e-6),
      rmsLargeEps: ops.rmsNorm(input('shifted'), input('weight'), 0.5),
      softmax: ops.softmax(input('logits')),
    }));
    const [w, b] = [weight.data, bias.data];
    expectSame(out.layerNorm!, reference.layerNorm(shifted, w, b, 1e-6), NORM, 'layerNorm');
    // A row of one element is all bias; without one it is zero, where only the absolute limit means something.
    const noBias = reference.layerNorm(shifted, w, null, 1e-6);
    expectSame(out.noBias!, noBias, width === 1 ? EXACT : NORM, 'layerNorm without bias');
    expectSame(out.largeEps!, reference.layerNorm(shifted, w, b, 0.5), NORM, 'layerNorm, eps 0.5');
    expectSame(out.rmsNorm!, reference.rmsNorm(shifted, w, 1e-6), NORM, 'rmsNorm');
    expectSame(out.rmsLargeEps!, reference.rmsNorm(shifted, w, 0.5), NORM, 'rmsNorm, eps 0.5');
    expectSame(out.softmax!, reference.softmax(logits), TRANSCENDENTAL, 'softmax of logits to 200');
  });

  it.each([0, 1, 2])('reduceSum along axis %i', async (axis) => {
    const x = floats(16, [3, 35, 18]);
    const out = await run({ x }, (input) => ({ y: ops.reduceSum(input('x'), axis) }));
    expectSame(out.y!, reference.reduceSum(x, axis), NORM, 'reduceSum');
  });
});

describe('products', () => {
  it.each([
    [[1, 7], [7, 3], []],
    [[33, 70], [70, 65], []],
    [[3, 5, 16], [3, 16, 12], [3]],
    [
      [2, 3, 5, 8],
      [3, 8, 6],
      [2, 3],
    ],
    [[4, 9, 10], [10, 6], [4]],
  ])('matmul %j times %j', async (first, second, batch) => {
    const a = floats(17, first);
    const b = floats(18, second);
    const out = await run({ a, b }, (input) => ({ y: ops.matmul(input('a'), input('b')) }));
    expectSame(out.y!, reference.matmul(a, b, batch), PRODUCT, 'matmul');
  });

  it.each([
    ['3 × 3, padded', [1, 5, 6, 7], [4, 5, 3, 3], 1],
    ['3 × 3, not padded', [1, 32, 5, 6], [3, 32, 3, 3], 0],
    ['1 × 1', [2, 8, 3, 5], [16, 8, 1, 1], 0],
  ] as const)('conv2d, %s', async (_, xShape, wShape, pad) => {
    const x = floats(19, [...xShape]);
    const weight = floats(20, [...wShape]);
    const bias = floats(21, [wShape[0]]);
    const out = await run({ x, weight, bias }, (input) => ({
      y: ops.conv2d(input('x'), input('weight'), input('bias'), pad),
    }));
    expectSame(out.y!, reference.conv2d(x, weight, bias.data, pad), PRODUCT, 'conv2d');
  });

  const LINEAR = [32, 8, 4].flatMap((bits) =>
    (bits === 32 ? [false] : [false, true]).flatMap((zeroPoints) =>
      [true, false].map((bias) => ({ bits, zeroPoints, bias })),
    ),
  ) as { bits: 32 | 8 | 4; zeroPoints: boolean; bias: boolean }[];
  it.each(LINEAR)('linear of $bits bits, zero points $zeroPoints, bias $bias', async ({ bits, zeroPoints, bias }) => {
    // One token takes ONNX Runtime's generic kernel, five and 65 its tiled one; 96 columns are three blocks, an odd
    // number of 4-bit zero points; 68 rows are no whole tile.
    const [rows, columns] = [68, 96];
    const seed = 22;
    const plain = floats(seed, [rows, columns], 0.3);
    const packed =
      bits === 32 ? undefined : reference.quantised([rows, columns], bits, zeroPoints, seededUniform(seed));
    const b = floats(seed + 1, [rows]);
    const inputs: Record<string, Input> = {
      'layer.weight': packed ? { shape: [rows, 3, 4 * bits], data: packed.bytes } : plain,
    };
    if (packed) inputs['layer.weight.scales'] = { shape: [rows, 3], data: packed.scales };
    if (packed?.zeroPoints) {
      inputs['layer.weight.zero_points'] = { shape: [rows, Math.ceil((3 * bits) / 8)], data: packed.zeroPoints };
    }
    if (bias) inputs['layer.bias'] = b;
    for (const tokens of [1, 5, 65]) {
      const x = floats(seed + 2 + tokens, [tokens, columns]);
      const out = await run({ x, ...inputs }, (input, graph) => ({
        y: ops.linear(input('x'), linearInputs(graph, 'layer', { rows, columns, bits, zeroPoints }, bias)),
      }));
      const expected = reference.linear(x, packed?.matrix ?? plain, bias ? b.data : null);
      expectSame(out.y!, expected, PRODUCT, `${tokens} tokens, seed ${seed}`);
    }
  });
});

describe('graphs', () => {
  it('give a value in their middle as an output, and one value under two names', async () => {
    const x = floats(30, [3, 4]);
    const out = await run({ x }, (input, graph) => {
      const doubled = ops.mul(input('x'), graph.floats([2]));
      return { doubled, again: doubled, more: ops.add(doubled, graph.floats([1, 2, 3, 4])) };
    });
    const doubled = reference.map(x, (value) => 2 * value);
    expectSame(out.doubled!, doubled, EXACT, 'doubled');
    expectSame(out.again!, doubled, EXACT, 'again');
    const step = { shape: [4], data: [1, 2, 3, 4] };
    expectSame(
      out.more!,
      reference.binary(doubled, step, [3, 4], (a, b) => a + b),
      ELEMENTWISE,
      'more',
    );
  });
});
