import { throwIfAborted, ZoetropeError } from '../src/errors';

/** The engine's jobs, one after the other. */

/** Resolves when every job so far is over, however it ended. */
let turn: Promise<unknown> = Promise.resolve();
/** Jobs that run or wait for their turn, by id. */
const jobs = new Map<string, AbortController>();

/** Whether no job runs or waits. */
export function isIdle(): boolean {
  return jobs.size === 0;
}

/** Cancels a job that runs or waits; nothing happens where there is none. */
export function cancelJob(id: string): void {
  jobs.get(id)?.abort();
}

/** Runs jobs one after the other. A job that is cancelled while it waits rejects at once and never starts. */
export async function inTurn<T>(signal: AbortSignal, job: () => Promise<T>): Promise<T> {
  const before = turn;
  let end: () => void = () => undefined;
  turn = Promise.all([before, new Promise<void>((resolve) => (end = resolve))]);
  try {
    await Promise.race([before, new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))]);
    throwIfAborted(signal);
    return await job();
  } finally {
    end();
  }
}

/**
 * Runs a job when its turn has come, under the id that cancels it. Throws `job-in-use` while one of that id runs or
 * waits: two could not be told apart when one of them is cancelled.
 */
export async function inLine<T>(id: string, job: (signal: AbortSignal) => Promise<T>): Promise<T> {
  if (jobs.has(id)) {
    throw new ZoetropeError(
      'job-in-use',
      `The job ${id} runs or waits here already. Wait until it is done, or cancel it.`,
    );
  }
  const controller = new AbortController();
  jobs.set(id, controller);
  try {
    return await inTurn(controller.signal, () => job(controller.signal));
  } finally {
    jobs.delete(id);
  }
}
