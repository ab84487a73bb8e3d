import { unlessAborted, ZoetropeError } from '../errors';
import { encodeF16, F16_INFINITY, floatBytes } from '../floats';
import { quantizeRows } from './quantize';
import type { PlannedTensor, Storage } from './storage';
import type { WeightComponent, Weights } from './weights';

/** Values converted at a time: 8 MiB as f32. Bounds the memory of an import, whatever the size of a tensor. */
const SLICE_VALUES = 2 * 1024 * 1024;

/** Some whole rows (first axis) of a tensor to convert. Plain data, so that another thread can be told. */
export interface SliceTask {
  component: WeightComponent;
  name: string;
  storage: Storage;
  /** Elements, row-major; `end` is exclusive. */
  begin: number;
  end: number;
}

/** A slice as it will lie in the model folder. */
export interface ConvertedSlice {
  /** Floats, or the packed integers of a quantised matrix. */
  bytes: Uint8Array;
  /** One for each block of a quantised matrix, as in {@link quantizeRows}. */
  scales?: Float32Array;
  /** One byte for each block. */
  zeroPoints?: Uint8Array;
}

/** Converts slices: here, or in other threads. */
export type Convert = (task: SliceTask) => Promise<ConvertedSlice>;

/** Cuts a tensor into slices of whole rows, none much longer than {@link SLICE_VALUES}. */
export function sliceTasks(component: WeightComponent, { name, shape, storage }: PlannedTensor): SliceTask[] {
  const rowLength = shape.slice(1).reduce((product, size) => product * size, 1);
  const total = shape[0]! * rowLength;
  const step = Math.max(1, Math.floor(SLICE_VALUES / rowLength)) * rowLength;
  const tasks: SliceTask[] = [];
  for (let begin = 0; begin < total; begin += step) {
    tasks.push({ component, name, storage, begin, end: Math.min(total, begin + step) });
  }
  return tasks;
}

function toF16(values: Float32Array, name: string): Uint8Array {
  const words = encodeF16(values);
  for (const word of words) {
    // The source's values are finite, so an infinity here is one of 65520 or more.
    if ((word & 0x7fff) === F16_INFINITY) {
      throw new ZoetropeError(
        'bad-checkpoint',
        `"${name}" holds values beyond the range of 16-bit floats (65504), which no Wan checkpoint does. Check the source.`,
      );
    }
  }
  return floatBytes(words);
}

/**
 * Reads and converts one slice. Blocks that are ours already are moved without quantising them again, so that Q8_0 and
 * Q4_0 keep every value. Throws `bad-checkpoint` for values that no intact checkpoint holds.
 */
export async function convertSlice(weights: Weights, task: SliceTask): Promise<ConvertedSlice> {
  const { name, storage, begin, end } = task;
  if (storage === 'q8' || storage === 'q4') {
    const bits = storage === 'q8' ? 8 : 4;
    const rows =
      (await weights.readBlocks(name, begin, end, bits)) ??
      quantizeRows(await weights.readFloats(name, begin, end), bits);
    return { bytes: rows.packed, scales: rows.scales, zeroPoints: rows.zeroPoints };
  }
  const values = await weights.readFloats(name, begin, end);
  return { bytes: storage === 'F32' ? floatBytes(values) : toF16(values, name) };
}

/**
 * Results of the tasks in their order, with up to `ahead` of them under way at once. After a failure or an early end no
 * task is left running; only after an abort, which a source that says nothing more must not hold up, they end by
 * themselves.
 */
export async function* convertAhead(
  tasks: Iterable<SliceTask>,
  convert: Convert,
  ahead: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<ConvertedSlice> {
  const running: Promise<ConvertedSlice>[] = [];
  const source = tasks[Symbol.iterator]();
  const start = () => {
    const { done, value } = source.next();
    if (done) return;
    const result = convert(value);
    result.catch(() => undefined); // It is awaited later, in its turn.
    running.push(result);
  };
  try {
    while (running.length < ahead) {
      const before = running.length;
      start();
      if (running.length === before) break;
    }
    while (running.length > 0) {
      const slice = await unlessAborted(running[0]!, signal);
      running.shift();
      start();
      yield slice;
    }
  } finally {
    if (!signal?.aborted) await Promise.allSettled(running);
  }
}
