import { ZoetropeError } from '../errors';
import { Graph, type Value } from '../onnx/graph';
import { add, averagePictures, clip, convolution, matmul, mul, reshape, softmax, sub } from '../onnx/ops';

/** Turns a TensorFlow.js graph model of MobileNetV2's operators into one of our graphs. Pure. */

interface TfNode {
  name: string;
  op: string;
  input?: string[];
  attr?: {
    strides?: { list: { i: string[] } };
    padding?: { s: string };
    fused_ops?: { list: { s: string[] } };
  };
}

interface TfWeight {
  name: string;
  shape: number[];
  dtype: string;
  quantization: { dtype: 'uint8'; scale: number; min: number };
}

/** `model.json` as far as it is read. */
export interface TfModel {
  modelTopology: { node: TfNode[] };
  weightsManifest: { paths: string[]; weights: TfWeight[] }[];
}

/** A constant: its values in TensorFlow's order. */
interface Constant {
  shape: readonly number[];
  values: Float32Array;
}

/** Input of the graph: a picture's colours, 0 to 1, [1, 3, size, size]. */
export const PICTURE = 'picture';
/** Output of the graph: a probability for each class. */
export const PROBABILITIES = 'probabilities';

function refuse(why: string): never {
  throw new ZoetropeError(
    'bad-checkpoint',
    `The picture classifier cannot be read: ${why}. Use the files as published.`,
  );
}

/** Every tensor of the files, which hold one byte a value: value = byte * scale + min. */
function constantsOf(model: TfModel, bytes: Uint8Array): Map<string, Constant> {
  const constants = new Map<string, Constant>();
  let at = 0;
  for (const { name, shape, dtype, quantization } of model.weightsManifest.flatMap(({ weights }) => weights)) {
    if (dtype !== 'float32' || quantization?.dtype !== 'uint8') refuse(`"${name}" is not quantised to 8 bits`);
    const count = shape.reduce((product, size) => product * size, 1);
    if (at + count > bytes.length) refuse(`the weights end inside "${name}"`);
    const values = Float32Array.from(
      bytes.subarray(at, at + count),
      (byte) => byte * quantization.scale + quantization.min,
    );
    constants.set(name, { shape, values });
    at += count;
  }
  if (at !== bytes.length) refuse(`${bytes.length - at} bytes of the weights belong to no tensor`);
  return constants;
}

/** Axes in a new order: output axis i is input axis `order[i]`. */
function permute({ shape, values }: Constant, order: readonly number[]): Constant {
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));
  const sizes = order.map((axis) => shape[axis]!);
  const out = new Float32Array(values.length);
  const index = sizes.map(() => 0);
  for (let i = 0; i < out.length; i++) {
    out[i] = values[index.reduce((sum, position, axis) => sum + position * strides[order[axis]!]!, 0)]!;
    for (let axis = sizes.length - 1; axis >= 0 && ++index[axis]! === sizes[axis]; axis--) index[axis] = 0;
  }
  return { shape: sizes, values: out };
}

/** Zeros that SAME padding puts before and after an axis: the smaller half comes first. */
export function samePadding(size: number, kernel: number, stride: number): [before: number, after: number] {
  const total = Math.max((Math.ceil(size / stride) - 1) * stride + kernel - size, 0);
  return [total >> 1, total - (total >> 1)];
}

/**
 * The graph of a classifier, weights included.
 *
 * @param size side of the pictures that it takes.
 * Throws `bad-checkpoint` for operators that MobileNetV2 does not have, and for weights of another length.
 */
export function pictureGraph(model: TfModel, weights: Uint8Array, size: number): Graph {
  const constants = constantsOf(model, weights);
  const graph = new Graph('picture classifier');
  const values = new Map<string, Value>();
  const constant = (name: string) => constants.get(name) ?? refuse(`there is no constant "${name}"`);
  const put = ({ values, shape }: Constant) => graph.floats(values, shape);
  const value = (name: string) => values.get(name) ?? put(constant(name));
  for (const node of model.modelTopology.node) {
    if (node.op === 'Const') continue;
    const made = convert(node, graph, size, { value, constant, put });
    values.set(node.name, made);
    if (node.op === 'Softmax') graph.output(PROBABILITIES, made);
  }
  return graph;
}

interface Names {
  value(name: string): Value;
  constant(name: string): Constant;
  put(constant: Constant): Value;
}

function convert({ op, name, input = [], attr = {} }: TfNode, graph: Graph, size: number, names: Names): Value {
  const [x, weight, bias] = input;
  switch (op) {
    case 'Placeholder':
      return graph.input(PICTURE, 'float32', [1, 3, size, size]);
    case 'Mul':
      return mul(names.value(x!), names.value(weight!));
    case 'Sub':
      return sub(names.value(x!), names.value(weight!));
    case 'AddV2':
      return add(names.value(x!), names.value(weight!));
    case '_FusedConv2D':
    case 'FusedDepthwiseConv2dNative': {
      const data = names.value(x!);
      const depthwise = op !== '_FusedConv2D';
      // TensorFlow has [h, w, in, out], and [h, w, channels, 1] where every channel has its own filter.
      const filter = permute(names.constant(weight!), depthwise ? [2, 3, 0, 1] : [3, 2, 0, 1]);
      const stride = Number(attr.strides?.list.i[1]);
      if (decode(attr.padding?.s) !== 'SAME') refuse(`"${name}" has ${decode(attr.padding?.s)} padding`);
      const [top, bottom] = samePadding(data.shape[2]!, filter.shape[2]!, stride);
      const [left, right] = samePadding(data.shape[3]!, filter.shape[3]!, stride);
      const group = depthwise ? filter.shape[0]! : 1;
      const y = convolution(data, names.put(filter), names.value(bias!), {
        stride,
        group,
        pads: [top, left, bottom, right],
      });
      const fused = attr.fused_ops?.list.s.map(decode) ?? [];
      if (fused[0] !== 'BiasAdd' || fused.some((each) => each !== 'BiasAdd' && each !== 'Relu6'))
        refuse(`"${name}" fuses ${fused}`);
      return fused.includes('Relu6') ? clip(y, 0, 6) : y;
    }
    case 'AvgPool':
      return averagePictures(names.value(x!)); // over all that is left of the picture
    case 'Squeeze': {
      const data = names.value(x!);
      return reshape(data, [data.shape[0]!, data.shape[1]!]);
    }
    case '_FusedMatMul':
      return add(matmul(names.value(x!), names.value(weight!)), names.value(bias!));
    case 'Softmax':
      return softmax(names.value(x!));
    case 'Identity':
      return names.value(x!);
    default:
      return refuse(`the operator ${op} of "${name}" is not MobileNetV2's`);
  }
}

/** TensorFlow.js writes strings in base64. */
function decode(text = ''): string {
  return atob(text);
}
