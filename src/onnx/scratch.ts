const ELEMENT_BYTES = { float32: 4, float16: 2, int32: 4, int64: 8, uint8: 1, bool: 1 };

/** What the plan has to know of a value. */
interface Sized {
  readonly dtype: keyof typeof ELEMENT_BYTES;
  readonly shape: readonly number[];
}

/** What the plan has to know of a node. */
interface Step<V> {
  readonly type: string;
  readonly inputs: readonly (V | null)[];
  readonly outputs: readonly V[];
}

/** Where a graph's intermediate values lie: several share a slot of memory, one after the other. */
export interface ScratchPlan<V> {
  /** Values that need memory while the graph runs, each with its slot. */
  values: readonly { value: V; slot: number }[];
  /** Bytes of each slot, largest first, multiples of 16. */
  slotBytes: readonly number[];
}

/**
 * Memory for everything between a graph's inputs and outputs. Two values share a slot only if all readers of the first
 * come before the maker of the second on every way through the graph, so the plan holds for any order of execution. A
 * Reshape renames its input's memory.
 * @param nodes in a topological order.
 * @param isOutput whether a value is an output of the graph, which lies elsewhere.
 */
export function planScratch<V extends Sized>(
  nodes: readonly Step<V>[],
  isOutput: (value: V) => boolean,
): ScratchPlan<V> {
  const maker = new Map<V, number>();
  const readers = new Map<V, number[]>();
  /** The value whose memory a value has: itself, or what it reshapes. */
  const root = new Map<V, V>();
  /** For each node, the nodes that must run before it. */
  const before: Set<number>[] = [];
  nodes.forEach(({ type, inputs, outputs }, index) => {
    const own = new Set<number>();
    for (const input of inputs) {
      if (!input) continue;
      const memory = root.get(input) ?? input;
      readers.get(memory)?.push(index);
      const made = maker.get(input);
      if (made !== undefined) for (const node of [made, ...before[made]!]) own.add(node);
    }
    before.push(own);
    for (const output of outputs) {
      maker.set(output, index);
      const renames = type === 'Reshape' && !isOutput(output);
      root.set(output, renames ? (root.get(inputs[0]!) ?? inputs[0]!) : output);
      if (!renames) readers.set(output, []);
    }
  });

  const slots: { sizeBytes: number; held: V[] }[] = [];
  for (const value of readers.keys()) {
    if (isOutput(value)) continue;
    const sizeBytes = valueBytes(value);
    const earlier = before[maker.get(value)!]!;
    const free = slots.filter(({ held }) =>
      held.every(
        (other) => readers.get(other)!.every((reader) => earlier.has(reader)) && earlier.has(maker.get(other)!),
      ),
    );
    // The smallest slot that is large enough, or the largest one, which then grows.
    const fitting = free.filter((slot) => slot.sizeBytes >= sizeBytes).sort((a, b) => a.sizeBytes - b.sizeBytes)[0];
    const slot = fitting ?? free.sort((a, b) => b.sizeBytes - a.sizeBytes)[0];
    if (slot) {
      slot.sizeBytes = Math.max(slot.sizeBytes, sizeBytes);
      slot.held.push(value);
    } else slots.push({ sizeBytes, held: [value] });
  }
  slots.sort((a, b) => b.sizeBytes - a.sizeBytes);
  return {
    values: slots.flatMap(({ held }, slot) => held.map((value) => ({ value, slot }))),
    slotBytes: slots.map(({ sizeBytes }) => sizeBytes),
  };
}

/** Slots that serve each of several graphs, one at a time. */
export function mergeSlots(plans: readonly Pick<ScratchPlan<Sized>, 'slotBytes'>[]): number[] {
  const merged: number[] = [];
  for (const { slotBytes } of plans) {
    slotBytes.forEach((sizeBytes, slot) => {
      merged[slot] = Math.max(merged[slot] ?? 0, sizeBytes);
    });
  }
  return merged;
}

function valueBytes({ dtype, shape }: Sized): number {
  const bytes = shape.reduce((product, size) => product * size, ELEMENT_BYTES[dtype]);
  return Math.max(16, Math.ceil(bytes / 16) * 16);
}
