import { messageOf, ZoetropeError } from '../errors';

/** The page's side of the worker boundary. */

/** Starts a worker of this library's one script. */
export function startWorker(): Worker {
  return new Worker(new URL('../../workers/engine.ts', import.meta.url), { type: 'module', name: 'zoetrope' });
}

/** The death of a worker, which rejects `promise` with `worker-died`. comlink never settles calls to a dead worker. */
export interface Death {
  promise: Promise<never>;
  /** Declares the worker dead; `why` is a sentence. */
  kill(why: string): void;
}

/** @param wayOut is the end of the message: what to do about it. */
export function watchDeath(worker: Worker, wayOut: string): Death {
  let kill: (why: string) => void = () => undefined;
  const promise = new Promise<never>((_, reject) => {
    kill = (why) => reject(new ZoetropeError('worker-died', `${why} ${wayOut}`));
    worker.addEventListener('error', (event) => {
      // A failed script load has no message.
      kill(`The engine's worker died: ${event.message || 'its script could not be loaded'}.`);
    });
    worker.addEventListener('messageerror', () => kill('A message from the engine could not be read.'));
  });
  promise.catch(() => undefined); // Nobody may be waiting when it dies.
  return { promise, kill };
}

/** A caller's callback must not end the job by throwing; what it throws is reported where uncaught errors go. */
export function guard<T>(callback: ((value: T) => void) | undefined): (value: T) => void {
  return (value) => {
    try {
      callback?.(value);
    } catch (error) {
      reportError(error instanceof Error ? error : new Error(messageOf(error)));
    }
  };
}
