import { messageOf, ZoetropeError } from '../src/errors';
import type { StoreProgress } from '../src/protocol';
import type { StoreHost } from '../src/store/disk';
import { MODELS_ROOT, openOpfs } from '../src/store/opfs';
import { sleep } from '../src/store/patience';
import type { StoreWork } from '../src/store/work';

/** This origin's private file system as workers use it, and work on it that can be stopped. */

let opened: Promise<StoreHost> | undefined;

/** The store and what it works with. Throws `storage-unavailable` where the browser has none. */
function openStore(): Promise<StoreHost> {
  opened ??= startStore().catch((error: unknown) => {
    opened = undefined;
    throw error;
  });
  return opened;
}

async function startStore(): Promise<StoreHost> {
  return {
    disk: await openOpfs(navigator.storage, MODELS_ROOT),
    fetch: (url, init) => fetch(url, init),
    locks: navigator.locks,
    channel: (name) => new BroadcastChannel(name),
    now: () => Date.now(),
    sleep,
    random: Math.random,
  };
}

/** As {@link openStore}, for those who can do without one. */
export function openStorage(): Promise<StoreHost | undefined> {
  return openStore().catch((error: unknown) => {
    if (error instanceof ZoetropeError && error.code === 'storage-unavailable') return undefined;
    throw error;
  });
}

const jobs = new Map<string, AbortController>();

/** Work on the store, with a name for whatever the browser throws. */
export async function onStore<T>(work: (host: StoreHost) => Promise<T>): Promise<T> {
  try {
    return await work(await openStore());
  } catch (cause) {
    if (cause instanceof ZoetropeError) throw cause;
    const message = `The browser's storage failed: ${messageOf(cause)}. Try again, or reload the page.`;
    throw new ZoetropeError('storage-unavailable', message, { cause });
  }
}

/** Runs work that {@link stopJob} can end. */
export async function stoppable<T>(
  job: string,
  report: (progress: StoreProgress) => void,
  run: (host: StoreHost, work: StoreWork) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  jobs.set(job, controller);
  try {
    return await onStore((host) => run(host, { signal: controller.signal, onProgress: report }));
  } finally {
    jobs.delete(job);
  }
}

/** Ends the work of that name with `aborted`; nothing happens when it is over. */
export function stopJob(job: string): void {
  jobs.get(job)?.abort();
}
