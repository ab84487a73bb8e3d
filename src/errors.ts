/**
 * Everything that can go wrong, as one class with a code. A message says what is wrong, what was got, what is allowed
 * and what to do. comlink carries only `name`, `message` and `stack` across the worker boundary, so the name holds the
 * code and `protocol.ts` says how `detail` crosses.
 */

/** Machine-readable reasons. A caller branches on these, never on the message. */
export type ZoetropeErrorCode =
  /** The request breaks the endpoint's schema; `detail` has one entry for each problem, in the shape of fal's 422. */
  | 'bad-request'
  /** The safety checker refuses the prompt or the pictures; `detail` is fal's `content_policy_violation`. */
  | 'content-policy-violation'
  /** The request names an optional part (an interpolator, say) that this model folder does not hold. */
  | 'missing-component'
  /**
   * A checkpoint or model folder is not what it claims: wrong shape, missing tensor, unsupported variant, bad config.
   */
  | 'bad-checkpoint'
  /** Bytes do not have the length or SHA-256 that the manifest states. */
  | 'corrupt-data'
  /** A file or URL cannot be read. */
  | 'unreadable-source'
  /**
   * The browser offers no place for files here, or not enough of it; `detail` then has the bytes needed and the bytes
   * there.
   */
  | 'storage-full'
  | 'storage-unavailable'
  /** A stored model is in use, or being changed, here or in another tab. */
  | 'model-in-use'
  /** A job runs in another tab, or runs or waits in this one already. */
  | 'job-in-use'
  /** No job of this id is kept, or it is not in the state that the call needs. */
  | 'unknown-job'
  /** No WebGPU, no adapter, or an adapter below what the model needs. */
  | 'unsupported-device'
  /** The GPU device was lost while work was in flight. */
  | 'device-lost'
  /** The device reported out of memory, or a plan does not fit the given limits. */
  | 'out-of-memory'
  /** No video encoder of this browser accepts the size and rate. */
  | 'unsupported-codec'
  /** The encoder failed or dropped frames. */
  | 'encoding-failed'
  /** The caller's AbortSignal fired. */
  | 'aborted'
  /** The worker died; every pending call is rejected with this. */
  | 'worker-died'
  /** A rule of this library was broken by its own code. Always a bug worth reporting. */
  | 'internal';

/** One problem of a request, in the shape of a FastAPI / pydantic validation error as fal returns it. */
export interface ErrorDetail {
  /** Path to the offending value, e.g. `['body', 'num_frames']`. */
  loc: (string | number)[];
  /** Sentence for a person. */
  msg: string;
  /** pydantic error type, e.g. `missing`, `greater_than_equal`, `literal_error`, `extra_forbidden`. */
  type: string;
  /** Numbers or names that the message uses, e.g. `{ ge: 17 }`. */
  ctx?: Record<string, unknown>;
  /** The value as it was given. */
  input?: unknown;
  /** A page about the error. */
  url?: string;
}

/** The only error class that this library throws on purpose. */
export class ZoetropeError extends Error {
  /** Problems of a request, all at once; the numbers of `storage-full`; empty for every other code. */
  readonly detail: readonly ErrorDetail[];

  constructor(
    readonly code: ZoetropeErrorCode,
    message: string,
    options: ErrorOptions & { detail?: readonly ErrorDetail[] } = {},
  ) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.name = `ZoetropeError:${code}`;
    this.detail = options.detail ?? [];
  }
}

/**
 * Throws the `aborted` error if the signal has fired. Called between any two dispatches that a person might wait for.
 */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new ZoetropeError('aborted', 'The generation was cancelled by its AbortSignal.', { cause: signal.reason });
  }
}

/** Longest foreign value in a message, UTF-16 units. */
const SHOWN_LENGTH = 80;

/** JSON of a value; what is longer than `room` ends somewhere behind it. */
function written(value: unknown, room: number): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, room));
  if (typeof value !== 'object' || value === null) return String(value);
  const list = Array.isArray(value);
  let text = list ? '[' : '{';
  for (const key of list ? value.keys() : Object.keys(value)) {
    if (text.length > room) return text;
    if (text.length > 1) text += ',';
    if (!list) text += `${written(key, room)}:`;
    text += written((value as Record<string, unknown>)[key], room - text.length);
  }
  return text + (list ? ']' : '}');
}

/**
 * A value of somebody's document for a message, cut. It is not written out first: a list of numbers like `1e20` would
 * become five times as long as the document.
 */
export function shown(value: unknown): string {
  const text = written(value, SHOWN_LENGTH);
  return text.length > SHOWN_LENGTH ? `${text.slice(0, SHOWN_LENGTH)}…` : text;
}

/**
 * Waits for something, but no longer than until the signal fires: then throws `aborted`, and the thing ends by itself.
 */
export async function unlessAborted<T>(pending: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  pending.catch(() => undefined); // After an abort nobody waits for it.
  throwIfAborted(signal);
  if (!signal) return pending;
  let wake: () => void = () => undefined;
  const aborted = new Promise<void>((resolve) => {
    wake = resolve;
  });
  signal.addEventListener('abort', wake, { once: true });
  try {
    const value = await Promise.race([pending, aborted]);
    throwIfAborted(signal);
    return value as T;
  } finally {
    signal.removeEventListener('abort', wake);
  }
}

/** Message of anything thrown, for wrapping foreign errors. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
