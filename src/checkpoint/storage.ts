import type { Shapes } from '../config';
import {
  componentShapes,
  QUANT_BLOCK,
  type Quantization,
  SCALES_SUFFIX,
  type TensorEntry,
  tensorBytes,
  ZERO_POINTS_SUFFIX,
} from '../manifest';
import { dataBeginFor } from './safetensors';
import type { Checkpoint, WeightComponent } from './weights';

/** How one tensor is written: as floats, or quantised with its scales and zero points. */
export type Storage = 'F32' | 'F16' | 'q8' | 'q4';

/** One tensor of a component as the importer will write it. */
export interface PlannedTensor {
  name: string;
  shape: number[];
  storage: Storage;
}

/** One file of a component. */
export interface PlannedShard {
  path: string;
  tensors: PlannedTensor[];
}

/** Shards are cut between tensors so that no file grows beyond this, unless one tensor alone does. */
export const MAX_SHARD_BYTES = 1024 * 1024 * 1024;

/** Matrices that are tables, not factors of a product: looked up by row or added to logits. */
function isTable(name: string): boolean {
  return name === 'shared.weight' || name.endsWith('.relative_attention_bias.weight');
}

/**
 * Whether a tensor is small and enters additions or norms: norms, biases, modulation, gammas, the relative position
 * bias.
 */
function isVector(name: string, shape: readonly number[]): boolean {
  const longAxes = shape.filter((size) => size > 1).length;
  return longAxes < 2 || name.endsWith('modulation') || name.endsWith('.relative_attention_bias.weight');
}

/**
 * The precision rule. It looks at names and shapes alone, never at the source's dtype or values, so that the same
 * weights from two file formats give the same shards:
 * - vectors (norms, biases, modulation, gammas, relative position bias) are F32: exact for every source, under 0.3 % of
 *   the bytes;
 * - matrices of products (every 2-D weight of the diffusion blocks, of the text, time and head layers, and q, k, v, o,
 *   wi, wo of the text encoder) are quantised, or F16 when f16 is asked for or the row length is not a multiple of 32;
 * - the embedding table, the patch embedding and the VAE's convolutions are F16.
 */
export function storageOf(name: string, shape: readonly number[], quantization: Quantization): Storage {
  if (isVector(name, shape)) return 'F32';
  if (quantization === 'f16' || shape.length !== 2 || isTable(name)) return 'F16';
  return shape[1]! % QUANT_BLOCK === 0 ? quantization : 'F16';
}

/**
 * Tensors that a planned one may become in the file, in file order. Whether scales are F16 or F32 and whether there are
 * zero points depends on the values; this is the largest form.
 */
export function largestEntries({ name, shape, storage }: PlannedTensor): [name: string, entry: TensorEntry][] {
  if (storage === 'F32' || storage === 'F16') return [[name, { dtype: storage, shape }]];
  const [rows, columns] = shape as [number, number];
  const blocks = columns / QUANT_BLOCK;
  const bits = storage === 'q8' ? 8 : 4;
  const entries: [string, TensorEntry][] = [
    [name, { dtype: 'U8', shape: [rows, blocks, (QUANT_BLOCK * bits) / 8] }],
    [name + SCALES_SUFFIX, { dtype: 'F32', shape: [rows, blocks] }],
  ];
  if (bits === 4) entries.push([name + ZERO_POINTS_SUFFIX, { dtype: 'U8', shape: [rows, Math.ceil(blocks / 2)] }]);
  return entries;
}

/**
 * Plans a component's files: tensors in the order of `shapes`, which is the order of use, so that a loader reads front
 * to back. The first file is `<component>.safetensors`, further ones `<component>-2.safetensors` and so on. Cuts follow
 * the largest forms, so they do not depend on the values either.
 */
export function planShards(
  component: string,
  shapes: Shapes,
  quantization: Quantization,
  maxShardBytes = MAX_SHARD_BYTES,
): PlannedShard[] {
  const shards: PlannedShard[] = [];
  let filled = 0;
  for (const [name, shape] of shapes) {
    const tensor = { name, shape, storage: storageOf(name, shape, quantization) };
    const bytes = largestEntries(tensor).reduce((sum, [, entry]) => sum + tensorBytes(entry), 0);
    let shard = shards[shards.length - 1];
    if (!shard || filled + bytes > maxShardBytes) {
      const suffix = shards.length === 0 ? '' : `-${shards.length + 1}`;
      shard = { path: `${component}${suffix}.safetensors`, tensors: [] };
      shards.push(shard);
      filled = 0;
    }
    shard.tensors.push(tensor);
    filled += bytes;
  }
  return shards;
}

/** Bytes of a component's tensors in their largest form; headers aside. */
export function largestBytes(component: string, shapes: Shapes, quantization: Quantization): number {
  const planned = planShards(component, shapes, quantization).flatMap((shard) => shard.tensors);
  return planned.flatMap(largestEntries).reduce((sum, [, entry]) => sum + tensorBytes(entry), 0);
}

/**
 * Bytes that the files of a model take at most: every tensor in its largest form, the shards' headers and the
 * tokenizer.
 */
export function largestModelBytes(checkpoint: Checkpoint, quantization: Quantization): number {
  let bytes = checkpoint.tokenizer.sizeBytes;
  for (const component of Object.keys(checkpoint.weights) as WeightComponent[]) {
    for (const shard of planShards(component, componentShapes(checkpoint, component), quantization)) {
      const entries = new Map(shard.tensors.flatMap(largestEntries));
      bytes += dataBeginFor(entries);
      for (const entry of entries.values()) bytes += tensorBytes(entry);
    }
  }
  return bytes;
}
