import { throwIfAborted, ZoetropeError } from '../errors';
import { decodeFloats, isFloatDtype } from '../floats';
import { type MatrixStorage, matrixStorage, QUANT_BLOCK, type TensorSource } from '../manifest';
import type { Gpu } from './device';
import type { GpuTensor } from './memory';

/**
 * A set of weights in GPU buffers, one buffer a tensor, bound as graph inputs by name. Floats are float32 whatever their
 * file holds: ONNX Runtime accumulates half products in half precision (1.30), which 5,120 terms do not bear.
 */
export class Weights implements Disposable {
  private readonly tensors = new Map<string, GpuTensor>();
  private readonly entries: TensorSource['entries'];

  private constructor(entries: TensorSource['entries']) {
    this.entries = entries;
  }

  /**
   * Reads and uploads tensors one by one, so that no more than one is in the heap. Frees what it made when it throws.
   * @param names default: every tensor of the source.
   */
  static async upload(
    gpu: Gpu,
    source: TensorSource,
    options: { names?: Iterable<string>; signal?: AbortSignal | undefined; onTensor?: (bytes: number) => void } = {},
  ): Promise<Weights> {
    const weights = new Weights(source.entries);
    try {
      for (const name of options.names ?? source.entries.keys()) {
        throwIfAborted(options.signal);
        const entry = source.entries.get(name);
        if (!entry)
          throw new ZoetropeError('bad-checkpoint', `Tensor "${name}" is missing. Import the checkpoint again.`);
        const bytes = await source.read(name);
        weights.tensors.set(name, uploadTensor(gpu, name, entry, bytes));
        options.onTensor?.(bytes.byteLength);
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
    return { ...storage, bits: storage.bits === 16 ? 32 : storage.bits };
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
export type GpuMatrixStorage = Omit<MatrixStorage, 'bits'> & { bits: 32 | 8 | 4 };

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
