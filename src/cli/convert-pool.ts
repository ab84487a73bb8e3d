import { availableParallelism } from 'node:os';
import { type MessagePort, parentPort, type TransferListItem, Worker, workerData } from 'node:worker_threads';
import { type Convert, type ConvertedSlice, convertSlice, type SliceTask } from '../checkpoint/convert';
import { openCheckpoint } from '../checkpoint/open';
import { messageOf, ZoetropeError, type ZoetropeErrorCode } from '../errors';
import { openSources, type SourceArguments } from './sources';

/**
 * Converts slices in threads, one for each core. Every thread opens the sources itself and reads, decodes and quantises what it
 * is told; this one hashes and writes.
 */

type Answer =
  | { id: number; slice: ConvertedSlice }
  | { id: number; error: { code: ZoetropeErrorCode; message: string } };

/** What a thread runs: it answers tasks until it is ended. */
export function serveSlices(): void {
  const port = parentPort as MessagePort;
  const checkpoint = openSources(workerData as SourceArguments).then((sources) => openCheckpoint(sources));
  checkpoint.catch(() => undefined); // Each task answers with it.
  port.on('message', async ({ id, task }: { id: number; task: SliceTask }) => {
    try {
      const slice = await convertSlice((await checkpoint).weights[task.component]!, task);
      const arrays = [slice.bytes, slice.scales, slice.zeroPoints].filter((array) => array !== undefined);
      // A view of a larger buffer is copied; what owns its buffer moves.
      const moved = new Set(
        arrays.filter((array) => array.byteLength === array.buffer.byteLength).map((a) => a.buffer),
      );
      port.postMessage({ id, slice } satisfies Answer, [...moved] as TransferListItem[]);
    } catch (error) {
      const code = error instanceof ZoetropeError ? error.code : 'internal';
      port.postMessage({ id, error: { code, message: messageOf(error) } } satisfies Answer);
    }
  });
}

interface Pending {
  resolve(slice: ConvertedSlice): void;
  reject(error: ZoetropeError): void;
}

/** One thread with the tasks that it has. */
class Thread {
  readonly pending = new Map<number, Pending>();
  readonly worker: Worker;
  #next = 0;
  #dead: ZoetropeError | undefined;

  constructor(script: URL, sources: SourceArguments) {
    const code = `import(${JSON.stringify(script.href)}).then((script) => script.serveSlices())`;
    this.worker = new Worker(code, { eval: true, workerData: sources });
    this.worker.on('message', (answer: Answer) => {
      const pending = this.pending.get(answer.id);
      this.pending.delete(answer.id);
      if ('slice' in answer) pending?.resolve(answer.slice);
      else pending?.reject(new ZoetropeError(answer.error.code, answer.error.message));
    });
    this.worker.on('error', (error) => this.#fail(messageOf(error)));
    this.worker.on('exit', (code) => this.#fail(`it exited with ${code}`));
  }

  convert(task: SliceTask): Promise<ConvertedSlice> {
    if (this.#dead) return Promise.reject(this.#dead);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      this.worker.postMessage({ id, task });
    });
  }

  #fail(why: string): void {
    this.#dead ??= new ZoetropeError('worker-died', `A thread of the import stopped: ${why}. Start the import again.`);
    for (const { reject } of this.pending.values()) reject(this.#dead);
    this.pending.clear();
  }
}

/** Threads for one import. */
export interface ConvertPool {
  convert: Convert;
  /** Slices worth having under way: one running and one waiting for each thread. */
  ahead: number;
  close(): Promise<void>;
}

/**
 * Starts threads.
 * @param script module that exports {@link serveSlices}: the built command.
 * @param count default: as many as there are cores, at most 16, because each holds some 50 MiB.
 */
export function convertPool(
  script: URL,
  sources: SourceArguments,
  count = Math.min(16, availableParallelism()),
): ConvertPool {
  const threads = Array.from({ length: count }, () => new Thread(script, sources));
  return {
    ahead: 2 * count,
    convert(task) {
      const least = threads.reduce((a, b) => (b.pending.size < a.pending.size ? b : a));
      return least.convert(task);
    },
    async close() {
      await Promise.all(threads.map(({ worker }) => worker.terminate()));
    },
  };
}
