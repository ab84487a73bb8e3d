import { type Convert, type ConvertedSlice, convertSlice, type SliceTask } from '../checkpoint/convert';
import type { Checkpoint } from '../checkpoint/weights';
import { messageOf, ZoetropeError, type ZoetropeErrorCode } from '../errors';

/**
 * Converts slices in threads, one for each core: threads of Node or workers of a browser. Every thread opens the
 * sources itself and reads, decodes and quantises what it is told; the one that asks hashes and writes.
 */

/** Most threads of one import, because each holds some 50 MiB. */
const MAX_THREADS = 16;

/** Threads for so many cores. */
export function threadCount(cores: number): number {
  return Math.min(MAX_THREADS, Math.max(1, cores));
}

/** What a thread is sent. */
export interface Order {
  id: number;
  task: SliceTask;
}

/** What it sends back. */
export type Answer =
  | { id: number; slice: ConvertedSlice }
  | { id: number; error: { code: ZoetropeErrorCode; message: string } };

/** A thread's work on one order: the answer, and the buffers to move with it. Never rejects. */
export async function answerOrder(
  checkpoint: Promise<Pick<Checkpoint, 'weights'>>,
  { id, task }: Order,
): Promise<{ answer: Answer; transfer: ArrayBufferLike[] }> {
  try {
    const slice = await convertSlice((await checkpoint).weights[task.component]!, task);
    const arrays = [slice.bytes, slice.scales, slice.zeroPoints].filter((array) => array !== undefined);
    // A view of a larger buffer is copied; what owns its buffer moves.
    const owners = arrays.filter((array) => array.byteLength === array.buffer.byteLength);
    return { answer: { id, slice }, transfer: [...new Set(owners.map(({ buffer }) => buffer))] };
  } catch (error) {
    const code = error instanceof ZoetropeError ? error.code : 'internal';
    return { answer: { id, error: { code, message: messageOf(error) } }, transfer: [] };
  }
}

interface Pending {
  resolve(slice: ConvertedSlice): void;
  reject(error: ZoetropeError): void;
}

/** One thread as the asking side knows it, with the orders that it has. */
export class ConvertThread {
  readonly pending = new Map<number, Pending>();
  #next = 0;
  #dead: ZoetropeError | undefined;

  /** @param send posts an order to the thread. */
  constructor(private readonly send: (order: Order) => void) {}

  convert(task: SliceTask): Promise<ConvertedSlice> {
    if (this.#dead) return Promise.reject(this.#dead);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      this.send({ id, task });
    });
  }

  /** Takes an answer that came from the thread. */
  receive(answer: Answer): void {
    const pending = this.pending.get(answer.id);
    this.pending.delete(answer.id);
    if ('slice' in answer) pending?.resolve(answer.slice);
    else pending?.reject(new ZoetropeError(answer.error.code, answer.error.message));
  }

  /** The thread is gone: what it had and what it is asked from now on rejects with `worker-died`. */
  fail(why: string): void {
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

/** Gives each task to the thread that has the fewest. */
export function poolOf(threads: readonly ConvertThread[], close: () => Promise<void>): ConvertPool {
  return {
    ahead: 2 * threads.length,
    convert: (task) => threads.reduce((a, b) => (b.pending.size < a.pending.size ? b : a)).convert(task),
    close,
  };
}
