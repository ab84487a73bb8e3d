/** What is read of a stream at a time. */
const SHUTTLE_BYTES = 256 * 1024;

/**
 * Buffer through which streams are read, one after the other. Chunks that the browser allocates itself pile up until
 * they are collected: downloading, 355 MiB of them in Chromium 153.
 */
export class Shuttle {
  private buffer: ArrayBuffer | undefined;

  /** Lent for one read, which detaches it. */
  take(): Uint8Array<ArrayBuffer> {
    const lent = this.buffer ?? new ArrayBuffer(SHUTTLE_BYTES);
    this.buffer = undefined; // A read that never ends keeps it.
    return new Uint8Array(lent);
  }

  /** The buffer as the read gave it back. */
  give(buffer: ArrayBuffer): void {
    if (buffer.byteLength === SHUTTLE_BYTES) this.buffer = buffer;
  }
}

export interface Chunk {
  done: boolean;
  /** Good until the next read. */
  value?: Uint8Array | undefined;
}

/** Reads a stream's chunks into the shuttle; where streams of bytes are not to be had, takes them as they are. */
export function chunksOf(
  stream: ReadableStream<Uint8Array>,
  shuttle: Shuttle,
): { read(): Promise<Chunk>; cancel(): Promise<void> } {
  let reader: ReadableStreamBYOBReader;
  try {
    reader = stream.getReader({ mode: 'byob' });
  } catch {
    return stream.getReader();
  }
  return {
    async read() {
      const { done, value } = await reader.read(shuttle.take());
      if (value) shuttle.give(value.buffer as ArrayBuffer);
      return { done, value: done ? undefined : value };
    },
    cancel: () => reader.cancel(),
  };
}

/** Lets an answer's body go. It may have broken off already, which matters to nobody then. */
export async function discard({ body }: Response): Promise<void> {
  await body?.cancel().catch(() => undefined);
}

/**
 * Fills a buffer from a stream. Gives the bytes that came; rejects with whatever the stream fails with. A longer stream
 * is cancelled.
 */
export async function fillFrom(
  stream: ReadableStream<Uint8Array>,
  buffer: Uint8Array,
  shuttle: Shuttle,
): Promise<{ filled: number; longer: boolean }> {
  const chunks = chunksOf(stream, shuttle);
  let filled = 0;
  for (;;) {
    const { value } = await chunks.read();
    if (!value) return { filled, longer: false };
    if (filled + value.length > buffer.length) {
      await chunks.cancel();
      return { filled, longer: true };
    }
    buffer.set(value, filled);
    filled += value.length;
  }
}

/**
 * Gives a buffer's memory back now, where the runtime can (`ArrayBuffer.prototype.transfer`, 2024): else it waits to be
 * collected.
 */
export function freeBuffer({ buffer }: Uint8Array): void {
  (buffer as ArrayBuffer & { transfer?(sizeBytes: number): ArrayBuffer }).transfer?.(0);
}
