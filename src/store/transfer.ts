import { messageOf, ZoetropeError } from '../errors';
import { MANIFEST_FILE, NO_ANSWER } from '../manifest';
import { chunksOf, discard, Shuttle } from './chunks';
import { type Fetch, parseContentRange } from './http';
import { isTransient, LONGEST_RETRY_AFTER_MS, retryAfterMs } from './retry';

/** One request for bytes of a file whose size is known beforehand, and what its answer is worth. */

/** What is asked for. */
export interface Wanted {
  url: string;
  /** Bytes of the file, the end exclusive. */
  begin: number;
  end: number;
  /** Of the whole file, as the manifest states it. */
  sizeBytes: number;
}

/** The request may be made again. */
export interface Again {
  kind: 'again';
  /** What went wrong, to follow the URL in a sentence. */
  why: string;
  /** Wait that the server asks for. */
  waitMs: number;
  /** Something useful has come since the last failure, so that patience begins anew. */
  fresh?: boolean;
}

/** What the head of an answer promises. */
export type Head = { kind: 'range' } | { kind: 'whole' } | Again;

function refuse(code: 'unreadable-source' | 'corrupt-data', url: string, why: string): never {
  throw new ZoetropeError(code, `${url} ${why}`);
}

/** What a status that may be another next time asks for; undefined for other statuses. */
function judgeStatus(
  url: string,
  { status, headers }: Pick<Response, 'status' | 'headers'>,
  nowMs: number,
): Again | undefined {
  if (!isTransient(status)) return undefined;
  const waitMs = retryAfterMs(headers.get('Retry-After'), nowMs) ?? 0;
  if (waitMs > LONGEST_RETRY_AFTER_MS) {
    const minutes = Math.ceil(waitMs / 60_000);
    const message = `${url} answered ${status} and asks to wait ${minutes} minutes. Continue then.`;
    throw new ZoetropeError('unreadable-source', message, { cause: NO_ANSWER });
  }
  return { kind: 'again', why: `answered ${status}`, waitMs };
}

function refusePacked(url: string, headers: Headers): void {
  const encoding = headers.get('Content-Encoding') ?? 'identity';
  if (encoding === 'identity') return;
  refuse(
    'unreadable-source',
    url,
    `answered with a range of the file packed by ${encoding}, which cannot be unpacked. The server must send models as they are.`,
  );
}

/**
 * Judges status and headers. Throws `corrupt-data` where the server's file has another length than the manifest states
 * and `unreadable-source` where no further request can help.
 *
 * Across origins a header shows only if the server exposes it, so that a missing one proves nothing: the body's length
 * and the piece's hash have the last word.
 */
export function judgeHead(wanted: Wanted, response: Pick<Response, 'status' | 'headers'>, nowMs: number): Head {
  const { url, begin, end, sizeBytes } = wanted;
  const { status, headers } = response;
  const later = judgeStatus(url, response, nowMs);
  if (later) return later;
  const encoding = headers.get('Content-Encoding') ?? 'identity';
  const length = headers.get('Content-Length');
  if (status === 200) {
    // A compressed body is unpacked by `fetch`, and its Content-Length is that of the packed one.
    if (encoding === 'identity' && length !== null && Number(length) !== sizeBytes) {
      refuse('corrupt-data', url, `has ${length} bytes, ${MANIFEST_FILE} states ${sizeBytes}. Ask its publisher.`);
    }
    return { kind: 'whole' };
  }
  if (status === 206) {
    refusePacked(url, headers);
    const range = parseContentRange(headers.get('Content-Range'));
    if (range && range.total !== sizeBytes) {
      refuse('corrupt-data', url, `has ${range.total} bytes, ${MANIFEST_FILE} states ${sizeBytes}. Ask its publisher.`);
    }
    if (range && (range.begin !== begin || range.end !== end)) {
      const why = `answered bytes ${range.begin} to ${range.end}; ${begin} to ${end} were asked for`;
      return { kind: 'again', why, waitMs: 0 };
    }
    return { kind: 'range' };
  }
  if (status === 416) {
    refuse(
      'corrupt-data',
      url,
      `has no bytes ${begin} to ${end}, ${MANIFEST_FILE} states ${sizeBytes}. Ask its publisher.`,
    );
  }
  const hint = status === 404 ? ' Check the address of the model folder.' : '';
  refuse('unreadable-source', url, `answered ${status}.${hint}`);
}

/** Longest silence of a server before the request counts as broken off. */
export const STALL_MS = 60_000;

export interface TransferOptions {
  fetch: Fetch;
  signal: AbortSignal;
  /** Default {@link STALL_MS}. */
  stallMs?: number | undefined;
  /** Milliseconds since 1970. */
  now: () => number;
  /** For the body, which must have ended when the next one uses it. Default: one of its own. */
  shuttle?: Shuttle;
}

/** The body of an answer, read to fill buffers. */
export interface Body {
  /** Fills the buffer; `again` when the body ends or breaks off before. `onBytes` has heard of what came by then. */
  fill(buffer: Uint8Array, onBytes: (count: number) => void): Promise<Again | undefined>;
  /** Passes over bytes; `again` when the body ends or breaks off before. */
  skip(count: number): Promise<Again | undefined>;
  /** `again` unless the body ends here. */
  end(): Promise<Again | undefined>;
  /** All that comes. Throws `bad-checkpoint` beyond the limit, before holding more. */
  all(limitBytes: number, url: string): Promise<Again | Uint8Array>;
  /** Stops the transfer, whatever is left of it. */
  cancel(): Promise<void>;
}

/**
 * Fetches a file whose size is not known, whole. Throws `unreadable-source` for statuses that no further request can
 * help and `bad-checkpoint` when there are more than `limitBytes`.
 */
export async function requestSmall(
  url: string,
  limitBytes: number,
  options: TransferOptions,
): Promise<Again | Uint8Array> {
  const watch = new Watch(options);
  try {
    const response = await options.fetch(url, { cache: 'no-cache', signal: watch.signal });
    const body = openBody(response, watch, new Shuttle());
    if (response.status === 200) return await body.all(limitBytes, url);
    await body.cancel();
    const head = judgeHead({ url, begin: 0, end: 0, sizeBytes: 0 }, response, options.now());
    return head.kind === 'again' ? head : refuse('unreadable-source', url, `answered ${response.status}.`);
  } catch (error) {
    if (error instanceof ZoetropeError) throw error;
    return watch.explain(error, 'cannot be reached');
  } finally {
    watch.end();
  }
}

/**
 * Sends a request for a range. A network that fails, a silent server and a transient status are `again`; an abort
 * throws.
 */
export async function request(
  wanted: Wanted,
  options: TransferOptions,
): Promise<Again | { kind: 'range' | 'whole'; etag: string | null; body: Body }> {
  const { url, begin, end } = wanted;
  const { fetch, now, shuttle = new Shuttle() } = options;
  const watch = new Watch(options);
  let response: Response;
  try {
    // Pieces are stored once verified; a cache of the browser would store them twice, and repeat what was wrong.
    const init: RequestInit = {
      headers: { Range: `bytes=${begin}-${end - 1}` },
      cache: 'no-store',
      signal: watch.signal,
    };
    response = await fetch(url, init);
  } catch (error) {
    watch.end();
    return watch.explain(error, 'cannot be reached');
  }
  try {
    const head = judgeHead(wanted, response, now());
    if (head.kind !== 'again') {
      return { kind: head.kind, etag: response.headers.get('ETag'), body: openBody(response, watch, shuttle) };
    }
    watch.end();
    await discard(response);
    return head;
  } catch (error) {
    watch.end();
    await discard(response);
    throw error;
  }
}

/**
 * Sends a request as `fetch` does and holds the range that answers it, so that one which breaks off or ends too early
 * can be asked for again. Other answers are handed on as they come.
 * @param what the URL as messages show it.
 * @param bytes of the range that is asked for.
 */
export async function requestHeld(
  url: string,
  init: RequestInit,
  what: string,
  bytes: number,
  options: TransferOptions,
): Promise<Again | Response> {
  const watch = new Watch(options);
  try {
    const response = await options.fetch(url, { ...init, signal: watch.signal });
    const later = judgeStatus(what, response, options.now());
    if (later) await discard(response);
    if (later || response.status !== 206) return later ?? response;
    refusePacked(what, response.headers);
    const body = openBody(response, watch, new Shuttle());
    const held = new Uint8Array(bytes);
    const problem = (await body.fill(held, () => undefined)) ?? (await body.end());
    await body.cancel();
    const { status, headers } = response;
    return problem ?? new Response(held, { status, headers });
  } catch (error) {
    if (error instanceof ZoetropeError) throw error;
    return watch.explain(error, 'cannot be reached');
  } finally {
    watch.end();
  }
}

/** Aborts a request at the caller's signal or after a silence, and knows which it was. */
class Watch {
  private readonly controller = new AbortController();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private stalled = false;
  private readonly stop = () => this.controller.abort(this.options.signal.reason);
  /** Rejects when the request is aborted; a body need not notice. */
  readonly over: Promise<never>;

  constructor(private readonly options: TransferOptions) {
    this.over = new Promise((_, reject) => {
      this.signal.addEventListener('abort', () => reject(this.signal.reason), { once: true });
    });
    this.over.catch(() => undefined); // Mostly nobody waits for it.
    if (options.signal.aborted) this.stop();
    options.signal.addEventListener('abort', this.stop, { once: true });
    this.alive();
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** Bytes came: the silence begins anew. */
  alive(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.stalled = true;
      this.controller.abort();
    }, this.options.stallMs ?? STALL_MS);
  }

  end(): void {
    clearTimeout(this.timer);
    this.options.signal.removeEventListener('abort', this.stop);
  }

  /** What a failure means. Throws the caller's abort. */
  explain(error: unknown, why: string): Again {
    if (this.options.signal.aborted) throw this.options.signal.reason;
    return { kind: 'again', why: this.stalled ? 'fell silent' : `${why}: ${messageOf(error)}`, waitMs: 0 };
  }
}

function openBody(response: Response, watch: Watch, shuttle: Shuttle): Body {
  const chunks = response.body ? chunksOf(response.body, shuttle) : undefined;
  let rest: Uint8Array = new Uint8Array(0);
  /** Bytes that have come, at least one unless the body has ended. Good until the next call. */
  const next = async (): Promise<Uint8Array | Again | undefined> => {
    try {
      while (rest.length === 0) {
        const chunk = await (chunks && Promise.race([chunks.read(), watch.over]));
        watch.alive();
        if (!chunk?.value) return undefined;
        rest = chunk.value;
      }
      return rest;
    } catch (error) {
      return watch.explain(error, 'broke off');
    }
  };
  /** Hands on `count` bytes. */
  const take = async (count: number, sink: (bytes: Uint8Array) => void): Promise<Again | undefined> => {
    for (let left = count; left > 0; ) {
      const bytes = await next();
      if (bytes === undefined) return { kind: 'again', why: `sent ${left} bytes too few`, waitMs: 0 };
      if (!(bytes instanceof Uint8Array)) return bytes;
      const taken = bytes.subarray(0, left);
      sink(taken);
      left -= taken.length;
      rest = bytes.subarray(taken.length);
    }
    return undefined;
  };
  return {
    fill(buffer, onBytes) {
      let filled = 0;
      return take(buffer.length, (bytes) => {
        buffer.set(bytes, filled);
        filled += bytes.length;
        onBytes(bytes.length);
      });
    },
    skip: (count) => take(count, () => undefined),
    async end() {
      const bytes = await next();
      if (bytes === undefined) return undefined;
      return bytes instanceof Uint8Array ? { kind: 'again', why: 'sent too many bytes', waitMs: 0 } : bytes;
    },
    async all(limitBytes, url) {
      const parts: Uint8Array<ArrayBuffer>[] = [];
      let sizeBytes = 0;
      for (let bytes = await next(); bytes !== undefined; bytes = await next()) {
        if (!(bytes instanceof Uint8Array)) return bytes;
        sizeBytes += bytes.length;
        if (sizeBytes > limitBytes) {
          await this.cancel();
          throw new ZoetropeError('bad-checkpoint', `${url} has more than ${limitBytes} bytes. Check the address.`);
        }
        parts.push(bytes.slice());
        rest = new Uint8Array(0);
      }
      return new Uint8Array(await new Blob(parts).arrayBuffer());
    },
    async cancel() {
      watch.end();
      await chunks?.cancel().catch(() => undefined); // It may have broken off already.
    },
  };
}
