import type { StoreProgress } from '../protocol';
import { Pace } from './retry';

/** Pace at which progress is told while bytes come in. */
const REPORT_MS = 100;

/** Tells how far work on a model is, with its pace and what is left. */
export class Reporting {
  private readonly pace = new Pace();
  private toldMs = Number.NEGATIVE_INFINITY;

  /** @param now milliseconds since 1970. */
  constructor(
    private readonly now: () => number,
    private readonly what: Pick<StoreProgress, 'id' | 'name' | 'totalBytes'>,
    private readonly sink: (progress: StoreProgress) => void,
  ) {}

  /** Whether it is time for another report. */
  get due(): boolean {
    return this.now() - this.toldMs >= REPORT_MS;
  }

  tell(state: StoreProgress['state'], doneBytes: number, note = ''): void {
    const now = this.now();
    this.toldMs = now;
    this.pace.add(now, doneBytes);
    const bytesPerSecond = this.pace.bytesPerSecond();
    const remainingMs = bytesPerSecond ? ((this.what.totalBytes - doneBytes) * 1000) / bytesPerSecond : null;
    this.sink({ ...this.what, state, doneBytes, bytesPerSecond, remainingMs, note });
  }
}
