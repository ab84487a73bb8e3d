import { throwIfAborted } from '../errors';
import type { Gpu } from './device';

/**
 * Multiply-adds of convolutions in one dispatch, and of what may be queued before it is waited for, where the device's
 * pace is not known: no driver's watchdog must bite, and a cancel takes effect soon. A GPU of 1 TFLOP/s does them in
 * 100 ms, SwiftShader on two cores in 150 ms.
 */
const CONVOLUTION_MAC = { gpu: 5e10, cpu: 5e8 };

/** How convolutions are submitted. */
export interface DispatchOptions {
  /** Multiply-adds of a dispatch, and of what is queued before it is waited for. Default: 5e10, on a CPU 5e8. */
  maxMacPerDispatch?: number | undefined;
  /** Looked at between any two dispatches. */
  signal?: AbortSignal | undefined;
}

/**
 * Submits the dispatches of a network of convolutions, and waits whenever enough of them are queued: the tensors
 * between layers are given back at once, but the device frees them only behind the work that reads them.
 */
export class DispatchQueue {
  private queuedMac = 0;
  /** Multiply-adds that a dispatch may have. */
  readonly maxMac: number;

  constructor(
    private readonly gpu: Gpu,
    private readonly options: DispatchOptions,
  ) {
    this.maxMac = options.maxMacPerDispatch ?? (gpu.cpu ? CONVOLUTION_MAC.cpu : CONVOLUTION_MAC.gpu);
  }

  /** Submits one dispatch of so many multiply-adds, and waits when enough is queued. Throws `aborted`. */
  async submit(mac: number, dispatch: () => Promise<void>): Promise<void> {
    throwIfAborted(this.options.signal);
    await dispatch();
    this.queuedMac += mac;
    if (this.queuedMac < this.maxMac) return;
    this.queuedMac = 0;
    await this.gpu.device.queue.onSubmittedWorkDone();
  }
}
