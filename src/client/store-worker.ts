import { type Remote, wrap } from 'comlink';
import type { StoreWorkerSide } from '../import/protocol';
import { watchWorker } from './link';

/** The store's worker, and a way to end with it. */
export interface StoreLink {
  worker: Remote<StoreWorkerSide>;
  call<T>(pending: Promise<T>): Promise<T>;
}

let link: StoreLink | undefined;

function startStoreWorker(): Worker {
  return new Worker(new URL('../../workers/store.ts', import.meta.url), { type: 'module', name: 'zoetrope-store' });
}

/**
 * Models are stored and imported by a worker of their own, started at the first call, so that they never wait for a
 * video.
 */
export function connectStore(): StoreLink {
  if (link) return link;
  const started = startStoreWorker();
  const { call } = watchWorker(started, 'Try again; what is stored stays.', () => {
    link = undefined;
  });
  link = { worker: wrap<StoreWorkerSide>(started), call };
  return link;
}
