import { unlessAborted } from '../errors';
import type { Gpu } from './device';

/** Portions of work that may be under way: one computes, one waits so that the GPU does not. */
const UNDER_WAY = 2;

/**
 * Keeps little work queued on the device, however fast it is submitted: whoever cancels waits for what is under way,
 * and a queue full of minutes would be computed to its end. Work is counted in multiply-adds.
 */
export class WorkQueue {
  /** Multiply-adds submitted behind the last portion. */
  private open = 0;
  private readonly portions: Promise<void>[] = [];

  /**
   * @param portionMac multiply-adds of a portion; the largest dispatch has about as many.
   * @param onDone told the multiply-adds of each portion that the GPU has done, later ones too after a cancel.
   */
  constructor(
    private readonly gpu: Gpu,
    private readonly portionMac: number,
    private readonly signal?: AbortSignal | undefined,
    private readonly onDone: (mac: number) => void = () => undefined,
  ) {}

  /**
   * Counts work that has been submitted; resolves when more may be. Throws `aborted` at once when the signal says so.
   */
  async add(mac: number): Promise<void> {
    this.open += mac;
    if (this.open < this.portionMac) return;
    this.close();
    while (this.portions.length > UNDER_WAY) await this.first();
  }

  /** Resolves when all that was counted is done. Throws `aborted`. */
  async drain(): Promise<void> {
    if (this.open > 0) this.close();
    while (this.portions.length > 0) await this.first();
  }

  private close(): void {
    const mac = this.open;
    this.open = 0;
    const portion = this.gpu.device.queue.onSubmittedWorkDone().then(() => this.onDone(mac));
    portion.catch(() => undefined); // After a cancel nobody waits for it.
    this.portions.push(portion);
  }

  private first(): Promise<void> {
    return unlessAborted(this.portions.shift()!, this.signal);
  }
}
