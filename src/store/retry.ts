/** When to ask a server again. Pure. */

/** Requests for one piece, the first included. With the delays below they cover half a minute of silence. */
export const MAX_ATTEMPTS = 7;

/** Delay before the second request; each further one doubles it. */
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;

/** The longest wait that a server's Retry-After is granted. A person decides about longer ones. */
export const LONGEST_RETRY_AFTER_MS = 10 * 60_000;

/** Statuses that may be different next time (RFC 9110; 425 is of RFC 8470, 429 of RFC 6585). */
const TRANSIENT = new Set([408, 425, 429, 500, 502, 503, 504]);

export function isTransient(status: number): boolean {
  return TRANSIENT.has(status);
}

/**
 * Milliseconds until another request after `failures` failed ones: exponential, and spread over its upper half so that
 * lanes and tabs do not come back at once.
 * @param random from 0 to 1.
 */
export function backOffMs(failures: number, random: number): number {
  return Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (failures - 1)) * (0.5 + random / 2);
}

/**
 * A Retry-After header, seconds or an HTTP date, as milliseconds from `nowMs` (since 1970); undefined for anything
 * else.
 */
export function retryAfterMs(value: string | null, nowMs: number): number | undefined {
  const text = value?.trim() ?? '';
  if (/^\d+$/.test(text)) return Number(text) * 1000;
  const date = /^[A-Z][a-z]{2,8},? /.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

/** Pace of a download over its last seconds. */
export class Pace {
  private readonly samples: { ms: number; bytes: number }[] = [];

  /** @param windowMs how far back the pace looks. Default 10 s. */
  constructor(private readonly windowMs = 10_000) {}

  /** Notes that `bytes` are there at `ms`, which never falls. */
  add(ms: number, bytes: number): void {
    this.samples.push({ ms, bytes });
    while (this.samples.length > 2 && this.samples[1]!.ms <= ms - this.windowMs) this.samples.shift();
  }

  /** Bytes per second; null until a second has been seen. */
  bytesPerSecond(): number | null {
    const [first] = this.samples;
    const last = this.samples.at(-1);
    if (!first || !last || last.ms - first.ms < 1000) return null;
    // Of a piece that broke off, the bytes are gone again.
    return Math.max(0, ((last.bytes - first.bytes) * 1000) / (last.ms - first.ms));
  }
}
