import { ZoetropeError } from '../errors';
import type { LogEntry, Progress, Timings } from '../protocol';
import { parseRequest, type Request, type ResolvedRequest } from '../request';
import { APPLICATION_ID } from './endpoint';
import { type Failure, failureOf } from './failure';
import { type QueueStatus, type RequestLog, requestUrls } from './status';

/** The endpoint's answer, with what we add to it. */
export interface Answer {
  video: { url: string; content_type: string; file_name: string; file_size: number };
  /** The prompt that was used. */
  prompt: string;
  seed: number;
  /** Ours. */
  timings: Timings;
  /** Ours: every field as it was used. */
  request: ResolvedRequest;
}

/** Whatever makes videos: an opened Zoetrope. */
export interface Generator {
  generate(
    request: Request,
    options: {
      signal?: AbortSignal;
      onProgress?: (progress: Progress) => void;
      onLog?: (entry: LogEntry) => void;
    },
  ): Promise<Answer>;
}

/** How a request ended. */
export type Outcome = { answer: Answer } | { failure: Failure };

/** What the queue takes from its host. */
export interface QueueHost {
  generator: Generator;
  /** Milliseconds since 1970. */
  now(): number;
  newId(): string;
  /** What the addresses of requests begin with, without a final slash. */
  baseUrl: string;
}

interface Job {
  id: string;
  /** Undefined when the body was refused. */
  request: Request | undefined;
  low: boolean;
  controller: AbortController;
  logs: RequestLog[];
  startedMs: number | undefined;
  endedMs: number | undefined;
  outcome: Outcome | undefined;
  /** Called at every change. */
  watchers: Set<() => void>;
}

/** Finished requests that stay readable; older ones are forgotten. */
const KEPT = 100;

/**
 * The queue of the endpoint: requests run one after the other, `low` ones when nothing else waits. As on the hosted
 * one, a body that breaks the schema is accepted, is COMPLETED at once, and its result is the refusal.
 */
export class Queue {
  private readonly jobs = new Map<string, Job>();
  private waiting: Job[] = [];
  private running: Job | undefined;

  constructor(private readonly host: QueueHost) {}

  /** Puts a request into the queue and returns its id. */
  submit(body: unknown, priority: 'normal' | 'low' = 'normal'): string {
    const job: Job = {
      id: this.host.newId(),
      request: undefined,
      low: priority === 'low',
      controller: new AbortController(),
      logs: [],
      startedMs: undefined,
      endedMs: undefined,
      outcome: undefined,
      watchers: new Set(),
    };
    this.jobs.set(job.id, job);
    try {
      job.request = parseRequest(body);
    } catch (error) {
      this.end(job, { failure: failureOf(error) });
      return job.id;
    }
    const firstLow = this.waiting.findIndex(({ low }) => low);
    this.waiting.splice(job.low || firstLow < 0 ? this.waiting.length : firstLow, 0, job);
    // After the caller has its id, so that a request is seen in the queue before it runs.
    queueMicrotask(() => this.next());
    return job.id;
  }

  has(id: string): boolean {
    return this.jobs.has(id);
  }

  /** @param from index of the first log line to give; undefined for none. */
  status(id: string, from?: number): QueueStatus {
    const job = this.job(id);
    const base = { request_id: id, ...requestUrls(this.host.baseUrl, APPLICATION_ID, id) };
    const logs = from === undefined ? [] : job.logs.slice(from);
    if (job.outcome) {
      const { startedMs, endedMs } = job;
      const seconds = startedMs === undefined ? null : (endedMs! - startedMs) / 1000;
      return { ...base, status: 'COMPLETED', logs, metrics: { inference_time: seconds } };
    }
    if (job === this.running) return { ...base, status: 'IN_PROGRESS', logs };
    return { ...base, status: 'IN_QUEUE', queue_position: this.waiting.indexOf(job) };
  }

  /**
   * The status now and at every change until it is COMPLETED; log lines come once each.
   * Throws `aborted` when the signal fires.
   */
  async *watch(id: string, logs: boolean, signal?: AbortSignal): AsyncGenerator<QueueStatus> {
    const job = this.job(id);
    let seen = 0;
    let last = '';
    let wake: () => void = () => undefined;
    const changed = () => wake();
    job.watchers.add(changed);
    signal?.addEventListener('abort', changed);
    try {
      for (;;) {
        if (signal?.aborted) throw new ZoetropeError('aborted', `Watching request ${id} was ended by its signal.`);
        const next = new Promise<void>((resolve) => (wake = resolve));
        const status = this.status(id, logs ? seen : undefined);
        const fresh = logs && job.logs.length > seen && status.status !== 'IN_QUEUE';
        if (fresh) seen = job.logs.length;
        const key = status.status === 'IN_QUEUE' ? `${status.queue_position}` : status.status;
        if (fresh || key !== last) yield status;
        last = key;
        if (status.status === 'COMPLETED') return;
        await next;
      }
    } finally {
      job.watchers.delete(changed);
      signal?.removeEventListener('abort', changed);
    }
  }

  /** How the request ended; undefined while it has not. */
  outcome(id: string): Outcome | undefined {
    return this.job(id).outcome;
  }

  /** Ends a request: one that waits at once, one that runs as soon as the engine lets go. */
  cancel(id: string): 'CANCELLATION_REQUESTED' | 'ALREADY_COMPLETED' {
    const job = this.job(id);
    if (job.outcome) return 'ALREADY_COMPLETED';
    job.controller.abort();
    if (job !== this.running) {
      this.waiting = this.waiting.filter((other) => other !== job);
      const error = new ZoetropeError('aborted', `Request ${id} was cancelled before it ran.`);
      this.end(job, { failure: failureOf(error) });
      this.positionsChanged();
    }
    return 'CANCELLATION_REQUESTED';
  }

  private job(id: string): Job {
    const job = this.jobs.get(id);
    if (!job) throw new ZoetropeError('bad-request', `There is no request "${id}" in this queue.`);
    return job;
  }

  private next(): void {
    if (this.running) return;
    const job = this.waiting.shift();
    if (!job) return;
    this.running = job;
    job.startedMs = this.host.now();
    notify(job);
    this.positionsChanged();
    void this.run(job).then((outcome) => {
      this.running = undefined;
      this.end(job, outcome);
      this.next();
    });
  }

  private async run(job: Job): Promise<Outcome> {
    let stage = '';
    const log = (message: string, level: RequestLog['level'] = 'INFO') => {
      job.logs.push({ message, level, source: 'USER', timestamp: new Date(this.host.now()).toISOString() });
      notify(job);
    };
    try {
      const answer = await this.host.generator.generate(job.request!, {
        signal: job.controller.signal,
        onProgress(progress) {
          const steps = progress.stage === 'diffusion' && progress.done > 0;
          if (progress.stage === stage && !steps) return;
          stage = progress.stage;
          log(steps ? `diffusion: step ${progress.done} of ${progress.total}` : stage);
        },
        onLog: ({ level, message }) => log(message, level === 'warning' ? 'WARN' : 'INFO'),
      });
      return { answer: answerOf(answer) };
    } catch (error) {
      return { failure: failureOf(error) };
    }
  }

  private end(job: Job, outcome: Outcome): void {
    job.outcome = outcome;
    job.endedMs = this.host.now();
    // Behind those that ended before it, which are forgotten before it.
    this.jobs.delete(job.id);
    this.jobs.set(job.id, job);
    notify(job);
    const finished = [...this.jobs.values()].filter((other) => other.outcome);
    for (const { id } of finished.slice(0, -KEPT)) this.jobs.delete(id);
  }

  private positionsChanged(): void {
    for (const job of this.waiting) notify(job);
  }
}

function notify(job: Job): void {
  for (const watcher of [...job.watchers]) watcher();
}

/** The parts of a generation that are data; blobs and raw frames stay with whoever has the engine. */
function answerOf({ video, prompt, seed, timings, request }: Answer): Answer {
  const { url, content_type, file_name, file_size } = video;
  return { video: { url, content_type, file_name, file_size }, prompt, seed, timings, request };
}
