import type { ComponentName, Manifest, ManifestFile } from '../manifest';

/**
 * Which weights are on the GPU together: `all` of the model; `one` component at a time, so that the experts change
 * places at the switch; or `streamed`, a block at a time through a few slots.
 */
export type WeightResidency = 'all' | 'one' | 'streamed';

/**
 * Slots of a streamed network: one computes, one waits, one loads. With {@link FEWEST_SLOTS} nothing waits in between.
 */
export const STREAM_SLOTS = 3;
export const FEWEST_SLOTS = 2;

/** Components that are networks of equal blocks, and how their names begin. */
export const BLOCK_PREFIX: Readonly<Partial<Record<ComponentName, string>>> = {
  text_encoder: 'encoder.block.',
  high: 'blocks.',
  low: 'blocks.',
};

/** How a job's weights are held. */
export interface Arrangement {
  /** Of the experts and, where it is `all`, of everything. */
  residency: WeightResidency;
  /** Slots of a streamed expert. */
  slots: number;
  /** Slots of the text encoder where it is streamed; null: it is whole while it works. */
  textSlots: number | null;
}

/** Tensors that stay off the GPU: rows of the embedding table are read one by one. */
const OFF_GPU = 'shared.weight';

/** Bytes of a component's weights on the GPU. */
export interface WeightBytes {
  total: number;
  /** What lies outside the blocks. */
  outside: number;
  /** The largest block. */
  block: number;
  blocks: number;
  /** The largest tensor; matrices are split where it exceeds a binding. */
  largest: number;
}

/** Counts a component's tensors as `Weights` will hold them: blocks as they are, floats in 32 bits. */
export function weightBytes(component: ComponentName, files: readonly ManifestFile[]): WeightBytes {
  const prefix = BLOCK_PREFIX[component];
  let outside = 0;
  let largest = 0;
  const blocks = new Map<string, number>();
  for (const [name, { dtype, shape }] of files.flatMap(({ tensors = {} }) => Object.entries(tensors))) {
    if (name === OFF_GPU) continue;
    const exact = shape.reduce((product, size) => product * size, dtype === 'U8' ? 1 : 4);
    const bytes = Math.max(16, Math.ceil(exact / 16) * 16);
    largest = Math.max(largest, bytes);
    if (!prefix || !name.startsWith(prefix)) {
      outside += bytes;
      continue;
    }
    const block = name.slice(prefix.length).split('.', 1)[0]!;
    blocks.set(block, (blocks.get(block) ?? 0) + bytes);
  }
  const sizes = [...blocks.values()];
  const total = outside + sizes.reduce((sum, bytes) => sum + bytes, 0);
  return { total, outside, block: Math.max(0, ...sizes), blocks: sizes.length, largest };
}

/** Bytes of a network with `slots` blocks at a time; null: all of it. One without so many blocks is held whole. */
export function heldBytes({ total, outside, block, blocks }: WeightBytes, slots: number | null): number {
  return slots === null || blocks <= slots ? total : Math.min(total, outside + slots * block);
}

const counted = new WeakMap<Manifest['components'], Partial<Record<ComponentName, WeightBytes>>>();

/** {@link weightBytes} of every component; counted once for a manifest. */
export function modelBytes(components: Manifest['components']): Partial<Record<ComponentName, WeightBytes>> {
  const known = counted.get(components);
  if (known) return known;
  const bytes = Object.fromEntries(
    Object.entries(components).map(([name, files]) => [name, weightBytes(name as ComponentName, files)]),
  );
  counted.set(components, bytes);
  return bytes;
}
