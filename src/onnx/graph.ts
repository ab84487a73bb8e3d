import { ZoetropeError } from '../errors';
import { planScratch, type ScratchPlan } from './scratch';
import { MessageWriter } from './wire';

/** Element types of graph values, by onnxruntime's names. */
export type DType = 'float32' | 'float16' | 'int32' | 'int64' | 'uint8' | 'bool';

/** TensorProto.DataType of onnx.proto. */
const TYPE_CODE: Record<DType, number> = { float32: 1, uint8: 2, int32: 6, int64: 7, bool: 9, float16: 10 };

/** Opset of the default domain. Above 19 several kernels that we use fall back to the CPU (onnxruntime-web 1.30). */
const OPSET = 19;

/** A tensor inside a graph: what an operator takes and gives. Shapes are static. */
export interface Value {
  readonly graph: Graph;
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Values an attribute may have: a whole number is an int, `{ float }` a float, lists are ints. */
export type Attribute = number | { float: number } | string | readonly number[];

/** A node: an operator with the values that it takes and gives. */
export interface GraphNode {
  readonly type: string;
  /** `null`: an optional input that is left out. */
  readonly inputs: readonly (Value | null)[];
  readonly outputs: readonly Value[];
  readonly attributes: Readonly<Record<string, Attribute>>;
  readonly domain: string;
}

/** Name, type and shape of a graph's input or output. */
export interface Signature {
  dtype: DType;
  shape: readonly number[];
}

/**
 * An ONNX graph under construction. Operators are functions in `ops.ts`; weights are inputs, so one graph serves every
 * block.
 */
export class Graph {
  /** Nodes in the order of their making, which is a topological one. */
  readonly nodes: GraphNode[] = [];
  private readonly initializers: MessageWriter[] = [];
  private count = 0;
  /** Inputs by name, in the order they were declared. */
  readonly inputs = new Map<string, Signature>();
  /** Outputs by name. */
  readonly outputs = new Map<string, Signature>();
  /** Values that are outputs, with the name that they have in the model. */
  private readonly outputNames = new Map<Value, string>();

  /** @param name shown by ONNX Runtime's logs and profiles. */
  constructor(readonly name: string) {}

  /** Declares a graph input. Weights are inputs too: GPU buffers bound at run time. */
  input(name: string, dtype: DType, shape: readonly number[]): Value {
    if (this.inputs.has(name))
      throw new ZoetropeError('internal', `Graph ${this.name}: input "${name}" exists already.`);
    this.inputs.set(name, { dtype, shape });
    return { graph: this, name, dtype, shape };
  }

  /** An int64 constant: axes, target shapes and the like, which ONNX Runtime wants in host memory. */
  integers(values: readonly number[]): Value {
    const data = new BigInt64Array(values.map(BigInt));
    return this.constant('int64', [values.length], new Uint8Array(data.buffer));
  }

  /** A float32 constant. */
  floats(values: ArrayLike<number>, shape: readonly number[] = [values.length]): Value {
    return this.constant('float32', shape, new Uint8Array(new Float32Array(values).buffer));
  }

  private constant(dtype: DType, shape: readonly number[], bytes: Uint8Array): Value {
    const name = `c${this.count++}`;
    this.initializers.push(
      new MessageWriter().integers(1, shape).integer(2, TYPE_CODE[dtype]).string(8, name).bytes(9, bytes),
    );
    return { graph: this, name, dtype, shape };
  }

  /** Appends a node with the given outputs. `null` inputs are left out (optional inputs of ONNX). */
  node(
    type: string,
    inputs: readonly (Value | null)[],
    outputs: readonly Signature[],
    attributes: Record<string, Attribute> = {},
    domain = '',
  ): Value[] {
    for (const input of inputs) {
      if (input && input.graph !== this) {
        throw new ZoetropeError(
          'internal',
          `Graph ${this.name}: ${type} takes "${input.name}" of ${input.graph.name}.`,
        );
      }
    }
    const values = outputs.map((signature) => ({ graph: this, name: `v${this.count++}`, ...signature }));
    this.nodes.push({ type, inputs, outputs: values, attributes, domain });
    return values;
  }

  /** Names a value as an output of the graph. */
  output(name: string, value: Value): void {
    if (this.outputs.has(name))
      throw new ZoetropeError('internal', `Graph ${this.name}: output "${name}" exists already.`);
    this.outputs.set(name, { dtype: value.dtype, shape: value.shape });
    // A node's result takes the output's name; anything else, and a second name, is copied by a node.
    const made = this.nodes.some(({ outputs }) => outputs.includes(value));
    if (made && !this.outputNames.has(value)) this.outputNames.set(value, name);
    else this.outputNames.set(this.node('Identity', [value], [value])[0]!, name);
  }

  /** Where the values between inputs and outputs lie. */
  scratch(): ScratchPlan<Value> {
    return planScratch(this.nodes, (value) => this.outputNames.has(value));
  }

  /**
   * The model as ONNX bytes.
   * @param exposeScratch the values of {@link scratch} become outputs too, under their own names.
   */
  toModel(exposeScratch = false): Uint8Array {
    const graph = new MessageWriter();
    for (const [index, node] of this.nodes.entries()) graph.message(1, this.nodeMessage(node, index));
    graph.string(2, this.name);
    for (const initializer of this.initializers) graph.message(5, initializer);
    for (const [name, signature] of this.inputs) graph.message(11, valueInfo(name, signature));
    for (const [name, signature] of this.outputs) graph.message(12, valueInfo(name, signature));
    const exposed = exposeScratch ? this.scratch().values : [];
    for (const { value } of exposed) graph.message(12, valueInfo(value.name, value));
    return new MessageWriter()
      .integer(1, 8)
      .string(2, 'zoetrope')
      .message(7, graph)
      .message(8, new MessageWriter().string(1, '').integer(2, OPSET))
      .message(8, new MessageWriter().string(1, 'com.microsoft').integer(2, 1))
      .finish();
  }

  private nodeMessage({ type, inputs, outputs, attributes, domain }: GraphNode, index: number): MessageWriter {
    const nameOf = (value: Value) => this.outputNames.get(value) ?? value.name;
    const message = new MessageWriter();
    for (const input of inputs) message.string(1, input ? nameOf(input) : '');
    for (const output of outputs) message.string(2, nameOf(output));
    message.string(3, `${type}_${index}`).string(4, type);
    for (const [name, value] of Object.entries(attributes)) message.message(5, attribute(name, value));
    return domain ? message.string(7, domain) : message;
  }
}

/** AttributeProto; field 20 is the type, which must agree with the field that holds the value. */
function attribute(name: string, value: Attribute): MessageWriter {
  const message = new MessageWriter().string(1, name);
  if (typeof value === 'number') return message.integer(3, value).integer(20, 2);
  if (typeof value === 'string') return message.string(4, value).integer(20, 3);
  if ('float' in value) return message.float(2, value.float).integer(20, 1);
  return message.integers(8, value as readonly number[]).integer(20, 7);
}

function valueInfo(name: string, { dtype, shape }: Signature): MessageWriter {
  const dims = new MessageWriter();
  for (const size of shape) dims.message(1, new MessageWriter().integer(1, size));
  const tensor = new MessageWriter().integer(1, TYPE_CODE[dtype]).message(2, dims);
  return new MessageWriter().string(1, name).message(2, new MessageWriter().message(1, tensor));
}
