import { throwIfAborted, ZoetropeError } from '../errors';
import { encodeF16, F16_INFINITY, floatBytes } from '../floats';
import {
  type ComponentName,
  componentShapes,
  DTYPE_BYTES,
  type Folder,
  type FolderSink,
  MANIFEST_FILE,
  type Manifest,
  type ManifestFile,
  QUANT_BLOCK,
  type Quantization,
  SCALES_SUFFIX,
  type Sizes,
  ZERO_POINTS_SUFFIX,
} from '../manifest';
import { openDiffusers } from './diffusers';
import { fitPreview, publishedPreview } from './preview';
import { needsF32, packZeroPoints4, quantizeRows } from './quantize';
import { PieceWriter, ShardWriter } from './shard';
import { largestEntries, type PlannedShard, type PlannedTensor, planShards } from './storage';
import { defaultSizes, recommendedSettings, variantOf } from './variants';
import type { Checkpoint, WeightComponent, Weights } from './weights';

/** Values converted at a time: 8 MiB as f32. Bounds the memory of an import, whatever the size of a tensor. */
const SLICE_VALUES = 2 * 1024 * 1024;
/** Bytes of a file copied at a time. */
const COPY_BYTES = 4 * 1024 * 1024;
/** Order in which components are written. */
const COMPONENTS: readonly WeightComponent[] = ['text_encoder', 'high', 'low', 'vae'];

/** How far an import is. */
export interface ImportProgress {
  component: ComponentName;
  /** Bytes of source weights converted so far, and in all. */
  doneBytes: number;
  totalBytes: number;
}

export interface ImportOptions {
  /** The checkpoint, in the diffusers layout. */
  folder: Folder;
  /**
   * Where the model folder goes. `zoetrope.json` is removed first and written last, so an interrupted import is never
   * taken for a model.
   */
  sink: FolderSink;
  quantization: Quantization;
  /** Name for people. */
  name: string;
  /** SPDX identifier of the weights' licence; default "unknown", because no file of a checkpoint states it. */
  license?: string;
  /** Default: Wan's sizes for Wan's models, the demo checkpoint's for other ones. */
  sizes?: Sizes;
  onProgress?: (progress: ImportProgress) => void;
  signal?: AbortSignal | undefined;
}

type Report = (component: WeightComponent, bytes: number) => void;

/** Writes one quantised matrix slice by slice; only scales and zero points wait for its end. */
async function writeQuantized(
  writer: ShardWriter,
  { name, shape }: PlannedTensor,
  bits: 4 | 8,
  slices: AsyncIterable<Float32Array>,
): Promise<void> {
  const [rows, columns] = shape as [number, number];
  const blocks = columns / QUANT_BLOCK;
  const scales = new Float32Array(rows * blocks);
  const zeroPoints = new Uint8Array(rows * blocks);
  writer.declare(name, { dtype: 'U8', shape: [rows, blocks, (QUANT_BLOCK * bits) / 8] });
  let done = 0;
  for await (const slice of slices) {
    const part = quantizeRows(slice, bits);
    await writer.append(part.packed);
    scales.set(part.scales, done);
    zeroPoints.set(part.zeroPoints, done);
    done += part.scales.length;
  }
  const dtype = needsF32(scales) ? 'F32' : 'F16';
  writer.declare(name + SCALES_SUFFIX, { dtype, shape: [rows, blocks] });
  await writer.append(floatBytes(dtype === 'F32' ? scales : encodeF16(scales)));
  const packed = bits === 4 ? packZeroPoints4(zeroPoints, rows) : undefined;
  if (!packed) return;
  writer.declare(name + ZERO_POINTS_SUFFIX, { dtype: 'U8', shape: [rows, packed.length / rows] });
  await writer.append(packed);
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

/** Reads a tensor in slices of whole rows (first axis), so that no slice is much longer than {@link SLICE_VALUES}. */
async function* rowSlices(
  weights: Weights,
  { name, shape }: PlannedTensor,
  onSlice: (values: number) => void,
  signal: AbortSignal | undefined,
): AsyncGenerator<Float32Array> {
  const rowLength = shape.slice(1).reduce((product, size) => product * size, 1);
  const total = shape[0]! * rowLength;
  const step = Math.max(1, Math.floor(SLICE_VALUES / rowLength)) * rowLength;
  for (let begin = 0; begin < total; begin += step) {
    throwIfAborted(signal);
    const end = Math.min(total, begin + step);
    yield await weights.readFloats(name, begin, end);
    onSlice(end - begin);
  }
}

async function writeTensor(
  writer: ShardWriter,
  tensor: PlannedTensor,
  slices: AsyncIterable<Float32Array>,
): Promise<void> {
  const { name, shape, storage } = tensor;
  if (storage === 'q8' || storage === 'q4') {
    await writeQuantized(writer, tensor, storage === 'q8' ? 8 : 4, slices);
    return;
  }
  writer.declare(name, { dtype: storage, shape });
  for await (const slice of slices) {
    await writer.append(storage === 'F32' ? floatBytes(slice) : toF16(slice, name));
  }
}

async function writeShard(
  sink: FolderSink,
  shard: PlannedShard,
  weights: Weights,
  report: (bytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<ManifestFile> {
  const writer = await ShardWriter.create(sink, shard.path, new Map(shard.tensors.flatMap(largestEntries)));
  try {
    for (const tensor of shard.tensors) {
      const bytesPerValue = DTYPE_BYTES[weights.entries.get(tensor.name)!.dtype];
      const slices = rowSlices(weights, tensor, (values) => report(values * bytesPerValue), signal);
      await writeTensor(writer, tensor, slices);
    }
    return await writer.finish();
  } catch (error) {
    await writer.abandon();
    throw error;
  }
}

async function copyTokenizer(sink: FolderSink, { tokenizer }: Checkpoint): Promise<ManifestFile> {
  const writer = await PieceWriter.create(sink, 'tokenizer.json');
  try {
    for (let begin = 0; begin < tokenizer.sizeBytes; begin += COPY_BYTES) {
      await writer.append(await tokenizer.read(begin, Math.min(tokenizer.sizeBytes, begin + COPY_BYTES)));
    }
    return await writer.finish();
  } catch (error) {
    await writer.abandon();
    throw error;
  }
}

function sourceBytes({ entries }: Weights): number {
  let bytes = 0;
  for (const { dtype, shape } of entries.values())
    bytes += shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
  return bytes;
}

/** Manifest text with one line for each member, so that two versions can be compared by eye. */
function manifestText(manifest: Manifest): string {
  const lines = Object.entries(manifest).map(([key, value]) => `${JSON.stringify(key)}: ${JSON.stringify(value)}`);
  return `{\n${lines.join(',\n')}\n}\n`;
}

async function writeManifest(sink: FolderSink, manifest: Manifest): Promise<void> {
  const file = await sink.create(MANIFEST_FILE);
  try {
    await file.write(0, new TextEncoder().encode(manifestText(manifest)));
  } finally {
    await file.close();
  }
}

/** Converts and writes every component, in order; nothing but the manifest is left to do. */
async function writeComponents(
  { sink, quantization, onProgress, signal }: ImportOptions,
  checkpoint: Checkpoint,
): Promise<Manifest['components']> {
  const totalBytes = Object.values(checkpoint.weights).reduce((sum, weights) => sum + sourceBytes(weights), 0);
  let doneBytes = 0;
  const report: Report = (component, bytes) => {
    doneBytes += bytes;
    onProgress?.({ component, doneBytes, totalBytes });
  };
  const components: Manifest['components'] = { tokenizer: [await copyTokenizer(sink, checkpoint)] };
  for (const component of COMPONENTS) {
    const weights = checkpoint.weights[component];
    if (!weights) continue;
    const files: ManifestFile[] = [];
    for (const shard of planShards(component, componentShapes(checkpoint, component), quantization)) {
      files.push(await writeShard(sink, shard, weights, (bytes) => report(component, bytes), signal));
    }
    components[component] = files;
  }
  return components;
}

/**
 * Turns an opened checkpoint into a model folder: safetensors shards, `tokenizer.json`, and last `zoetrope.json`.
 * Memory stays at a few slices and two pieces beside the scales of one matrix. The same checkpoint and options give the
 * same bytes.
 */
export async function writeModel(options: ImportOptions, checkpoint: Checkpoint): Promise<Manifest> {
  const { sink, quantization, name, license = 'unknown', sizes, signal } = options;
  const { dit, umt5, vae, boundary, shift } = checkpoint;
  const experts = boundary === null ? 1 : 2;
  const variant = variantOf(dit, experts);
  await sink.remove(MANIFEST_FILE);
  const components = await writeComponents(options, checkpoint);
  const manifest: Manifest = {
    format: 1,
    name,
    license,
    variant,
    quantization,
    dit,
    umt5,
    vae,
    boundary,
    sizes: sizes ?? defaultSizes(variant),
    recommended: recommendedSettings(variant, experts, shift),
    preview: publishedPreview(vae) ?? (await fitPreview(vae, checkpoint.weights.vae!, signal)),
    components,
  };
  throwIfAborted(signal);
  await writeManifest(sink, manifest);
  return manifest;
}

/**
 * Imports a checkpoint in the diffusers layout. Everything that can be refused from names, shapes and configurations is
 * refused before the first byte is written. Throws `bad-checkpoint`, `unreadable-source` or `aborted`.
 */
export async function importCheckpoint(options: ImportOptions): Promise<Manifest> {
  return writeModel(options, await openDiffusers(options.folder, options.signal));
}
