import { throwIfAborted, ZoetropeError } from '../errors';
import { decodeFloats, isFloatDtype } from '../floats';
import {
  DTYPE_BYTES,
  type MatrixStorage,
  matrixStorage,
  partName,
  QUANT_BLOCK,
  SCALES_SUFFIX,
  type TensorEntry,
  type TensorSink,
  type TensorSource,
  tensorBytes,
  ZERO_POINTS_SUFFIX,
} from '../manifest';
import type { Gpu } from './device';
import type { GpuTensor, GpuType } from './memory';
import type { Staging } from './staging';

/**
 * A set of weights in GPU buffers, one buffer a tensor, bound as graph inputs by name. Floats are float32 whatever
 * their file holds: ONNX Runtime accumulates half products in half precision (1.30), which 5,120 terms do not bear.
 */
export class Weights implements Disposable {
  private readonly tensors = new Map<string, GpuTensor>();

  private constructor(
    private readonly gpu: Gpu,
    private entries: TensorSource['entries'],
    private readonly maxBindingBytes: number,
    private readonly staging: Staging | undefined,
  ) {}

  /**
   * Reads and uploads tensors one by one, slice by slice where the source can, so that no more than a slice is in the
   * heap. Frees what it made when it throws.
   * @param options.names default: every tensor of the source.
   * @param options.maxBindingBytes a matrix larger than this is split by rows. Default: what the device binds.
   * @param options.staging carries the bytes, then and in {@link reload}. Default: the device's queue.
   */
  static async upload(
    gpu: Gpu,
    source: TensorSource,
    options: {
      names?: Iterable<string>;
      signal?: AbortSignal | undefined;
      maxBindingBytes?: number | undefined;
      staging?: Staging;
    } = {},
  ): Promise<Weights> {
    const { maxStorageBufferBindingSize, maxBufferSize } = gpu.device.limits;
    const limit = options.maxBindingBytes ?? Math.min(maxStorageBufferBindingSize, maxBufferSize);
    const weights = new Weights(gpu, source.entries, limit, options.staging);
    try {
      for (const name of options.names ?? source.entries.keys()) {
        throwIfAborted(options.signal);
        const entry = source.entries.get(name);
        if (!entry)
          throw new ZoetropeError('bad-checkpoint', `Tensor "${name}" is missing. Import the checkpoint again.`);
        await weights.add(name, entry, source);
      }
      return weights;
    } catch (error) {
      weights[Symbol.dispose]();
      throw error;
    }
  }

  /** The weights whose names begin with `prefix`, under the rest of their names. */
  at(prefix: string): WeightView {
    return {
      tensor: (name) => this.tensor(prefix + name),
      storage: (name) => this.storage(prefix + name),
      feeds: (inputs, activations) => {
        const feeds: Record<string, GpuTensor> = {};
        for (const name of inputs.keys()) feeds[name] = activations[name] ?? this.tensor(prefix + name);
        return feeds;
      },
    };
  }

  /** Replaces every tensor's contents by those of `source`, in the same buffers where type and shape are the same. */
  async reload(source: TensorSource, signal?: AbortSignal): Promise<void> {
    this.entries = source.entries;
    const before = new Map(this.tensors);
    this.tensors.clear();
    try {
      for (const [name, entry] of source.entries) {
        throwIfAborted(signal);
        await this.add(name, entry, source, before);
      }
    } finally {
      for (const tensor of before.values()) tensor[Symbol.dispose]();
    }
  }

  private tensor(name: string): GpuTensor {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new ZoetropeError('internal', `Weight "${name}" is not loaded.`);
    return tensor;
  }

  private storage(name: string): GpuMatrixStorage {
    return gpuMatrixStorage(this.entries, name, this.maxBindingBytes);
  }

  /**
   * Puts a tensor on the GPU, a large matrix in parts and its scales and zero points along with it. Takes buffers from
   * `old`.
   */
  private async add(
    name: string,
    entry: TensorEntry,
    source: TensorSource,
    old?: Map<string, GpuTensor>,
  ): Promise<void> {
    const suffix = [SCALES_SUFFIX, ZERO_POINTS_SUFFIX].find((end) => name.endsWith(end)) ?? '';
    const owner = name.slice(0, name.length - suffix.length);
    const parts = partRows(this.entries.get(owner) ?? entry, this.maxBindingBytes);
    const rowBytes = tensorBytes(entry) / entry.shape[0]!;
    const whole = source.scan ? undefined : await source.read(name);
    let begin = 0;
    for (const [index, rows] of parts.entries()) {
      const part = parts.length === 1 ? name : partName(owner, index) + suffix;
      const end = begin + rows * rowBytes;
      const tensor = this.place(part, gpuType(name, entry), [rows, ...entry.shape.slice(1)], old);
      const put: TensorSink = (offset, bytes) => this.put(tensor, entry, offset, bytes);
      if (whole) await put(0, whole.subarray(begin, end));
      else await source.scan!(name, begin, end, put);
      begin = end;
    }
  }

  /** The buffer of a tensor: that of the same name, type and shape in `old`, or a new one. */
  private place(name: string, type: GpuType, shape: readonly number[], old?: Map<string, GpuTensor>): GpuTensor {
    const kept = old?.get(name);
    const same = kept?.type === type && String(kept.shape) === String(shape);
    if (same) old?.delete(name);
    const tensor = same ? kept : this.gpu.memory.tensor(name, type, shape);
    this.tensors.set(name, tensor);
    return tensor;
  }

  /** Writes part of a tensor; `offset` is that of its bytes in the file. */
  private async put(tensor: GpuTensor, { dtype }: TensorEntry, offset: number, bytes: Uint8Array): Promise<void> {
    const floats = isFloatDtype(dtype);
    const values = floats ? decodeFloats(bytes, dtype) : bytes;
    const at = floats ? (offset / DTYPE_BYTES[dtype]) * 4 : offset;
    if (this.staging) await this.staging.write(tensor, values, at);
    else this.gpu.memory.write(tensor, values, at);
  }

  /** Frees every buffer. */
  [Symbol.dispose](): void {
    for (const tensor of this.tensors.values()) tensor[Symbol.dispose]();
    this.tensors.clear();
  }
}

/** Weights under names of their own, e.g. those of one block: what a graph is built from and fed with. */
export interface WeightView {
  /** The tensor of that name. */
  tensor(name: string): GpuTensor;
  /** How matrix `name` lies on the GPU: 32-bit floats or quantised blocks. */
  storage(name: string): GpuMatrixStorage;
  /**
   * Feeds of a graph: the given activations, and the weight of that name for every other input. Graph inputs carry the
   * checkpoint's own names, so nothing is mapped twice.
   */
  feeds(inputs: ReadonlyMap<string, unknown>, activations: Record<string, GpuTensor>): Record<string, GpuTensor>;
}

/**
 * A network of equal blocks, wherever its weights are. A view of a block is good until the next block is asked for;
 * asking in order, over and over, lets a streamed one fetch ahead.
 */
export interface BlockWeights {
  /** Everything outside the blocks. */
  readonly outer: WeightView;
  /** Block `index`, on the GPU when it resolves. */
  block(index: number): Promise<WeightView>;
}

/** All blocks of `weights` at once; a block's names begin with `prefix` and its index. */
export function residentBlocks(weights: Weights, prefix: string): BlockWeights {
  return { outer: weights.at(''), block: async (index) => weights.at(`${prefix}${index}.`) };
}

/** {@link MatrixStorage} on the GPU, where half floats have become float32. */
export type GpuMatrixStorage = Omit<MatrixStorage, 'bits'> & { bits: 32 | 8 | 4; partRows: readonly number[] };

/** How matrix `name` of a component will lie on the GPU when no part of it may exceed `maxBindingBytes`. */
export function gpuMatrixStorage(
  entries: TensorSource['entries'],
  name: string,
  maxBindingBytes: number,
): GpuMatrixStorage {
  const storage = matrixStorage(entries, name);
  const bits = storage.bits === 16 ? 32 : storage.bits;
  return { ...storage, bits, partRows: partRows(entries.get(name)!, maxBindingBytes) };
}

/** Rows of the parts that a matrix is split into; one part where it fits a binding. */
function partRows(entry: TensorEntry, maxBindingBytes: number): number[] {
  return splitRows(entry.shape[0]!, gpuBytes(entry), maxBindingBytes);
}

/** Bytes of a tensor on the GPU. */
function gpuBytes({ dtype, shape }: TensorEntry): number {
  return shape.reduce((product, size) => product * size, dtype === 'U8' ? 1 : 4);
}

/**
 * Rows of each part of a matrix of `rows` rows and `sizeBytes` bytes when no part may exceed `limitBytes`: as few parts
 * as possible, of equal length but for the last.
 */
export function splitRows(rows: number, sizeBytes: number, limitBytes: number): number[] {
  const fitting = Math.max(1, Math.floor(limitBytes / (sizeBytes / rows)));
  const parts = Math.ceil(rows / fitting);
  const length = Math.ceil(rows / parts);
  return Array.from({ length: parts }, (_, part) => Math.min(length, rows - part * length));
}

/** Type of a tensor's values on the GPU. */
function gpuType(name: string, { dtype }: TensorEntry): GpuType {
  if (dtype === 'U8') return 'uint8';
  if (isFloatDtype(dtype)) return 'float32';
  throw new ZoetropeError(
    'bad-checkpoint',
    `Tensor "${name}" has type ${dtype}; a model folder holds F32, F16, BF16 and U8 (blocks of ${QUANT_BLOCK}). Import the checkpoint again.`,
  );
}
