import { ZoetropeError } from '../errors';
import type { Gpu } from './device';
import type { GpuTensor } from './memory';

/** Bytes of a staging buffer at most: what a scan of verified bytes hands on at a time. */
const SLICE_BYTES = 2 ** 20;
/**
 * Bytes of all staging buffers at most, a 4-bit block of A14B: so much is on its way before a write waits for the GPU.
 */
const MOST_BYTES = 256 * 2 ** 20;

const STAGING_USAGE = 0x02 | 0x04; // MAP_WRITE | COPY_SRC
const MAP_WRITE = 0x02;

/**
 * Writes tensors through mapped buffers that are used again and again, so that what an upload takes is bounded and in
 * the ledger. On Dawn in Node, 192 MiB took 26 to 113 ms this way, in 8 MiB at a time, and 257 to 485 ms by
 * `writeBuffer`.
 */
export class Staging implements Disposable {
  /** Mapped buffers that wait for bytes. */
  private readonly idle: GPUBuffer[] = [];
  /**
   * Buffers whose bytes the GPU has not copied yet, in the order of their submission; each resolves when it is idle.
   */
  private readonly busy = new Map<GPUBuffer, Promise<void>>();
  private readonly sliceBytes: number;
  private disposed = false;

  /** @param largestBytes of the tensors that will be written; a slice is no larger. */
  constructor(
    private readonly gpu: Gpu,
    largestBytes: number,
    private readonly mostBytes = MOST_BYTES,
  ) {
    this.sliceBytes = Math.min(SLICE_BYTES, Math.ceil(largestBytes / 16) * 16);
  }

  /**
   * Replaces bytes of a tensor from `offsetBytes` on, behind all commands that are queued. Resolves when `bytes` may be
   * changed.
   * @param offsetBytes a multiple of 4.
   */
  async write(tensor: GpuTensor, bytes: ArrayBufferView, offsetBytes = 0): Promise<void> {
    const from = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const { device } = this.gpu;
    for (let begin = 0; begin < from.length; begin += this.sliceBytes) {
      const part = from.subarray(begin, begin + this.sliceBytes);
      const buffer = await this.take();
      const size = Math.ceil(part.length / 4) * 4; // copies are of whole words; tensors end at 16 bytes
      const mapped = new Uint8Array(buffer.getMappedRange(0, size));
      mapped.set(part);
      mapped.fill(0, part.length);
      buffer.unmap();
      const encoder = device.createCommandEncoder();
      encoder.copyBufferToBuffer(buffer, 0, tensor.buffer, offsetBytes + begin, size);
      device.queue.submit([encoder.finish()]);
      const mappedAgain = buffer.mapAsync(MAP_WRITE).then(
        () => {
          if (this.busy.delete(buffer)) this.idle.push(buffer);
        },
        () => {
          if (this.busy.delete(buffer)) buffer.destroy(); // the device is lost
        },
      );
      this.busy.set(buffer, mappedAgain);
    }
  }

  /** Frees the buffers; what was written arrives all the same. */
  [Symbol.dispose](): void {
    this.disposed = true;
    for (const buffer of [...this.idle.splice(0), ...this.busy.keys()]) buffer.destroy();
    this.busy.clear();
  }

  private async take(): Promise<GPUBuffer> {
    for (;;) {
      this.gpu.check();
      if (this.disposed) throw new ZoetropeError('internal', 'The staging buffers were freed while a write waited.');
      const idle = this.idle.pop();
      if (idle) return idle;
      const [oldest] = this.busy.values();
      if (!oldest || (this.busy.size + 1) * this.sliceBytes <= this.mostBytes) return this.make();
      await oldest;
    }
  }

  private make(): GPUBuffer {
    const { device } = this.gpu;
    return device.createBuffer({
      label: 'staging',
      size: this.sliceBytes,
      usage: STAGING_USAGE,
      mappedAtCreation: true,
    });
  }
}
