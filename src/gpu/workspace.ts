import type { Gpu } from './device';
import { type GpuTensor, tensorBytes } from './memory';

/**
 * Memory for what lies between the inputs and outputs of graphs. Graphs run one after the other on the device's queue,
 * so one set of slots serves them all; a slot grows to the largest that any graph asked for.
 */
export class Workspace {
  private readonly slots: GpuTensor[] = [];

  constructor(private readonly gpu: Gpu) {}

  /** Makes room for a graph. Throws `out-of-memory` when a slot exceeds the device's limits. */
  fit(slotBytes: readonly number[]): void {
    slotBytes.forEach((sizeBytes, index) => {
      const slot = this.slots[index];
      if (slot && slot.sizeBytes >= sizeBytes) return;
      slot?.[Symbol.dispose](); // Commands that are queued keep what it holds.
      delete this.slots[index];
      this.slots[index] = this.gpu.memory.tensor(`scratch ${index}`, 'uint8', [sizeBytes]);
    });
  }

  /** The memory of a slot, good until the next {@link fit} or {@link clear}. */
  slot(index: number): GpuTensor {
    return this.slots[index]!;
  }

  /** Frees everything. */
  clear(): void {
    for (const slot of this.slots.splice(0)) slot?.[Symbol.dispose]();
  }
}

/** Bytes of a workspace with these slots. */
export function workspaceBytes(slotBytes: readonly number[]): number {
  return slotBytes.reduce((sum, sizeBytes) => sum + tensorBytes('uint8', [sizeBytes]), 0);
}
