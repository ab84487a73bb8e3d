import { ZoetropeError } from '../errors';
import { decodeFloats, refuseNonFinite } from '../floats';
import type { ByteSource } from '../manifest';

/** First line of a `.param` file. */
const MAGIC = '7767517';
/** Tag of a record whose weights are 16-bit floats (ncnn, `src/modelbin.cpp`). */
const TAG_F16 = 0x01306b47;
/** Largest `.param` and `.bin` read; those of RIFE have 17 kB and 11 MB. */
const MAX_PARAM_BYTES = 1024 * 1024;
const MAX_BIN_BYTES = 256 * 1024 * 1024;
/** Layers that bring weights, of the types that occur here. */
const WEIGHTED = ['Convolution', 'Deconvolution'];

/** One line of a `.param` file. */
export interface NcnnLayer {
  type: string;
  name: string;
  inputs: string[];
  outputs: string[];
  /** By key; arrays by their key too, e.g. 10 for `-23310=1,0.2`. */
  params: ReadonlyMap<number, number | readonly number[]>;
}

/** Weights of a layer. */
export interface NcnnRecord {
  layer: NcnnLayer;
  /** [out, into, kernel, kernel] for convolutions, transposed ones included. */
  shape: [out: number, into: number, kernelHeight: number, kernelWidth: number];
  weight: Float32Array;
  /** [out]. */
  bias: Float32Array;
}

type Refuse = (why: string) => never;

function refusal(what: string): Refuse {
  return (why) => {
    throw new ZoetropeError('bad-checkpoint', `${what}: ${why}. Use the files of one complete release.`);
  };
}

function parseParams(fields: readonly string[], refuse: Refuse): NcnnLayer['params'] {
  const params = new Map<number, number | readonly number[]>();
  const number = (text: string): number => {
    // No two parts of the pattern fit the same digits, so that a long one costs no more than its length.
    const value = /^[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
    return Number.isFinite(value) ? value : refuse(`"${text.slice(0, 40)}" is no number`);
  };
  for (const field of fields) {
    const match = /^(-?\d+)=(.+)$/.exec(field);
    if (!match) refuse(`"${field.slice(0, 40)}" is no parameter`);
    const id = Number(match![1]);
    const key = id <= -23300 ? -id - 23300 : id;
    if (key < 0 || params.has(key)) refuse(`parameter ${id} is unknown or there twice`);
    if (id > -23300) {
      params.set(key, number(match![2]!));
      continue;
    }
    const [count, ...values] = match![2]!.split(',').map(number);
    if (count !== values.length) refuse(`the array ${field.slice(0, 40)} states ${count} values`);
    params.set(key, values);
  }
  return params;
}

/**
 * Parses ncnn's text graph. Every blob is made before it is read, by one layer, and read at most once, as ncnn's
 * `Split` layers ensure. Throws `bad-checkpoint` with the number of the line.
 */
export function parseNcnnParam(text: string, what: string): NcnnLayer[] {
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  while (lines.at(-1) === '') lines.pop();
  if (lines[0] !== MAGIC) refusal(what)(`it does not begin with ${MAGIC}, so it is no ncnn graph`);
  const counts = /^(\d+) (\d+)$/.exec(lines[1] ?? '');
  if (!counts) refusal(what)('the second line must state the counts of layers and blobs');
  const made = new Set<string>();
  const read = new Set<string>();
  const layers = lines.slice(2).map((line, index): NcnnLayer => {
    const refuse = refusal(`${what}, line ${index + 3}`);
    const [type, name, ins, outs, ...rest] = line.split(/\s+/);
    const [inputCount, outputCount] = [Number(ins), Number(outs)];
    const whole = (count: number) => Number.isInteger(count) && count >= 0 && count <= rest.length;
    if (!type || !name || !whole(inputCount) || !whole(outputCount) || inputCount + outputCount > rest.length) {
      return refuse('a layer has type, name, two counts and as many blobs');
    }
    const inputs = rest.slice(0, inputCount);
    const outputs = rest.slice(inputCount, inputCount + outputCount);
    for (const blob of inputs) {
      if (!made.has(blob) || read.has(blob)) refuse(`"${blob}" is not there, or is read a second time`);
      read.add(blob);
    }
    for (const blob of outputs) {
      if (made.has(blob)) refuse(`"${blob}" is made a second time`);
      made.add(blob);
    }
    return { type, name, inputs, outputs, params: parseParams(rest.slice(inputCount + outputCount), refuse) };
  });
  if (layers.length !== Number(counts![1]) || made.size !== Number(counts![2])) {
    refusal(what)(`it states ${counts![1]} layers and ${counts![2]} blobs and has ${layers.length} and ${made.size}`);
  }
  return layers;
}

/** A whole-number parameter of a layer. */
export function ncnnInteger(layer: NcnnLayer, key: number, missing: number): number {
  const value = layer.params.get(key) ?? missing;
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : Number.NaN;
}

/**
 * Reads the graph's weights, which follow each other without names in the order of their layers: half-precision
 * convolutions with biases. Throws `bad-checkpoint` for other storage, NaN and infinities, a wrong length and layers
 * that do not add up.
 */
export async function readNcnn(
  param: ByteSource,
  bin: ByteSource,
  what: string,
): Promise<{ layers: NcnnLayer[]; records: NcnnRecord[] }> {
  const refuse = refusal(what);
  if (param.sizeBytes > MAX_PARAM_BYTES || bin.sizeBytes > MAX_BIN_BYTES) {
    refuse(`the graph has ${param.sizeBytes} bytes and the weights ${bin.sizeBytes}, more than any of these networks`);
  }
  const layers = parseNcnnParam(new TextDecoder().decode(await param.read(0, param.sizeBytes)), what);
  const bytes = await bin.read(0, bin.sizeBytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const take = (count: number, name: string): Uint8Array => {
    if (at + count > bytes.length) refuse(`the weights end after ${bytes.length} bytes, inside "${name}"`);
    at += count;
    return bytes.subarray(at - count, at);
  };
  const records = layers
    .filter(({ type }) => WEIGHTED.includes(type))
    .map((layer): NcnnRecord => {
      const { name } = layer;
      const out = ncnnInteger(layer, 0, 0);
      const kernel = ncnnInteger(layer, 1, 0);
      const count = ncnnInteger(layer, 6, 0);
      const into = count / (out * kernel * kernel);
      if (!(out > 0) || !(kernel > 0) || !Number.isInteger(into) || into < 1 || ncnnInteger(layer, 5, 0) !== 1) {
        refuse(
          `"${name}" has ${out} outputs, a kernel of ${kernel} and ${count} weights; a biased convolution was expected`,
        );
      }
      const begin = at;
      take(4, name);
      const tag = view.getUint32(begin, true);
      if (tag !== TAG_F16) {
        refuse(`"${name}" begins with the tag 0x${tag.toString(16)}; only 16-bit floats (0x1306b47) are read`);
      }
      const weight = decodeFloats(take(2 * count, name), 'F16');
      take((4 - ((2 * count) % 4)) % 4, name);
      const bias = decodeFloats(take(4 * out, name), 'F32').slice();
      refuseNonFinite(weight, `${what} ${name}`, 0);
      refuseNonFinite(bias, `${what} ${name} bias`, 0);
      return { layer, shape: [out, into, kernel, kernel], weight, bias };
    });
  if (at !== bytes.length) refuse(`${bytes.length - at} bytes follow the last layer's weights`);
  return { layers, records };
}
