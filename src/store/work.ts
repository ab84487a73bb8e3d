import { ZoetropeError } from '../errors';
import type { StoreProgress } from '../protocol';
import { changeLock, type StoreHost } from './disk';

/** How work on the store is watched and stopped. */
export interface StoreWork {
  signal: AbortSignal;
  onProgress(progress: StoreProgress): void;
}

/** A download's own options. */
export interface DownloadOptions extends StoreWork {
  /** See `TransferOptions.stallMs`. */
  stallMs?: number;
  /** Refuse any other model at the URL. */
  id?: string;
}

/** What the caller is told who stops work on the store. */
export function stopped(): ZoetropeError {
  return new ZoetropeError('aborted', 'The work on the stored model was stopped. What is there stays.');
}

/** Holds the lock of a model while `work` runs. Waits for whoever has it, until the signal. */
export async function holding<T>(
  host: Pick<StoreHost, 'locks'>,
  id: string,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  if (signal.aborted) throw stopped();
  try {
    return await host.locks.request(changeLock(id), { signal }, work);
  } catch (error) {
    if (signal.aborted && !(error instanceof ZoetropeError)) throw stopped();
    throw error;
  }
}

/** Runs work with a signal of its own that carries our error as its reason, whatever the caller's carries. */
export async function stoppable<T>(signal: AbortSignal, work: (inner: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = () => controller.abort(stopped());
  signal.addEventListener('abort', stop, { once: true });
  try {
    if (signal.aborted) throw stopped();
    return await work(controller.signal);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
