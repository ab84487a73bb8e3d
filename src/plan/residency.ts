import type { DitConfig } from '../config';
import { type DitPlan, headBytes } from '../diffusion/activations';
import { ZoetropeError } from '../errors';
import type { ComponentName, Manifest, ManifestFile } from '../manifest';

/**
 * Which weights are on the GPU together: `all` of the model; `one` component at a time, so that the experts change places
 * at the switch; or `streamed`, a block at a time through {@link STREAM_SLOTS} slots.
 */
export type WeightResidency = 'all' | 'one' | 'streamed';

/** Slots of a streamed network: one computes, one waits, one loads. */
export const STREAM_SLOTS = 3;

/** Components that are networks of equal blocks, and how their names begin. */
export const BLOCK_PREFIX: Readonly<Partial<Record<ComponentName, string>>> = {
  text_encoder: 'encoder.block.',
  high: 'blocks.',
  low: 'blocks.',
};

/** Tensors that stay off the GPU: rows of the embedding table are read one by one. */
const OFF_GPU = 'shared.weight';

/** Bytes of a component's weights on the GPU. */
export interface WeightBytes {
  total: number;
  /** With only {@link STREAM_SLOTS} blocks at a time; `total` for a component without blocks. */
  streamed: number;
}

/** Counts a component's tensors as `Weights` will hold them: blocks as they are, floats in 32 bits. */
export function weightBytes(component: ComponentName, files: readonly ManifestFile[]): WeightBytes {
  const prefix = BLOCK_PREFIX[component];
  let outside = 0;
  const blocks = new Map<string, number>();
  for (const [name, { dtype, shape }] of files.flatMap(({ tensors = {} }) => Object.entries(tensors))) {
    if (name === OFF_GPU) continue;
    const bytes = shape.reduce((product, size) => product * size, dtype === 'U8' ? 1 : 4);
    if (!prefix || !name.startsWith(prefix)) {
      outside += bytes;
      continue;
    }
    const block = name.slice(prefix.length).split('.', 1)[0]!;
    blocks.set(block, (blocks.get(block) ?? 0) + bytes);
  }
  const sizes = [...blocks.values()];
  const total = outside + sizes.reduce((sum, bytes) => sum + bytes, 0);
  return { total, streamed: Math.min(total, outside + STREAM_SLOTS * Math.max(0, ...sizes)) };
}

/** Bytes of the text's keys and values in every block of an expert; a prompt has at most `textLen` rows and one for padding. */
export function textKeyBytes(config: DitConfig, plan: DitPlan, branches: number): number {
  return branches * config.numLayers * 2 * config.numHeads * headBytes(config.textLen + 1, plan.type);
}

/** What a job holds besides weights, at most, in each of its stages. */
export interface WorkingBytes {
  diffusion: number;
  decode: number;
}

/**
 * The most comfortable residency that fits. Throws `out-of-memory` with what would be needed when even streaming does not.
 * @param budgetBytes what the job may hold on the GPU; Infinity where nobody has set a budget.
 */
export function chooseResidency(
  components: Manifest['components'],
  working: WorkingBytes,
  budgetBytes: number,
): WeightResidency {
  const bytes = new Map(
    Object.entries(components).map(([name, files]) => [name, weightBytes(name as ComponentName, files)]),
  );
  const sum = [...bytes.values()].reduce((total, component) => total + component.total, 0);
  if (sum + Math.max(working.diffusion, working.decode) <= budgetBytes) return 'all';
  const peak = (kind: keyof WeightBytes) => {
    const of = (name: ComponentName) => bytes.get(name)?.[kind] ?? 0;
    const experts = Math.max(of('high'), of('low')) + working.diffusion;
    return Math.max(of('text_encoder'), experts, of('vae') + working.decode);
  };
  if (peak('total') <= budgetBytes) return 'one';
  const least = peak('streamed');
  if (least <= budgetBytes) return 'streamed';
  throw new ZoetropeError(
    'out-of-memory',
    `This request needs ${gigabytes(least)} of GPU memory even with streamed weights, the budget is ${gigabytes(budgetBytes)}. Use a smaller resolution, fewer frames or a larger budget.`,
  );
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(2)} GB`;
}
