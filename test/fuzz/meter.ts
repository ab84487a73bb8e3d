import { getHeapStatistics } from 'node:v8';
import { messageOf, ZoetropeError } from '../../src/errors';

/** Runs a parser once and measures what it did. */

/**
 * A parser under test, which throws or rejects with `ZoetropeError`. A text that it gives tells one kind of result from
 * another. It calls `step` between what it is asked for one after the other (a slice of values, a part of a text), so
 * that each is measured by itself.
 */
export type Parser = (input: Uint8Array, step: () => void) => unknown;

export interface Outcome {
  /** What the parser gave. */
  value: unknown;
  /** Undefined when the input was accepted. */
  error: unknown;
  milliseconds: number;
  /**
   * Bytes of all buffers made in one step (`external_memory` of V8 counts them as they are made), freed ones included;
   * of the step that made most.
   */
  bufferBytes: number;
  /** Bytes of all strings, lists and objects made; less than that when V8 collected garbage meanwhile. */
  heapBytes: number;
}

export async function measure(parser: Parser, input: Uint8Array): Promise<Outcome> {
  const before = getHeapStatistics();
  const began = performance.now();
  let value: unknown;
  let error: unknown;
  let buffers = before.external_memory;
  let bufferBytes = 0;
  const step = () => {
    const now = getHeapStatistics().external_memory;
    bufferBytes = Math.max(bufferBytes, now - buffers);
    buffers = now;
  };
  try {
    value = await parser(input, step);
  } catch (thrown) {
    error = thrown;
  }
  const milliseconds = performance.now() - began;
  const after = getHeapStatistics();
  step();
  return {
    value,
    error,
    milliseconds,
    bufferBytes,
    heapBytes: after.used_heap_size - before.used_heap_size,
  };
}

/** Processor time of a run: what else the machine does makes it little longer. */
export async function processorMs(parser: Parser, input: Uint8Array): Promise<number> {
  const before = process.cpuUsage();
  await measure(parser, input);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/**
 * What a parser may take. Buffers: twice the input, as the issue says. Strings and objects: V8's own for what JSON
 * writes in two characters (an empty list takes 16 bytes and its place in another one), some of them twice. The
 * constant parts are for the error, for names that a schema expects, and for V8's own tables.
 */
export interface Limits {
  bufferFactor: number;
  bufferBytes: number;
  /** Buffers of other files that are read along with the input. */
  besidesBytes: number;
  heapFactor: number;
  heapBytes: number;
  /** Of the quickest of some runs, in processor time, because others use the machine too. */
  milliseconds: number;
}

export const LIMITS: Limits = {
  bufferFactor: 2,
  bufferBytes: 4096,
  besidesBytes: 0,
  heapFactor: 64,
  heapBytes: 512 * 1024,
  milliseconds: 10,
};

/** What is wrong with an outcome; undefined when nothing is. */
export function fault({ error, bufferBytes, heapBytes }: Outcome, length: number, limits: Limits): string | undefined {
  if (error !== undefined && !(error instanceof ZoetropeError)) {
    const stack = error instanceof Error ? error.stack : '';
    return `an exception of another class: ${messageOf(error)}\n${stack}`;
  }
  if (error instanceof ZoetropeError && error.code === 'internal') {
    return `an error that accuses this project itself: ${error.message}\n${error.stack}`;
  }
  if (bufferBytes > limits.bufferFactor * length + limits.bufferBytes + limits.besidesBytes) {
    return `buffers of ${bufferBytes} bytes for an input of ${length}`;
  }
  if (heapBytes > limits.heapFactor * length + limits.heapBytes) {
    return `${heapBytes} bytes of objects for an input of ${length}`;
  }
  return undefined;
}
