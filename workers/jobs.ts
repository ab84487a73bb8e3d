import { messageOf, ZoetropeError } from '../src/errors';
import type { LogEntry } from '../src/protocol';
import { cannotKeep, staysAfter } from '../src/recovery';
import { type HeldJob, JOBS_ROOT, Jobs, type NewJob } from '../src/store/jobs';
import { openOpfs } from '../src/store/opfs';

/** The worker's list of unfinished jobs, over this origin's private file system. */

let opened: Promise<Jobs> | undefined;

/** Throws `storage-unavailable` where the browser has none. */
function openJobs(): Promise<Jobs> {
  opened ??= openOpfs(navigator.storage, JOBS_ROOT)
    .then((disk) => new Jobs({ disk, locks: navigator.locks, now: () => Date.now() }))
    .catch((error: unknown) => {
      opened = undefined;
      throw error;
    });
  return opened;
}

/** Work on the list, with a name for whatever the browser throws. */
export async function onJobs<T>(work: (jobs: Jobs) => Promise<T>): Promise<T> {
  try {
    return await work(await openJobs());
  } catch (cause) {
    if (cause instanceof ZoetropeError) throw cause;
    const message = `The browser's storage failed: ${messageOf(cause)}. Try again, or reload the page.`;
    throw new ZoetropeError('storage-unavailable', message, { cause });
  }
}

/** A job while it runs, as far as it can be kept. */
export interface Running {
  job: HeldJob | undefined;
  /** Steps that are kept. */
  stepsKept: number;
}

/**
 * Runs work as a kept job, which is forgotten at its end unless it may be continued.
 * @param created a new job; where it cannot be kept, the work runs all the same.
 */
export async function keeping<T>(
  id: string,
  signal: AbortSignal,
  log: (entry: LogEntry) => void,
  work: (running: Running) => Promise<T>,
  created?: NewJob,
): Promise<T> {
  let began = false;
  const run = async (job: HeldJob | undefined): Promise<T> => {
    began = true;
    const running: Running = { job, stepsKept: job?.stepsKept ?? 0 };
    let stays = false;
    try {
      return await work(running);
    } catch (cause) {
      const error = cause instanceof ZoetropeError ? cause : new ZoetropeError('internal', messageOf(cause), { cause });
      stays = staysAfter(error, running.stepsKept);
      throw error;
    } finally {
      // What cannot be removed now is shown as unfinished, and can be then.
      if (!stays) await job?.remove().catch(() => undefined);
    }
  };
  try {
    return await onJobs((jobs) => jobs.run(id, signal, run, created));
  } catch (error) {
    const storage = error instanceof ZoetropeError && error.code === 'storage-unavailable';
    if (began || !created || !storage) throw error;
    log({ level: 'warning', message: cannotKeep(error) });
    return run(undefined);
  }
}
