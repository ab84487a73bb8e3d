import { ZoetropeError } from '../errors';
import { NO_ANSWER } from '../manifest';
import type { StoreHost } from './disk';
import { backOffMs, MAX_ATTEMPTS } from './retry';
import type { Again } from './transfer';

/** Repeats requests as far as `retry.ts` says. What one lane is asked to wait, all lanes of a download wait. */
export class Patience {
  /** Before this no request is sent, milliseconds since 1970. */
  private until = 0;

  /** @param onWait hears why the next request has to wait. */
  constructor(
    private readonly host: Pick<StoreHost, 'now' | 'sleep' | 'random'>,
    private readonly signal: AbortSignal,
    private readonly onWait: (note: string) => void,
  ) {}

  /**
   * Runs `attempt` until it gives something else than `again`. Throws `unreadable-source` when patience is at its end.
   */
  async run<T>(url: string, attempt: () => Promise<T | Again>): Promise<T> {
    for (let failures = 0; ; ) {
      await this.pause();
      const result = await attempt();
      if (!isAgain(result)) return result;
      failures = result.fresh ? 1 : failures + 1;
      if (failures === MAX_ATTEMPTS) {
        const message = `${url} ${result.why}, and did not do better in ${MAX_ATTEMPTS} requests. What is there stays; continue later.`;
        throw new ZoetropeError('unreadable-source', message, { cause: NO_ANSWER });
      }
      const now = this.host.now();
      if (result.waitMs > 0) this.until = Math.max(this.until, now + result.waitMs);
      const waitMs = Math.max(backOffMs(failures, this.host.random()), this.until - now);
      this.onWait(`${url} ${result.why}. Trying again in ${Math.ceil(waitMs / 1000)} s.`);
      await this.host.sleep(waitMs, this.signal);
    }
  }

  private async pause(): Promise<void> {
    for (;;) {
      this.signal.throwIfAborted();
      const waitMs = this.until - this.host.now();
      if (waitMs <= 0) return;
      await this.host.sleep(waitMs, this.signal);
    }
  }
}

/** Resolves early at the signal. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
  });
}

function isAgain(value: unknown): value is Again {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'again';
}
