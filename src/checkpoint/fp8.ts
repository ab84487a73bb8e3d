import { shown, ZoetropeError } from '../errors';
import { decodeFloats, isFloatDtype } from '../floats';
import { DTYPE_BYTES, type FileDtype, type RangedTensorSource, type TensorEntry, tensorBytes } from '../manifest';
import type { FileTensor } from './file-tensor';
import { parseObject } from './json';

/**
 * Weights of one byte a value with a scale beside them: ComfyUI's fp8_scaled (`comfy/ops.py`: one scale a matrix),
 * LightX2V's fp8 and int8 (`tools/convert`: one a row), and plain fp8 casts without a scale.
 */

/** Dtypes of one byte a value. */
type ByteDtype = 'F8_E4M3' | 'F8_E5M2' | 'I8';

/**
 * Names under which the scale of `X.weight` is found: ComfyUI's older one, then that of later versions and of LightX2V.
 */
const SCALE_SUFFIXES = ['.scale_weight', '.weight_scale'] as const;
/** Beside a weight, for other kernels than ours: scales of activations, and what a layer's bytes are. */
const ACTIVATION_SUFFIXES = ['.scale_input', '.input_scale'] as const;
const LAYER_FORMAT_SUFFIX = '.comfy_quant';
/** Marks a ComfyUI file whose fp8 weights all have scales. */
const MARKER = 'scaled_fp8';
/** Longest description of a layer that is read; real ones have some 30 bytes. */
const MAX_LAYER_FORMAT_BYTES = 4096;

/** Values of the 256 bytes of E4M3 "fn": exponent bias 7, no infinities, 0x7F and 0xFF not numbers. */
function e4m3(byte: number): number {
  const sign = byte & 0x80 ? -1 : 1;
  const field = (byte >> 3) & 15;
  const mantissa = byte & 7;
  if ((byte & 0x7f) === 0x7f) return NaN;
  return sign * (field === 0 ? mantissa * 2 ** -9 : (8 + mantissa) * 2 ** (field - 10));
}

/** Values of the 256 bytes of E5M2, the upper byte of an f16. */
function e5m2(byte: number): number {
  const sign = byte & 0x80 ? -1 : 1;
  const field = (byte >> 2) & 31;
  const mantissa = byte & 3;
  if (field === 31) return mantissa === 0 ? sign * Infinity : NaN;
  return sign * (field === 0 ? mantissa * 2 ** -16 : (4 + mantissa) * 2 ** (field - 17));
}

const VALUE_OF: Readonly<Record<ByteDtype, (byte: number) => number>> = {
  F8_E4M3: e4m3,
  F8_E5M2: e5m2,
  I8: (byte) => (byte << 24) >> 24,
};

const TABLES = new Map<ByteDtype, Float32Array>();

/** Value of every byte of a dtype, before scaling; made once, because a file may list thousands of such tensors. */
export function byteValues(dtype: ByteDtype): Float32Array {
  let table = TABLES.get(dtype);
  if (!table) {
    table = Float32Array.from({ length: 256 }, (_, byte) => VALUE_OF[dtype](byte));
    TABLES.set(dtype, table);
  }
  return table;
}

function isByteDtype(dtype: FileDtype): dtype is ByteDtype {
  return dtype === 'F8_E4M3' || dtype === 'F8_E5M2' || dtype === 'I8';
}

/** The scale's tensor: one value, or one for each row. */
function checkScale(name: string, entry: TensorEntry, rows: number, what: string): 'matrix' | 'row' {
  const count = entry.shape.reduce((product, size) => product * size, 1);
  if (isFloatDtype(entry.dtype) && count === 1) return 'matrix';
  const [first, second = 1] = entry.shape;
  if (isFloatDtype(entry.dtype) && entry.shape.length <= 2 && first === rows && second === 1) return 'row';
  throw new ZoetropeError(
    'bad-checkpoint',
    `${what}: the scale "${name}" is of ${entry.dtype} [${entry.shape}]; expected one float or one for each of ${rows} rows. Other block formats are not read: use the fp8_scaled, fp16 or GGUF file.`,
  );
}

async function checkLayerFormat(source: RangedTensorSource, name: string, what: string): Promise<void> {
  const entry = source.entries.get(name)!;
  const refuse = (why: string): never => {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what}: "${name}" ${why}. Read are float8_e4m3fn and float8_e5m2; use the fp8_scaled, fp16 or GGUF file.`,
    );
  };
  if (entry.dtype !== 'U8' || tensorBytes(entry) > MAX_LAYER_FORMAT_BYTES)
    refuse(`is of ${entry.dtype} [${entry.shape}]`);
  const { format } = parseObject(await source.read(name), `${what}: "${name}"`);
  if (format !== 'float8_e4m3fn' && format !== 'float8_e5m2') refuse(`says the format ${shown(format)}`);
}

/** A weight of one byte a value; its scales are read once, when the first values are. */
function scaledTensor(
  source: RangedTensorSource,
  name: string,
  scale: { name: string; per: 'matrix' | 'row' } | undefined,
): FileTensor {
  const { dtype, shape } = source.entries.get(name)!;
  const table = byteValues(dtype as ByteDtype);
  const rowLength = shape.slice(1).reduce((product, size) => product * size, 1);
  let scales: Promise<Float32Array> | undefined;
  const readScales = async () => {
    if (!scale) return Float32Array.of(1);
    const entry = source.entries.get(scale.name)!;
    return decodeFloats(await source.read(scale.name), entry.dtype as 'F32');
  };
  return {
    shape,
    storage: scale ? `${dtype} scaled by ${scale.per}` : dtype,
    sizeBytes: tensorBytes({ dtype, shape }) + (scale ? tensorBytes(source.entries.get(scale.name)!) : 0),
    async readFloats(begin, end) {
      scales ??= readScales();
      scales.catch(() => (scales = undefined));
      const factors = await scales;
      const bytes = await source.readRange(name, begin, end);
      const values = new Float32Array(bytes.length);
      if (factors.length === 1) {
        const factor = factors[0]!;
        for (let i = 0; i < bytes.length; i++) values[i] = table[bytes[i]!]! * factor;
        return values;
      }
      for (let i = 0; i < bytes.length; i++) {
        values[i] = table[bytes[i]!]! * factors[Math.floor((begin + i) / rowLength)]!;
      }
      return values;
    },
  };
}

/**
 * The tensors of a safetensors source by name, with one-byte weights joined to their scales, and without the markers
 * and activation scales that only other runtimes use. Throws `bad-checkpoint` for scales of a form that is not read,
 * for I8 without a scale, and for fp8 without one in a file whose marker says that there is one.
 */
export async function safetensorsTensors(source: RangedTensorSource, what: string): Promise<Map<string, FileTensor>> {
  const tensors = new Map<string, FileTensor>();
  const used = new Set<string>();
  const marked = [...source.entries.keys()].some((name) => name === MARKER || name.endsWith(`.${MARKER}`));
  for (const [name, { dtype, shape }] of source.entries) {
    if (isByteDtype(dtype) && name.endsWith('.weight')) {
      const owner = name.slice(0, -'.weight'.length);
      const scaleName = SCALE_SUFFIXES.map((suffix) => owner + suffix).find((candidate) =>
        source.entries.has(candidate),
      );
      if (scaleName === undefined && (marked || dtype === 'I8')) {
        throw new ZoetropeError(
          'bad-checkpoint',
          `${what}: "${name}" is of ${dtype} and has no scale beside it (${SCALE_SUFFIXES.map((suffix) => owner + suffix).join(' or ')}). Download the file again, or use another of the same release.`,
        );
      }
      if (scaleName !== undefined) used.add(scaleName);
      const scale = scaleName && {
        name: scaleName,
        per: checkScale(scaleName, source.entries.get(scaleName)!, shape[0] ?? 1, what),
      };
      tensors.set(name, scaledTensor(source, name, scale || undefined));
      const format = owner + LAYER_FORMAT_SUFFIX;
      if (source.entries.has(format)) {
        await checkLayerFormat(source, format, what);
        used.add(format);
      }
    }
  }
  for (const [name, entry] of source.entries) {
    if (tensors.has(name) || used.has(name) || name === MARKER || name.endsWith(`.${MARKER}`)) continue;
    if (ACTIVATION_SUFFIXES.some((suffix) => name.endsWith(suffix))) continue;
    // A plain cast of a whole model leaves biases, norms and modulation in fp8 too.
    const cast = entry.dtype === 'F8_E4M3' || entry.dtype === 'F8_E5M2';
    tensors.set(name, cast ? scaledTensor(source, name, undefined) : plainTensor(source, name, entry));
  }
  return tensors;
}

/** A tensor of plain floats. Of another dtype it stays listed, and is refused when a model needs its values. */
function plainTensor(source: RangedTensorSource, name: string, { dtype, shape }: TensorEntry): FileTensor {
  const size = DTYPE_BYTES[dtype];
  return {
    shape,
    storage: dtype,
    sizeBytes: tensorBytes({ dtype, shape }),
    ...(isFloatDtype(dtype) && {
      readFloats: async (begin: number, end: number) =>
        decodeFloats(await source.readRange(name, begin * size, end * size), dtype),
    }),
    readBytes: () => source.read(name),
  };
}
