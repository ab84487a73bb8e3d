import { throwIfAborted, ZoetropeError } from '../errors';
import { decodeFloats, isFloatDtype } from '../floats';
import {
  type MatrixStorage,
  matrixStorage,
  partName,
  QUANT_BLOCK,
  SCALES_SUFFIX,
  type TensorEntry,
  type TensorSource,
  ZERO_POINTS_SUFFIX,
} from '../manifest';
import type { Gpu } from './device';
import type { GpuTensor } from './memory';

/**
 * A set of weights in GPU buffers, one buffer a tensor, bound as graph inputs by name. Floats are float32 whatever their
 * file holds: ONNX Runtime accumulates half products in half precision (1.30), which 5,120 terms do not bear.
 */
export class Weights implements Disposable {
  private readonly tensors = new Map<string, GpuTensor>();

  private constructor(
    private readonly gpu: Gpu,
    private readonly entries: TensorSource['entries'],
    private readonly maxBindingBytes: number,
  ) {}

  /**
   * Reads and uploads tensors one by one, so that no more than one is in the heap. Frees what it made when it throws.
   * @param options.names default: every tensor of the source.
   * @param options.maxBindingBytes a matrix larger than this is split by rows. Default: what the device binds.
   */
  static async upload(
    gpu: Gpu,
    source: TensorSource,
    options: { names?: Iterable<string>; signal?: AbortSignal | undefined; maxBindingBytes?: number } = {},
  ): Promise<Weights> {
    const { maxStorageBufferBindingSize, maxBufferSize } = gpu.device.limits;
    const limit = options.maxBindingBytes ?? Math.min(maxStorageBufferBindingSize, maxBufferSize);
    const weights = new Weights(gpu, source.entries, limit);
    try {
      for (const name of options.names ?? source.entries.keys()) {
        throwIfAborted(options.signal);
        const entry = source.entries.get(name);
        if (!entry)
          throw new ZoetropeError('bad-checkpoint', `Tensor "${name}" is missing. Import the checkpoint again.`);
        const bytes = await source.read(name);
        weights.add(name, entry, bytes);
      }
      return weights;
    } catch (error) {
      weights[Symbol.dispose]();
      throw error;
    }
  }

  /** The tensor of that name. */
  tensor(name: string): GpuTensor {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new ZoetropeError('internal', `Weight "${name}" is not loaded.`);
    return tensor;
  }

  /** How matrix `name` lies on the GPU: 32-bit floats or quantised blocks. */
  storage(name: string): GpuMatrixStorage {
    const storage = matrixStorage(this.entries, name);
    return { ...storage, bits: storage.bits === 16 ? 32 : storage.bits, partRows: this.partRows(name) };
  }

  /** Rows of the parts that matrix `name` is split into; one part where it fits a binding. */
  private partRows(name: string): number[] {
    const entry = this.entries.get(name)!;
    return splitRows(entry.shape[0]!, gpuBytes(entry), this.maxBindingBytes);
  }

  /** Uploads a tensor, a large matrix in parts and its scales and zero points along with it. */
  private add(name: string, entry: TensorEntry, bytes: Uint8Array): void {
    const suffix = [SCALES_SUFFIX, ZERO_POINTS_SUFFIX].find((end) => name.endsWith(end)) ?? '';
    const owner = name.slice(0, name.length - suffix.length);
    const parts = this.partRows(this.entries.has(owner) ? owner : name);
    if (parts.length === 1) {
      this.tensors.set(name, uploadTensor(this.gpu, name, entry, bytes));
      return;
    }
    const rowBytes = bytes.byteLength / entry.shape[0]!;
    let begin = 0;
    parts.forEach((rows, index) => {
      const part = partName(owner, index) + suffix;
      const shape = [rows, ...entry.shape.slice(1)];
      const slice = bytes.subarray(begin * rowBytes, (begin + rows) * rowBytes);
      this.tensors.set(part, uploadTensor(this.gpu, part, { ...entry, shape }, slice));
      begin += rows;
    });
  }

  /**
   * Feeds of a graph: the given activations, and for every other input the weight `prefix + input`. Graph inputs carry the
   * checkpoint's own names, so nothing is mapped twice.
   */
  feeds(
    inputs: ReadonlyMap<string, unknown>,
    prefix: string,
    activations: Record<string, GpuTensor>,
  ): Record<string, GpuTensor> {
    const feeds: Record<string, GpuTensor> = {};
    for (const name of inputs.keys()) feeds[name] = activations[name] ?? this.tensor(prefix + name);
    return feeds;
  }

  /** Frees every buffer. */
  [Symbol.dispose](): void {
    for (const tensor of this.tensors.values()) tensor[Symbol.dispose]();
    this.tensors.clear();
  }
}

/** {@link MatrixStorage} on the GPU, where half floats have become float32. */
export type GpuMatrixStorage = Omit<MatrixStorage, 'bits'> & { bits: 32 | 8 | 4; partRows: readonly number[] };

/** Bytes of a tensor on the GPU. */
function gpuBytes({ dtype, shape }: TensorEntry): number {
  return shape.reduce((product, size) => product * size, dtype === 'U8' ? 1 : 4);
}

/**
 * Rows of each part of a matrix of `rows` rows and `sizeBytes` bytes when no part may exceed `limitBytes`: as few parts as
 * possible, of equal length but for the last.
 */
export function splitRows(rows: number, sizeBytes: number, limitBytes: number): number[] {
  const fitting = Math.max(1, Math.floor(limitBytes / (sizeBytes / rows)));
  const parts = Math.ceil(rows / fitting);
  const length = Math.ceil(rows / parts);
  return Array.from({ length: parts }, (_, part) => Math.min(length, rows - part * length));
}

function uploadTensor(gpu: Gpu, name: string, entry: { dtype: string; shape: number[] }, bytes: Uint8Array): GpuTensor {
  if (entry.dtype === 'U8') return gpu.memory.upload(name, 'uint8', entry.shape, bytes);
  const dtype = entry.dtype as Parameters<typeof isFloatDtype>[0];
  if (!isFloatDtype(dtype)) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `Tensor "${name}" has type ${entry.dtype}; a model folder holds F32, F16, BF16 and U8 (blocks of ${QUANT_BLOCK}). Import the checkpoint again.`,
    );
  }
  return gpu.memory.upload(name, 'float32', entry.shape, decodeFloats(bytes, dtype));
}
