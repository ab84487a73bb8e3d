import { unlessAborted, ZoetropeError } from '../errors';

/** Element types of tensors on the GPU. */
export type GpuType = 'float32' | 'float16' | 'int32' | 'uint32' | 'uint8';

const ELEMENT_BYTES: Record<GpuType, number> = { float32: 4, float16: 2, int32: 4, uint32: 4, uint8: 1 };

/**
 * Usage of every tensor: bound by kernels and graphs, copied both ways. Literal bits, so that no GPU global is needed.
 */
const STORAGE_USAGE = 0x80 | 0x08 | 0x04; // STORAGE | COPY_DST | COPY_SRC
const READ_USAGE = 0x01 | 0x08; // MAP_READ | COPY_DST
const MAP_READ = 0x01;
const MAP_USAGE = 0x01 | 0x02; // MAP_READ | MAP_WRITE

/**
 * Bytes of a tensor's buffer: multiples of 16, since ONNX Runtime copies whole 16-byte units when it downloads outputs.
 */
export function tensorBytes(type: GpuType, shape: readonly number[]): number {
  return Math.max(16, Math.ceil((elementCount(shape) * ELEMENT_BYTES[type]) / 16) * 16);
}

/** Number of elements of a shape. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** A tensor in a GPU buffer of its own. Whoever made it disposes it. */
export class GpuTensor implements Disposable {
  private freed = false;

  constructor(
    private readonly memory: GpuMemory,
    readonly buffer: GPUBuffer,
    readonly type: GpuType,
    readonly shape: readonly number[],
    /** Bytes of the buffer, a multiple of 16. */
    readonly sizeBytes: number,
  ) {}

  /** The first bytes of the same buffer as a tensor of another shape; it does not own the buffer. */
  view(shape: readonly number[]): GpuTensor {
    const view = new GpuTensor(this.memory, this.buffer, this.type, shape, this.sizeBytes);
    if (elementCount(shape) > elementCount(this.shape)) {
      throw new ZoetropeError('internal', `A view [${shape}] is larger than its tensor [${this.shape}].`);
    }
    view.freed = true;
    return view;
  }

  /** Frees the buffer at once; work that was submitted before keeps its contents. Safe to call twice. */
  [Symbol.dispose](): void {
    if (this.freed) return;
    this.freed = true;
    this.memory.release(this);
  }
}

/**
 * Every buffer of the device, counted in bytes: tensors, and beside them what is made by calling the device itself, by
 * ONNX Runtime above all. The planner predicts `peakBytes`; a job that ends leaves `liveBytes` as it found it,
 * cancelled or not.
 */
export class GpuMemory {
  /** Bytes of all tensors that exist now. */
  liveBytes = 0;
  /** Highest `liveBytes` since the start or the last {@link resetPeak}. */
  peakBytes = 0;
  /** Highest `liveBytes` since the job that ran last began. */
  jobPeakBytes = 0;
  /** Bytes of buffers that are no tensors: ONNX Runtime's uniforms, parameters of kernels. */
  runtimeBytes = 0;
  /** Bytes of buffers that the CPU maps, for uploads and downloads. */
  stagingBytes = 0;
  /** Highest sum of the three since the start or the last {@link resetPeak}. */
  devicePeakBytes = 0;
  /** Of the job that runs, see `Gpu.job`: reads wait no longer than until it fires. */
  signal: AbortSignal | undefined;
  private readonly live = new Map<GpuTensor, string>();
  private readonly createTensorBuffer: GPUDevice['createBuffer'];

  /** Counts the buffers of `device` from now on, whoever makes them. */
  constructor(readonly device: GPUDevice) {
    this.createTensorBuffer = device.createBuffer.bind(device);
    device.createBuffer = (descriptor) => this.counted(this.createTensorBuffer(descriptor), descriptor);
  }

  /** Makes a zero-filled tensor. Throws `out-of-memory` when it exceeds the device's binding or buffer limit. */
  tensor(label: string, type: GpuType, shape: readonly number[]): GpuTensor {
    const sizeBytes = tensorBytes(type, shape);
    const limit = Math.min(this.device.limits.maxStorageBufferBindingSize, this.device.limits.maxBufferSize);
    if (sizeBytes > limit) {
      throw new ZoetropeError(
        'out-of-memory',
        `Tensor "${label}" [${shape}] needs ${sizeBytes} bytes in one binding, this device allows ${limit}. Use a smaller size or fewer frames.`,
      );
    }
    const buffer = this.createTensorBuffer({ label, size: sizeBytes, usage: STORAGE_USAGE });
    const tensor = new GpuTensor(this, buffer, type, shape, sizeBytes);
    this.live.set(tensor, label);
    this.liveBytes += sizeBytes;
    this.raisePeaks();
    return tensor;
  }

  /** Makes a tensor from little-endian bytes; `bytes` has exactly the tensor's length. */
  upload(label: string, type: GpuType, shape: readonly number[], bytes: ArrayBufferView): GpuTensor {
    const expected = elementCount(shape) * ELEMENT_BYTES[type];
    if (bytes.byteLength !== expected) {
      throw new ZoetropeError(
        'internal',
        `Tensor "${label}" [${shape}] takes ${expected} bytes, got ${bytes.byteLength}.`,
      );
    }
    const tensor = this.tensor(label, type, shape);
    this.write(tensor, bytes);
    return tensor;
  }

  /** Replaces the first bytes of a tensor. */
  write(tensor: GpuTensor, bytes: ArrayBufferView, offsetBytes = 0): void {
    const whole = bytes.byteLength & ~3;
    const { buffer, byteOffset, byteLength } = bytes;
    if (whole > 0) this.device.queue.writeBuffer(tensor.buffer, offsetBytes, buffer as ArrayBuffer, byteOffset, whole);
    if (whole < byteLength) {
      const tail = new Uint8Array(4);
      tail.set(new Uint8Array(buffer, byteOffset + whole, byteLength - whole));
      this.device.queue.writeBuffer(tensor.buffer, offsetBytes + whole, tail);
    }
  }

  /** Copies bytes between tensors on the queue; offsets and size are multiples of 4. */
  copy(from: GpuTensor, fromBytes: number, to: GpuTensor, toBytes: number, sizeBytes: number): void {
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(from.buffer, fromBytes, to.buffer, toBytes, sizeBytes);
    this.device.queue.submit([encoder.finish()]);
  }

  /** Copies `count` runs of `sizeBytes` bytes that lie `strideBytes` apart in `from`, one after the other into `to`. */
  gather(
    from: GpuTensor,
    beginBytes: number,
    strideBytes: number,
    to: GpuTensor,
    sizeBytes: number,
    count: number,
  ): void {
    const encoder = this.device.createCommandEncoder();
    for (let i = 0; i < count; i++) {
      encoder.copyBufferToBuffer(from.buffer, beginBytes + i * strideBytes, to.buffer, i * sizeBytes, sizeBytes);
    }
    this.device.queue.submit([encoder.finish()]);
  }

  /** Bytes of a tensor after all work submitted so far. Throws `aborted` once the job that runs is cancelled. */
  async read(tensor: GpuTensor): Promise<Uint8Array> {
    const sizeBytes = elementCount(tensor.shape) * ELEMENT_BYTES[tensor.type];
    const staging = this.device.createBuffer({ label: 'read', size: tensor.sizeBytes, usage: READ_USAGE });
    try {
      const encoder = this.device.createCommandEncoder();
      encoder.copyBufferToBuffer(tensor.buffer, 0, staging, 0, tensor.sizeBytes);
      this.device.queue.submit([encoder.finish()]);
      await unlessAborted(staging.mapAsync(MAP_READ), this.signal);
      return new Uint8Array(staging.getMappedRange().slice(0, sizeBytes));
    } finally {
      staging.destroy();
    }
  }

  /** Values of a float32 tensor after all work submitted so far. */
  async readFloats(tensor: GpuTensor): Promise<Float32Array> {
    if (tensor.type !== 'float32') throw new ZoetropeError('internal', `readFloats takes float32, got ${tensor.type}.`);
    return new Float32Array((await this.read(tensor)).buffer);
  }

  /** Begins a job. @param signal see {@link GpuMemory.signal}. */
  startJob(signal: AbortSignal): void {
    this.signal = signal;
    this.jobPeakBytes = this.liveBytes;
  }

  /** Starts a new measurement of the peak at the present level. */
  resetPeak(): void {
    this.peakBytes = 0;
    this.devicePeakBytes = 0;
    this.raisePeaks();
  }

  /** Labels and bytes of every live buffer, largest first: what to look at when a level does not return. */
  describe(): { label: string; sizeBytes: number }[] {
    return [...this.live]
      .map(([tensor, label]) => ({ label, sizeBytes: tensor.sizeBytes }))
      .sort((a, b) => b.sizeBytes - a.sizeBytes);
  }

  /** Called by {@link GpuTensor}. */
  release(tensor: GpuTensor): void {
    if (!this.live.delete(tensor)) return;
    this.liveBytes -= tensor.sizeBytes;
    tensor.buffer.destroy();
  }

  /** Counts a buffer that is no tensor until it is destroyed. */
  private counted(buffer: GPUBuffer, { size, usage, mappedAtCreation }: GPUBufferDescriptor): GPUBuffer {
    const category = mappedAtCreation || usage & MAP_USAGE ? 'stagingBytes' : 'runtimeBytes';
    const destroy = buffer.destroy.bind(buffer);
    let alive = true;
    buffer.destroy = () => {
      if (alive) this[category] -= size;
      alive = false;
      return destroy();
    };
    this[category] += size;
    this.raisePeaks();
    return buffer;
  }

  private raisePeaks(): void {
    this.peakBytes = Math.max(this.peakBytes, this.liveBytes);
    this.jobPeakBytes = Math.max(this.jobPeakBytes, this.liveBytes);
    this.devicePeakBytes = Math.max(this.devicePeakBytes, this.liveBytes + this.runtimeBytes + this.stagingBytes);
  }
}

/** Things to free together, in reverse order of their making; what `DisposableStack` is in newer engines. */
export class Scope implements Disposable {
  private readonly owned: Disposable[] = [];

  /** Takes ownership and gives the thing back. */
  own<T extends Disposable>(thing: T): T {
    this.owned.push(thing);
    return thing;
  }

  /** Gives up ownership of everything, which stays. */
  release(): void {
    this.owned.length = 0;
  }

  /** Frees everything; safe to call twice. */
  [Symbol.dispose](): void {
    for (const thing of this.owned.splice(0).reverse()) thing[Symbol.dispose]();
  }
}
