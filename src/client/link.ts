import { messageOf, ZoetropeError } from '../errors';

/** The page's side of the worker boundary. */

/** Starts a worker of this library's one script. */
export function startWorker(): Worker {
  return new Worker(new URL('../../workers/engine.ts', import.meta.url), { type: 'module', name: 'zoetrope' });
}

/** What becomes of calls when their worker dies. comlink never settles calls to a dead worker. */
export interface Lifeline {
  /**
   * A call's answer, or `worker-died` as soon as the worker is dead. What is thrown and not ours becomes `internal`.
   */
  call<T>(pending: Promise<T>): Promise<T>;
  /** Ends the worker; `why` is a sentence. */
  kill(why: string): void;
}

/**
 * Ends a worker that has failed, so that it holds neither GPU nor locks any more.
 * @param wayOut is the end of the message: what to do about it.
 * @param onDeath is called once, when the worker is dead.
 */
export function watchWorker(worker: Worker, wayOut: string, onDeath: () => void = () => undefined): Lifeline {
  // Not a race with one promise for all calls: that promise would hold every call's answer, videos too, as long as the
  // worker lives.
  const waiting = new Set<(error: ZoetropeError) => void>();
  let death: ZoetropeError | undefined;
  const kill = (why: string): void => {
    if (death) return;
    death = new ZoetropeError('worker-died', `${why} ${wayOut}`);
    worker.terminate();
    for (const reject of waiting) reject(death);
    waiting.clear();
    onDeath();
  };
  worker.addEventListener('error', (event) => {
    // A failed script load has no message.
    kill(`The engine's worker died: ${event.message || 'its script could not be loaded'}.`);
  });
  worker.addEventListener('messageerror', () => kill('A message from the engine could not be read.'));
  return {
    kill,
    call: (pending) =>
      new Promise((resolve, reject) => {
        if (death) reject(death);
        else waiting.add(reject);
        const fail = (error: unknown): void =>
          reject(
            error instanceof ZoetropeError ? error : new ZoetropeError('internal', messageOf(error), { cause: error }),
          );
        void pending.then(resolve, fail).then(() => waiting.delete(reject));
      }),
  };
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
