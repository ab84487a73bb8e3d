import { freeBuffer } from './chunks';

/**
 * Verified pieces in a few buffers that are used over and over: what is read of a model passes through them and nowhere
 * else, and buffers of this size made anew for each piece would be collected late.
 */

/** Buffers. Three readers at a time, such as a stream with its next blocks, do not take a piece from one another. */
const BUFFERS = 3;

interface Held {
  key: string;
  buffer: Uint8Array;
  /** Settles when the piece is there. */
  loading: Promise<unknown>;
  /** Readers that wait for it or copy from it. */
  users: number;
}

export class PieceCache {
  /** The least recently used first. */
  readonly #held: Held[] = [];
  #made = 0;
  readonly #free: Uint8Array[] = [];
  readonly #waiting: (() => void)[] = [];

  /** @param largestBytes of any piece. */
  constructor(private readonly largestBytes: number) {}

  /**
   * Lets `work` look at a piece, loading it unless it is there; two who ask at a time share one load. A load that fails
   * is forgotten.
   * @param load fills the buffer.
   * @param work must be done with the bytes when it returns.
   */
  async use(
    key: string,
    sizeBytes: number,
    load: (buffer: Uint8Array) => Promise<void>,
    work: (bytes: Uint8Array) => void,
  ): Promise<void> {
    const held = await this.#hold(key, sizeBytes, load);
    try {
      await held.loading;
      work(held.buffer.subarray(0, sizeBytes));
    } catch (error) {
      this.#forget(held);
      throw error;
    } finally {
      held.users--;
      if (held.users === 0) {
        if (!this.#held.includes(held)) this.#free.push(held.buffer);
        this.#waiting.shift()?.();
      }
    }
  }

  /** Forgets pieces; buffers that nobody looks at are freed. */
  release(keys: (key: string) => boolean): void {
    for (const held of this.#held.filter(({ key }) => keys(key))) {
      this.#forget(held);
      if (held.users === 0) this.#free.push(held.buffer);
    }
    this.#made -= this.#free.length;
    for (const buffer of this.#free.splice(0)) freeBuffer(buffer);
  }

  async #hold(key: string, sizeBytes: number, load: (buffer: Uint8Array) => Promise<void>): Promise<Held> {
    for (;;) {
      const found = this.#held.find((held) => held.key === key);
      if (found) {
        found.users++;
        this.#held.push(...this.#held.splice(this.#held.indexOf(found), 1));
        return found;
      }
      const buffer = this.#buffer();
      if (buffer) {
        const held = { key, buffer, loading: load(buffer.subarray(0, sizeBytes)), users: 1 };
        this.#held.push(held);
        return held;
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** A buffer that nobody looks at; undefined when there is none. */
  #buffer(): Uint8Array | undefined {
    const free = this.#free.pop();
    if (free) return free;
    if (this.#made < BUFFERS) {
      this.#made++;
      return new Uint8Array(this.largestBytes);
    }
    const idle = this.#held.find(({ users }) => users === 0);
    if (!idle) return undefined;
    this.#forget(idle);
    return idle.buffer;
  }

  #forget(held: Held): void {
    const index = this.#held.indexOf(held);
    if (index >= 0) this.#held.splice(index, 1);
  }
}
