import { ZoetropeError } from '../errors';
import type { Request } from '../request';
import { ApiError, ValidationError } from './api-error';
import { APPLICATION_ID, ENDPOINT_ID } from './endpoint';
import { failureOf } from './failure';
import { type Answer, type Generator, Queue } from './queue';
import type { CompletedStatus, InQueueStatus, QueueStatus } from './status';

/**
 * The calls of `@fal-ai/client` 1.10 over an engine in this page: the same names, options and results, with nothing
 * sent anywhere. Options that only a server can honour (`webhookUrl`, `hint`, `startTimeout`, `storageSettings`,
 * `headers`) are refused.
 */

/** Of `run`. */
export interface RunOptions {
  input?: Request;
  /** Ends the request too: here the work is the caller's own. */
  abortSignal?: AbortSignal;
}

/** Of `submit`. */
export interface SubmitOptions extends RunOptions {
  priority?: 'low' | 'normal';
}

/** Of every call about one request. */
export interface RequestOptions {
  requestId: string;
  abortSignal?: AbortSignal;
}

/** Of `status` and `streamStatus`. */
export interface StatusOptions extends RequestOptions {
  /** Default false. */
  logs?: boolean;
}

/** What happens while a request is followed. */
export interface FollowOptions {
  /** Changes are reported as they happen in either mode; `pollInterval` has nothing to do. */
  mode?: 'polling' | 'streaming';
  pollInterval?: number;
  logs?: boolean;
  /** Milliseconds after which the request is cancelled and the call rejects. Default: none. */
  timeout?: number;
  onQueueUpdate?: (status: QueueStatus) => void;
}

/** Of `subscribe`. */
export interface SubscribeOptions extends SubmitOptions, FollowOptions {
  onEnqueue?: (requestId: string) => void;
}

export interface Result {
  data: Answer;
  requestId: string;
}

/** Statuses as they change; the part of the client's `FalStream` that reads. */
export interface StatusStream extends AsyncIterable<QueueStatus> {
  on(type: 'data' | 'error' | 'done', listener: (event: never) => void): void;
  /** Resolves with the last status. */
  done(): Promise<QueueStatus>;
  abort(): void;
  readonly signal: AbortSignal;
  readonly requestId: string;
}

export interface FalQueue {
  submit(endpointId: string, options: SubmitOptions): Promise<InQueueStatus>;
  status(endpointId: string, options: StatusOptions): Promise<QueueStatus>;
  streamStatus(endpointId: string, options: StatusOptions): Promise<StatusStream>;
  subscribeToStatus(endpointId: string, options: StatusOptions & FollowOptions): Promise<CompletedStatus>;
  result(endpointId: string, options: RequestOptions): Promise<Result>;
  cancel(endpointId: string, options: RequestOptions): Promise<void>;
}

export interface Fal {
  run(endpointId: string, options: RunOptions): Promise<Result>;
  subscribe(endpointId: string, options: SubscribeOptions): Promise<Result>;
  readonly queue: FalQueue;
}

const SERVER_OPTIONS = ['webhookUrl', 'hint', 'startTimeout', 'storageSettings', 'headers'] as const;

/**
 * A fal client whose only endpoint is an opened Zoetrope. Rejects with {@link ValidationError} for refused requests and
 * {@link ApiError} for everything else, as the official one does.
 */
export function createFal(generator: Generator): Fal {
  const host = { generator, now: Date.now, newId: () => crypto.randomUUID(), baseUrl: 'zoetrope:' };
  const requests = new Queue(host);

  const queue: FalQueue = {
    async submit(endpointId, options) {
      if (endpointId !== ENDPOINT_ID)
        throw notFound(`Application "${endpointId}" not found: only ${ENDPOINT_ID} is here.`);
      const given = SERVER_OPTIONS.find((name) => (options as Record<string, unknown>)[name] !== undefined);
      if (given) {
        const why = `${given} needs fal's servers, and this request runs in the page. Leave it out.`;
        throw new ValidationError(failureOf(new ZoetropeError('bad-request', why)), '');
      }
      const { input, priority = 'normal', abortSignal } = options;
      if (abortSignal?.aborted) throw cancelled('The request was aborted before it was submitted.', '');
      const id = requests.submit(input, priority);
      const status = requests.status(id);
      if (status.status === 'IN_QUEUE') return status;
      const { request_id, response_url, status_url, cancel_url } = status;
      return { status: 'IN_QUEUE', request_id, response_url, status_url, cancel_url, queue_position: 0 };
    },

    async status(endpointId, { requestId, logs = false }) {
      find(endpointId, requestId);
      return requests.status(requestId, logs ? 0 : undefined);
    },

    async streamStatus(endpointId, { requestId, logs = false, abortSignal }) {
      find(endpointId, requestId);
      return streamOf(requests, requestId, logs, abortSignal);
    },

    async subscribeToStatus(endpointId, { requestId, logs = false, timeout, onQueueUpdate, abortSignal }) {
      find(endpointId, requestId);
      const timer = timeout === undefined ? undefined : AbortSignal.timeout(timeout);
      const signal = AbortSignal.any([abortSignal, timer].filter((each) => each !== undefined));
      try {
        for await (const { status } of requests.watch(requestId, logs, signal)) {
          const current = requests.status(requestId, logs ? 0 : undefined); // with every log line, as polling gives them
          onQueueUpdate?.(current);
          if (status === 'COMPLETED') break;
        }
      } catch (error) {
        requests.cancel(requestId);
        if (!signal.aborted) throw error; // of onQueueUpdate
        const late = `Client timed out waiting for the request to complete after ${timeout}ms`;
        throw cancelled(timer?.aborted ? late : 'The request was cancelled by its abortSignal.', requestId);
      }
      return requests.status(requestId, logs ? 0 : undefined) as CompletedStatus;
    },

    async result(endpointId, { requestId }) {
      find(endpointId, requestId);
      const outcome = requests.outcome(requestId);
      if (!outcome) {
        const message = 'Request is still in progress';
        throw new ApiError({ status: 400, body: { detail: message }, code: 'bad-request', message }, requestId);
      }
      if ('answer' in outcome) return { data: outcome.answer, requestId };
      const { failure } = outcome;
      throw failure.status === 422 ? new ValidationError(failure, requestId) : new ApiError(failure, requestId);
    },

    async cancel(endpointId, { requestId }) {
      find(endpointId, requestId);
      const message = requests.cancel(requestId);
      if (message === 'CANCELLATION_REQUESTED') return;
      throw new ApiError({ status: 400, body: { detail: message }, code: 'bad-request', message }, requestId);
    },
  };

  /** Refuses what is not here. A request may be named by the endpoint or by its first two parts. */
  function find(endpointId: string, requestId: string): void {
    if (endpointId !== ENDPOINT_ID && endpointId !== APPLICATION_ID)
      throw notFound(`Application "${endpointId}" not found.`);
    if (!requests.has(requestId)) throw notFound(`Request "${requestId}" not found.`, requestId);
  }

  async function subscribe(endpointId: string, options: SubscribeOptions): Promise<Result> {
    const { input, priority, abortSignal, onEnqueue, ...follow } = options;
    const { mode: _, pollInterval: __, logs, timeout, onQueueUpdate, ...rest } = follow;
    const submitted = {
      ...rest,
      ...(input && { input }),
      ...(priority && { priority }),
      ...(abortSignal && { abortSignal }),
    };
    const { request_id: requestId } = await queue.submit(endpointId, submitted);
    onEnqueue?.(requestId);
    await queue.subscribeToStatus(endpointId, {
      requestId,
      ...(logs !== undefined && { logs }),
      ...(timeout !== undefined && { timeout }),
      ...(onQueueUpdate && { onQueueUpdate }),
      ...(abortSignal && { abortSignal }),
    });
    return queue.result(endpointId, { requestId });
  }

  return { queue, subscribe, run: subscribe };
}

function notFound(message: string, requestId = ''): ApiError {
  return new ApiError({ status: 404, body: { detail: message }, code: 'bad-request', message }, requestId);
}

function cancelled(message: string, requestId: string): ApiError {
  return new ApiError(failureOf(new ZoetropeError('aborted', message)), requestId);
}

function streamOf(requests: Queue, requestId: string, logs: boolean, outer?: AbortSignal): StatusStream {
  const controller = new AbortController();
  const stop = () => controller.abort();
  if (outer?.aborted) stop();
  outer?.addEventListener('abort', stop, { once: true });
  const listeners: Record<'data' | 'error' | 'done', ((event: never) => void)[]> = { data: [], error: [], done: [] };
  const emit = (type: keyof typeof listeners, event: unknown) => {
    for (const listener of listeners[type]) listener(event as never);
  };
  const follow = async (): Promise<QueueStatus> => {
    let last = requests.status(requestId);
    try {
      for await (const status of requests.watch(requestId, logs, controller.signal)) {
        last = status;
        emit('data', status);
      }
    } catch (error) {
      // Ending a stream on purpose is no error of it.
      if (!controller.signal.aborted) {
        emit('error', error);
        throw error;
      }
    }
    emit('done', last);
    return last;
  };
  // After the caller has had a chance to listen.
  const finished = Promise.resolve().then(follow);
  void finished.catch(() => undefined).then(() => outer?.removeEventListener('abort', stop));
  return {
    on: (type, listener) => void listeners[type].push(listener),
    done: () => finished,
    abort: stop,
    signal: controller.signal,
    requestId,
    [Symbol.asyncIterator]: () => requests.watch(requestId, logs, controller.signal),
  };
}
