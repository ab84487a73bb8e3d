import { ZoetropeError } from '../errors';
import type { Attribute, Signature, Value } from './graph';

/**
 * ONNX operators as functions from values to values. Types and shapes are checked at the call, so a stack trace names
 * the line of the model that is wrong. Only forms that onnxruntime-web's WebGPU provider runs on the GPU are here.
 */

function fail(op: string, message: string): never {
  throw new ZoetropeError('internal', `${op}: ${message}`);
}

function one(
  type: string,
  inputs: (Value | null)[],
  output: Signature,
  attributes?: Record<string, Attribute>,
  domain?: string,
): Value {
  return inputs[0]!.graph.node(type, inputs, [output], attributes, domain)[0]!;
}

/** NumPy broadcasting of two shapes. */
export function broadcast(a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, axis) => {
    const x = a[axis - rank + a.length] ?? 1;
    const y = b[axis - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) fail('broadcast', `shapes [${a}] and [${b}] do not fit`);
    return Math.max(x, y);
  });
}

function elementwise(type: string, a: Value, b: Value): Value {
  if (a.dtype !== b.dtype) fail(type, `types ${a.dtype} and ${b.dtype} differ`);
  return one(type, [a, b], { dtype: a.dtype, shape: broadcast(a.shape, b.shape) });
}

/** a + b, broadcast. */
export const add = (a: Value, b: Value): Value => elementwise('Add', a, b);
/** a - b, broadcast. */
export const sub = (a: Value, b: Value): Value => elementwise('Sub', a, b);
/** a * b, broadcast. */
export const mul = (a: Value, b: Value): Value => elementwise('Mul', a, b);

const unary = (type: string, x: Value, attributes?: Record<string, Attribute>): Value =>
  one(type, [x], { dtype: x.dtype, shape: x.shape }, attributes);

/** Logistic function. */
export const sigmoid = (x: Value): Value => unary('Sigmoid', x);
/** x * sigmoid(x). */
export const silu = (x: Value): Value => mul(x, sigmoid(x));
/**
 * GELU in its tanh form, 0.5x(1 + tanh(sqrt(2/pi)(x + 0.044715x^3))): com.microsoft's FastGelu, as the Gelu of the
 * default domain exists from opset 20 on only.
 */
export const geluTanh = (x: Value): Value =>
  one('FastGelu', [x], { dtype: x.dtype, shape: x.shape }, undefined, 'com.microsoft');
/** Softmax over the last axis. */
export const softmax = (x: Value): Value => unary('Softmax', x, { axis: -1 });

/** Refuses an axis that `x` does not have; negative ones too. */
function requireAxis(op: string, x: Value, axis: number): void {
  if (x.shape[axis] === undefined) fail(op, `axis ${axis} of [${x.shape}]`);
}

/** Refuses a vector along the last axis of `x` that has another length. */
function requireLast(op: string, x: Value, vector: Value): void {
  if (vector.shape.length !== 1 || vector.shape[0] !== x.shape.at(-1)) fail(op, `[${x.shape}] with [${vector.shape}]`);
}

/** Same elements, other shape. */
export function reshape(x: Value, shape: readonly number[]): Value {
  const count = (dims: readonly number[]) => dims.reduce((product, size) => product * size, 1);
  if (count(shape) !== count(x.shape)) fail('Reshape', `[${x.shape}] has not the elements of [${shape}]`);
  return one('Reshape', [x, x.graph.integers(shape)], { dtype: x.dtype, shape });
}

/** Axes in a new order: output axis i is input axis `order[i]`. */
export function transpose(x: Value, order: readonly number[]): Value {
  const sorted = [...order].sort((a, b) => a - b);
  if (order.length !== x.shape.length || sorted.some((axis, i) => axis !== i))
    fail('Transpose', `[${x.shape}] has ${x.shape.length} axes, got order [${order}]`);
  return one('Transpose', [x], { dtype: x.dtype, shape: order.map((axis) => x.shape[axis]!) }, { perm: order });
}

/** Elements `begin` to `end` (exclusive) of one axis. */
export function slice(x: Value, axis: number, begin: number, end: number): Value {
  requireAxis('Slice', x, axis);
  if (begin < 0 || end > x.shape[axis]! || begin >= end)
    fail('Slice', `${begin}..${end} of axis ${axis} of [${x.shape}]`);
  const ints = (n: number) => x.graph.integers([n]);
  const shape = x.shape.map((size, i) => (i === axis ? end - begin : size));
  return one('Slice', [x, ints(begin), ints(end), ints(axis)], { dtype: x.dtype, shape });
}

/** Values one after the other along an axis. */
export function concat(values: Value[], axis: number): Value {
  const first = values[0]!;
  requireAxis('Concat', first, axis);
  const size = values.reduce((sum, value) => sum + value.shape[axis]!, 0);
  for (const value of values) {
    const fits = value.dtype === first.dtype && value.shape.length === first.shape.length;
    if (!fits || value.shape.some((n, i) => i !== axis && n !== first.shape[i]))
      fail('Concat', `[${value.shape}] ${value.dtype} beside [${first.shape}] ${first.dtype}`);
  }
  return one(
    'Concat',
    values,
    { dtype: first.dtype, shape: first.shape.map((n, i) => (i === axis ? size : n)) },
    { axis },
  );
}

/** Matrix product over the last two axes. */
export function matmul(a: Value, b: Value): Value {
  const [m, k] = a.shape.slice(-2);
  const [k2, n] = b.shape.slice(-2);
  if (k !== k2 || a.dtype !== b.dtype) fail('MatMul', `[${a.shape}] ${a.dtype} times [${b.shape}] ${b.dtype}`);
  return one('MatMul', [a, b], {
    dtype: a.dtype,
    shape: [...broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2)), m!, n!],
  });
}

/** Rows of `table` [rows, ...] at `indices`. */
export function gather(table: Value, indices: Value): Value {
  if (indices.dtype !== 'int32' && indices.dtype !== 'int64') fail('Gather', `indices of type ${indices.dtype}`);
  requireAxis('Gather', table, 0);
  return one(
    'Gather',
    [table, indices],
    { dtype: table.dtype, shape: [...indices.shape, ...table.shape.slice(1)] },
    { axis: 0 },
  );
}

/** Sum over one axis, which stays as size 1. */
export function reduceSum(x: Value, axis: number): Value {
  requireAxis('ReduceSum', x, axis);
  return one('ReduceSum', [x, x.graph.integers([axis])], {
    dtype: x.dtype,
    shape: x.shape.map((size, i) => (i === axis ? 1 : size)),
  });
}

/** LayerNormalization over the last axis, weight and bias of its length. */
export function layerNorm(x: Value, weight: Value, bias: Value | null, eps: number): Value {
  requireLast('LayerNormalization', x, weight);
  if (bias) requireLast('LayerNormalization', x, bias);
  return one(
    'LayerNormalization',
    [x, weight, bias],
    { dtype: x.dtype, shape: x.shape },
    { axis: -1, epsilon: { float: eps } },
  );
}

/** x / sqrt(mean(x^2) + eps) * weight over the last axis; ONNX Runtime's name for RMSNorm at these opsets. */
export function rmsNorm(x: Value, weight: Value, eps: number): Value {
  requireLast('SimplifiedLayerNormalization', x, weight);
  return one(
    'SimplifiedLayerNormalization',
    [x, weight],
    { dtype: x.dtype, shape: x.shape },
    { axis: -1, epsilon: { float: eps } },
  );
}

/** 2-D convolution, NCHW, stride 1, zero padding `pad` on every side; weight [out, in, kh, kw]. */
export function conv2d(x: Value, weight: Value, bias: Value, pad: number): Value {
  const [batch, channels, height, width] = x.shape;
  const [out, into, kh, kw] = weight.shape;
  const shape = [batch!, out!, height! + 2 * pad - kh! + 1, width! + 2 * pad - kw! + 1];
  const ranks = x.shape.length === 4 && weight.shape.length === 4 && bias.shape.length === 1;
  if (!ranks || channels !== into || bias.shape[0] !== out || shape[2]! < 1 || shape[3]! < 1)
    fail('Conv', `[${x.shape}] with weight [${weight.shape}], bias [${bias.shape}] and padding ${pad}`);
  return one(
    'Conv',
    [x, weight, bias],
    { dtype: x.dtype, shape },
    { kernel_shape: [kh!, kw!], pads: [pad, pad, pad, pad] },
  );
}

/** How {@link convolution} moves over its input. */
export interface ConvolutionForm {
  stride: number;
  /** Channels are cut into so many groups, each with filters of its own. */
  group: number;
  /** Zeros before and after each axis: top, left, bottom, right. */
  pads: readonly [number, number, number, number];
}

/** 2-D convolution, NCHW, with stride, groups and sides of their own; weight [out, in / group, kh, kw]. */
export function convolution(x: Value, weight: Value, bias: Value, { stride, group, pads }: ConvolutionForm): Value {
  const [batch, channels, height, width] = x.shape;
  const [out, into, kh, kw] = weight.shape;
  const side = (size: number, padding: number, kernel: number) => Math.floor((size + padding - kernel) / stride) + 1;
  const shape = [batch!, out!, side(height!, pads[0] + pads[2], kh!), side(width!, pads[1] + pads[3], kw!)];
  const ranks = x.shape.length === 4 && weight.shape.length === 4 && bias.shape.length === 1;
  if (!ranks || channels !== into! * group || out! % group !== 0 || bias.shape[0] !== out || Math.min(...shape) < 1)
    fail('Conv', `[${x.shape}] with weight [${weight.shape}], bias [${bias.shape}] in ${group} groups`);
  return one(
    'Conv',
    [x, weight, bias],
    { dtype: x.dtype, shape },
    { kernel_shape: [kh!, kw!], strides: [stride, stride], group, pads },
  );
}

/** Values outside `min` to `max` become those. */
export const clip = (x: Value, min: number, max: number): Value =>
  one('Clip', [x, x.graph.floats([min], []), x.graph.floats([max], [])], { dtype: x.dtype, shape: x.shape });

/** Mean over height and width of NCHW, which stay as size 1. */
export function averagePictures(x: Value): Value {
  if (x.shape.length !== 4) fail('GlobalAveragePool', `[${x.shape}] is not NCHW`);
  return one('GlobalAveragePool', [x], { dtype: x.dtype, shape: [x.shape[0]!, x.shape[1]!, 1, 1] });
}

/** A linear layer's weight as graph inputs: torch's [rows, columns] matrix, plain or in quantised blocks. */
export interface LinearWeight {
  rows: number;
  columns: number;
  /** 32: float32 matrix; 8 and 4: blocks of 32, see `manifest.ts`. */
  bits: 32 | 8 | 4;
  matrix: Value;
  scales: Value | null;
  zeroPoints: Value | null;
  bias: Value | null;
}

/** A matrix whose rows are spread over several inputs, since one buffer must not be larger than a device's binding. */
export interface SplitWeight {
  /** Consecutive rows, without a bias of their own. */
  parts: readonly LinearWeight[];
  /** [rows of all parts]. */
  bias: Value | null;
}

/** x [tokens, columns] -> [tokens, rows]: y = x W^T + b, by the kernel that fits the weight's storage. */
export function linear(x: Value, weight: LinearWeight | SplitWeight): Value {
  if ('parts' in weight) {
    const y = concat(
      weight.parts.map((part) => linear(x, part)),
      1,
    );
    return weight.bias ? add(y, weight.bias) : y;
  }
  const { rows, columns, bits, matrix, scales, zeroPoints, bias } = weight;
  const [tokens, width] = x.shape;
  if (x.shape.length !== 2 || width !== columns) fail('linear', `[${x.shape}] times a [${rows},${columns}] matrix`);
  if (matrix.shape[0] !== rows || (bias && bias.shape[0] !== rows))
    fail('linear', `a [${rows},${columns}] matrix as [${matrix.shape}] with bias [${bias?.shape ?? 'none'}]`);
  const output = { dtype: x.dtype, shape: [tokens!, rows] };
  if (bits === 32) return one('Gemm', bias ? [x, matrix, bias] : [x, matrix], output, { transB: 1 });
  // accuracy_level 0: float products. Level 4 would round activations to 8 bits (error up to 5e-3 of the maximum).
  const attributes = { K: columns, N: rows, bits, block_size: 32, accuracy_level: 0 };
  return one('MatMulNBits', [x, matrix, scales, zeroPoints, null, bias], output, attributes, 'com.microsoft');
}
