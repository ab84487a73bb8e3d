import { describe, expect, it } from 'vitest';
import { ZoetropeError } from '../../src/errors';
import { type DType, Graph, type Value } from '../../src/onnx/graph';
import * as ops from '../../src/onnx/ops';
import { linearInputs } from '../../src/onnx/weight-inputs';
import { type Field, fieldsOf, first, packedIntegers, text } from '../harness/protobuf';

function graphOf(...shapes: [DType, number[]][]): [Graph, ...Value[]] {
  const graph = new Graph('test');
  return [graph, ...shapes.map(([dtype, shape], i) => graph.input(`x${i}`, dtype, shape))];
}

/** f32 values of the given shapes. */
function values(...shapes: number[][]): Value[] {
  return graphOf(...shapes.map((shape): [DType, number[]] => ['float32', shape])).slice(1) as Value[];
}

describe('operators', () => {
  it.each<[string, () => unknown]>([
    ['broadcast: shapes [2,3] and [2] do not fit', () => ops.broadcast([2, 3], [2])],
    ['broadcast: shapes [4,3] and [3,3] do not fit', () => ops.add(...pair([4, 3], [3, 3]))],
    ['Mul: types float32 and int32 differ', () => ops.mul(...mixed('float32', 'int32'))],
    ['Reshape: [2,3] has not the elements of [5]', () => ops.reshape(...single([2, 3]), [5])],
    ['Transpose: [2,3] has 2 axes, got order [0]', () => ops.transpose(...single([2, 3]), [0])],
    ['Transpose: [2,3] has 2 axes, got order [0,0]', () => ops.transpose(...single([2, 3]), [0, 0])],
    ['Transpose: [2,3] has 2 axes, got order [1,2]', () => ops.transpose(...single([2, 3]), [1, 2])],
    ['Slice: 1..4 of axis 1 of [2,3]', () => ops.slice(...single([2, 3]), 1, 1, 4)],
    ['Slice: 2..2 of axis 1 of [2,3]', () => ops.slice(...single([2, 3]), 1, 2, 2)],
    ['Slice: -1..2 of axis 1 of [2,3]', () => ops.slice(...single([2, 3]), 1, -1, 2)],
    ['Slice: axis 2 of [2,3]', () => ops.slice(...single([2, 3]), 2, 0, 1)],
    ['Concat: [3,3] float32 beside [2,4] float32', () => ops.concat(pair([2, 4], [3, 3]), 0)],
    ['Concat: [2] float32 beside [2,4] float32', () => ops.concat(pair([2, 4], [2]), 0)],
    ['Concat: [2] int32 beside [2] float32', () => ops.concat(mixed('float32', 'int32'), 0)],
    ['Concat: axis 2 of [2,4]', () => ops.concat(pair([2, 4], [2, 4]), 2)],
    ['MatMul: [2,3] float32 times [2,3] float32', () => ops.matmul(...pair([2, 3], [2, 3]))],
    ['MatMul: [3] float32 times [3] float32', () => ops.matmul(...pair([3], [3]))],
    ['broadcast: shapes [2] and [3] do not fit', () => ops.matmul(...pair([2, 3, 4], [3, 4, 5]))],
    ['Gather: indices of type float32', () => ops.gather(...pair([4, 2], [3]))],
    ['ReduceSum: axis -1 of [4,2]', () => ops.reduceSum(...single([4, 2]), -1)],
    ['LayerNormalization: [4,2] with [4]', () => ops.layerNorm(...pair([4, 2], [4]), null, 1e-6)],
    ['LayerNormalization: [4,2] with [3]', () => ops.layerNorm(...triple([4, 2], [2], [3]), 1e-6)],
    ['SimplifiedLayerNormalization: [4,2] with [1]', () => ops.rmsNorm(...pair([4, 2], [1]), 1e-6)],
    ['Conv: [1,3,5,5] with weight [2,4,3,3]', () => ops.conv2d(...triple([1, 3, 5, 5], [2, 4, 3, 3], [2]), 1)],
    [
      'Conv: [1,3,5,5] with weight [2,3,3,3], bias [3]',
      () => ops.conv2d(...triple([1, 3, 5, 5], [2, 3, 3, 3], [3]), 1),
    ],
    ['Conv: [1,3,5,2] with weight [2,3,3,3]', () => ops.conv2d(...triple([1, 3, 5, 2], [2, 3, 3, 3], [2]), 0)],
    ['Conv: [3,5,5] with weight', () => ops.conv2d(...triple([3, 5, 5], [2, 3, 3, 3], [2]), 1)],
  ])('refuse with "%s"', (message, call) => {
    expect(call).toThrow(message);
    expect(call).toThrow(ZoetropeError);
  });

  it('refuse a linear layer that does not fit', () => {
    const layer = (x: number[], storage: Partial<Parameters<typeof linearInputs>[2]> = {}) => {
      const graph = new Graph('test');
      const weight = linearInputs(graph, 'a', { rows: 3, columns: 64, bits: 8, zeroPoints: true, ...storage }, true);
      return { x: graph.input('x', 'float32', x), weight };
    };
    const narrow = layer([5, 32]);
    expect(() => ops.linear(narrow.x, narrow.weight)).toThrow('linear: [5,32] times a [3,64] matrix');
    const cube = layer([5, 2, 64]);
    expect(() => ops.linear(cube.x, cube.weight)).toThrow('linear: [5,2,64] times a [3,64] matrix');
    const other = layer([5, 64]);
    expect(() => ops.linear(other.x, { ...other.weight, rows: 4 })).toThrow('linear: a [4,64] matrix as [3,2,32]');
    expect(() => ops.linear(other.x, { ...other.weight, bias: other.x })).toThrow('with bias [5,64]');
    expect(ops.linear(other.x, other.weight).shape).toEqual([5, 3]);
  });

  it('refuse values of two graphs', () => {
    const [x] = values([2]);
    const [y] = values([2]);
    expect(() => ops.add(x!, y!)).toThrow('Add takes "x0" of test');
  });

  it.each<[string, number[], (x: Value) => Value, number[]]>([
    ['transpose', [2, 3, 4, 5, 6, 7], (x) => ops.transpose(x, [5, 1, 0, 2, 4, 3]), [7, 3, 2, 4, 6, 5]],
    ['slice', [4, 5], (x) => ops.slice(x, 0, 1, 3), [2, 5]],
    ['concat', [4, 5], (x) => ops.concat([x, x, x], 1), [4, 15]],
    ['reduceSum', [4, 5, 6], (x) => ops.reduceSum(x, 1), [4, 1, 6]],
  ])('know the shape of %s', (_, shape, build, expected) => {
    expect(build(values(shape)[0]!).shape).toEqual(expected);
  });

  it('broadcast leading and single axes', () => {
    expect(ops.broadcast([2, 1, 6, 3], [4, 1, 3])).toEqual([2, 4, 6, 3]);
    expect(ops.broadcast([], [2, 3])).toEqual([2, 3]);
    expect(ops.broadcast([1], [1])).toEqual([1]);
  });

  function single(shape: number[]): [Value] {
    return values(shape) as [Value];
  }
  function pair(a: number[], b: number[]): [Value, Value] {
    return values(a, b) as [Value, Value];
  }
  function triple(a: number[], b: number[], c: number[]): [Value, Value, Value] {
    return values(a, b, c) as [Value, Value, Value];
  }
  function mixed(a: DType, b: DType): [Value, Value] {
    return graphOf([a, [2]], [b, [2]]).slice(1) as [Value, Value];
  }
});

describe('linearInputs', () => {
  const declared = (bits: 32 | 8 | 4, zeroPoints: boolean, bias: boolean) => {
    const graph = new Graph('test');
    linearInputs(graph, 'q', { rows: 6, columns: 96, bits, zeroPoints }, bias);
    return Object.fromEntries([...graph.inputs].map(([name, { dtype, shape }]) => [name, `${dtype} [${shape}]`]));
  };

  it('declares a plain matrix', () => {
    expect(declared(32, false, true)).toEqual({ 'q.weight': 'float32 [6,96]', 'q.bias': 'float32 [6]' });
    expect(declared(32, true, false)).toEqual({ 'q.weight': 'float32 [6,96]' });
  });

  it('declares blocks of 32 with their scales and packed zero points', () => {
    expect(declared(8, true, false)).toEqual({
      'q.weight': 'uint8 [6,3,32]',
      'q.weight.scales': 'float32 [6,3]',
      'q.weight.zero_points': 'uint8 [6,3]',
    });
    expect(declared(4, true, true)).toEqual({
      'q.weight': 'uint8 [6,3,16]',
      'q.weight.scales': 'float32 [6,3]',
      'q.weight.zero_points': 'uint8 [6,2]',
      'q.bias': 'float32 [6]',
    });
    expect(Object.keys(declared(4, false, false))).toEqual(['q.weight', 'q.weight.scales']);
  });
});

/** Field numbers are those of onnx.proto; the decoder knows nothing of the builder. */
describe('a model', () => {
  const all = (fields: Field[], number: number) => fields.filter((field) => field.number === number);
  const message = (field: Field) => fieldsOf(field.bytes);

  function build() {
    const [graph, x, w] = graphOf(['float32', [2, 3]], ['float32', [3]]);
    const y = ops.layerNorm(x!, w!, null, 0.25);
    graph.output('out', ops.softmax(ops.reshape(ops.add(y, graph.floats([1, -2, 0.5])), [6])));
    return fieldsOf(graph.toModel());
  }

  it('names IR version, producer and both operator sets', () => {
    const model = build();
    expect(first(model, 1).integer).toBe(8n);
    expect(text(first(model, 2))).toBe('zoetrope');
    const sets = all(model, 8).map(message);
    expect(sets.map((set) => [text(first(set, 1)), first(set, 2).integer])).toEqual([
      ['', 19n],
      ['com.microsoft', 1n],
    ]);
  });

  it('lists nodes with inputs, outputs and typed attributes', () => {
    const nodes = all(message(first(build(), 7)), 1).map(message);
    expect(nodes.map((node) => text(first(node, 4)))).toEqual(['LayerNormalization', 'Add', 'Reshape', 'Softmax']);
    expect(text(first(nodes[3]!, 2))).toBe('out');
    const [norm, add] = nodes as [Field[], Field[]];
    expect(all(norm, 1).map(text)).toEqual(['x0', 'x1', '']); // the missing bias stays as an empty name
    expect(all(add, 1).map(text)[0]).toBe(text(first(norm, 2)));
    const attributes = all(norm, 5).map(message);
    expect(attributes.map((attribute) => text(first(attribute, 1)))).toEqual(['axis', 'epsilon']);
    expect(first(attributes[0]!, 3).integer).toBe(BigInt.asUintN(64, -1n));
    expect(first(attributes[0]!, 20).integer).toBe(2n);
    expect(new DataView(first(attributes[1]!, 2).bytes.slice().buffer).getFloat32(0, true)).toBe(0.25);
    expect(first(attributes[1]!, 20).integer).toBe(1n);
  });

  it('holds constants as raw little-endian data', () => {
    const [floats, shape] = all(message(first(build(), 7)), 5).map(message) as [Field[], Field[]];
    expect(first(floats, 2).integer).toBe(1n);
    expect(packedIntegers(first(floats, 1))).toEqual([3n]);
    expect([...new Float32Array(first(floats, 9).bytes.slice().buffer)]).toEqual([1, -2, 0.5]);
    expect(first(shape, 2).integer).toBe(7n);
    expect([...new BigInt64Array(first(shape, 9).bytes.slice().buffer)]).toEqual([6n]);
  });

  it('declares inputs and outputs with their types and sizes', () => {
    const graph = message(first(build(), 7));
    const describeValue = (field: Field) => {
      const info = message(field);
      const tensor = message(first(message(first(info, 2)), 1));
      const sizes = all(message(first(tensor, 2)), 1).map((size) => Number(first(message(size), 1).integer));
      return [text(first(info, 1)), Number(first(tensor, 1).integer), sizes];
    };
    expect(all(graph, 11).map(describeValue)).toEqual([
      ['x0', 1, [2, 3]],
      ['x1', 1, [3]],
    ]);
    expect(all(graph, 12).map(describeValue)).toEqual([['out', 1, [6]]]);
  });

  it('refuses a name twice', () => {
    const [graph, x] = graphOf(['float32', [2]]);
    expect(() => graph.input('x0', 'float32', [2])).toThrow('input "x0" exists already');
    graph.output('y', x!);
    expect(() => graph.output('y', x!)).toThrow('output "y" exists already');
  });
});
