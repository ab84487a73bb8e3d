import { encodeF16, floatBytes } from '../floats';
import {
  componentShapes,
  type FolderSink,
  type Manifest,
  type ManifestFile,
  QUANT_BLOCK,
  type Quantization,
  SCALES_SUFFIX,
  ZERO_POINTS_SUFFIX,
} from '../manifest';
import { type Convert, type ConvertedSlice, convertAhead, convertSlice, type SliceTask, sliceTasks } from './convert';
import { type FileCheckpoint, isContinuable, isIntact, type Journal, type ResumableFolder } from './journal';
import { needsF32, packZeroPoints4 } from './quantize';
import { ShardWriter } from './shard';
import { largestEntries, type PlannedShard, type PlannedTensor, planShards } from './storage';
import type { Checkpoint, WeightComponent, Weights } from './weights';

/** Order in which components are written. */
const COMPONENTS: readonly WeightComponent[] = ['text_encoder', 'high', 'low', 'vae'];
const NOTE_BYTES = 64 * 1024 * 1024;

/** How far an import is. */
export interface ImportProgress {
  component: WeightComponent;
  /** Bytes of source weights converted so far, and in all. */
  doneBytes: number;
  totalBytes: number;
  /** Part of `doneBytes` that an earlier run had converted. */
  resumedBytes: number;
}

/** What {@link writeComponents} needs. */
export interface WriteOptions {
  sink: FolderSink;
  quantization: Quantization;
  /** With its folder, which must be the sink's; absent where an import is not to be continued. */
  journal?: { journal: Journal; folder: ResumableFolder } | undefined;
  /** Default: in this thread. */
  convert?: Convert | undefined;
  /** Slices under way at once; default 1. */
  ahead?: number | undefined;
  /**
   * Bytes after which the next note in the journal is due: what a killed import has to do again, with the matrix that
   * was begun. Default 64 MiB.
   */
  noteBytes?: number | undefined;
  onProgress?: ((progress: ImportProgress) => void) | undefined;
  signal?: AbortSignal | undefined;
}

type Slices = AsyncGenerator<ConvertedSlice>;

async function nextSlice(slices: Slices): Promise<ConvertedSlice> {
  // The tasks of a shard and its tensors are cut the same way, so there is one for each.
  return (await slices.next()).value as ConvertedSlice;
}

/** Writes one quantised matrix slice by slice; only scales and zero points wait for its end. */
async function writeQuantized(
  writer: ShardWriter,
  { name, shape, storage }: PlannedTensor,
  count: number,
  slices: Slices,
  report: (slice: number) => void,
): Promise<void> {
  const bits = storage === 'q8' ? 8 : 4;
  const [rows, columns] = shape as [number, number];
  const blocks = columns / QUANT_BLOCK;
  const scales = new Float32Array(rows * blocks);
  const zeroPoints = new Uint8Array(rows * blocks);
  writer.declare(name, { dtype: 'U8', shape: [rows, blocks, (QUANT_BLOCK * bits) / 8] });
  let done = 0;
  for (let i = 0; i < count; i++) {
    const slice = await nextSlice(slices);
    await writer.append(slice.bytes);
    scales.set(slice.scales!, done);
    zeroPoints.set(slice.zeroPoints!, done);
    done += slice.scales!.length;
    report(i);
  }
  const dtype = needsF32(scales) ? 'F32' : 'F16';
  writer.declare(name + SCALES_SUFFIX, { dtype, shape: [rows, blocks] });
  await writer.append(floatBytes(dtype === 'F32' ? scales : encodeF16(scales)));
  const packed = bits === 4 ? packZeroPoints4(zeroPoints, rows) : undefined;
  if (!packed) return;
  writer.declare(name + ZERO_POINTS_SUFFIX, { dtype: 'U8', shape: [rows, packed.length / rows] });
  await writer.append(packed);
}

function sourceBytes({ entries }: Weights): number {
  let bytes = 0;
  for (const { sizeBytes } of entries.values()) bytes += sizeBytes;
  return bytes;
}

/** Converts and writes the components' shards in order, and remembers how far it is. */
class ComponentWriter {
  readonly #done: Partial<Record<WeightComponent, ManifestFile[]>> = {};
  #doneBytes = 0;
  #resumedBytes = 0;
  /** Size of the shard at the last note. */
  #noted = 0;
  readonly #totalBytes: number;

  constructor(
    private readonly checkpoint: Checkpoint,
    private readonly options: WriteOptions,
  ) {
    this.#totalBytes = Object.values(checkpoint.weights).reduce((sum, weights) => sum + sourceBytes(weights), 0);
  }

  async run(): Promise<Manifest['components']> {
    for (const component of COMPONENTS) {
      if (!this.checkpoint.weights[component]) continue;
      const shapes = componentShapes(this.checkpoint, component);
      const files: ManifestFile[] = [];
      this.#done[component] = files;
      for (const [index, shard] of planShards(component, shapes, this.options.quantization).entries()) {
        files.push((await this.#found(component, index, shard)) ?? (await this.#write(component, shard)));
        await this.options.journal?.journal.write({ done: this.#done, open: null });
      }
    }
    return this.#done;
  }

  /** The shard as an earlier run finished it, if it is still whole. */
  async #found(component: WeightComponent, index: number, shard: PlannedShard): Promise<ManifestFile | undefined> {
    const { journal: at } = this.options;
    const file = at?.journal.found.done[component]?.[index];
    if (!file || file.path !== shard.path || !(await isIntact(at.folder, file))) return undefined;
    for (const { name } of shard.tensors) this.#resumed(component, name);
    return file;
  }

  #resumed(component: WeightComponent, name: string, share = 1): void {
    const bytes = Math.round(this.checkpoint.weights[component]!.entries.get(name)!.sizeBytes * share);
    this.#resumedBytes += bytes;
    this.#report(component, bytes);
  }

  #report(component: WeightComponent, bytes: number): void {
    this.#doneBytes += bytes;
    this.options.onProgress?.({
      component,
      doneBytes: this.#doneBytes,
      totalBytes: this.#totalBytes,
      resumedBytes: this.#resumedBytes,
    });
  }

  /** The writer of a shard, behind what an earlier run wrote of it if that is whole. */
  async #start(shard: PlannedShard): Promise<{ writer: ShardWriter; begun?: FileCheckpoint }> {
    const { sink, journal: at } = this.options;
    const largest = new Map(shard.tensors.flatMap(largestEntries));
    const begun = at?.journal.found.open;
    if (at && begun?.path === shard.path && (await isContinuable(at.folder, begun))) {
      return { writer: await ShardWriter.resume(at.folder, largest, begun), begun };
    }
    return { writer: await ShardWriter.create(sink, shard.path, largest) };
  }

  /** Notes how far the shard is, when enough has been written since the last time. */
  async #note(writer: ShardWriter, partial: FileCheckpoint['partial']): Promise<void> {
    const { journal: at, noteBytes = NOTE_BYTES } = this.options;
    if (!at || writer.sizeBytes - this.#noted < noteBytes) return;
    await at.journal.write({ done: this.#done, open: await writer.checkpoint(partial) });
    this.#noted = writer.sizeBytes;
  }

  async #write(component: WeightComponent, shard: PlannedShard): Promise<ManifestFile> {
    const { convert, ahead = 1, signal } = this.options;
    const weights = this.checkpoint.weights[component]!;
    const { writer, begun } = await this.#start(shard);
    const partial = begun?.partial ?? null;
    const written = new Set(begun?.tensors.map(([name]) => name).filter((name) => name !== partial?.name));
    for (const name of written) if (weights.entries.has(name)) this.#resumed(component, name);
    const left = shard.tensors
      .filter(({ name }) => !written.has(name))
      .map((tensor) => {
        return {
          tensor,
          tasks: sliceTasks(component, tensor),
          first: tensor.name === partial?.name ? partial.slices : 0,
        };
      });
    const tasks = left.flatMap(({ tasks, first }) => tasks.slice(first));
    const slices = convertAhead(tasks, convert ?? ((task) => convertSlice(weights, task)), ahead, signal);
    this.#noted = writer.sizeBytes;
    try {
      for (const { tensor, tasks, first } of left) {
        await this.#writeTensor(writer, component, tensor, tasks, first, slices);
        await this.#note(writer, null);
      }
      return await writer.finish();
    } catch (error) {
      await writer.abandon();
      throw error;
    } finally {
      await slices.return(undefined);
    }
  }

  /** Writes a tensor from its slice `first` on. */
  async #writeTensor(
    writer: ShardWriter,
    component: WeightComponent,
    tensor: PlannedTensor,
    tasks: readonly SliceTask[],
    first: number,
    slices: Slices,
  ): Promise<void> {
    const { sizeBytes } = this.checkpoint.weights[component]!.entries.get(tensor.name)!;
    const total = tasks[tasks.length - 1]!.end;
    // Scales lie beside the values, so a slice's share of the bytes may be no whole number; the last one makes it
    // right.
    const until = (slice: number) => (slice === 0 ? 0 : Math.round((sizeBytes * tasks[slice - 1]!.end) / total));
    const report = (slice: number) => this.#report(component, until(slice + 1) - until(slice));
    if (tensor.storage === 'q8' || tensor.storage === 'q4') {
      await writeQuantized(writer, tensor, tasks.length, slices, report);
      return;
    }
    if (first === 0) writer.declare(tensor.name, { dtype: tensor.storage, shape: tensor.shape });
    else this.#resumed(component, tensor.name, until(first) / sizeBytes);
    for (let i = first; i < tasks.length; i++) {
      await writer.append((await nextSlice(slices)).bytes);
      report(i);
      if (i + 1 < tasks.length) await this.#note(writer, { name: tensor.name, slices: i + 1 });
    }
  }
}

/**
 * Converts and writes every component, in order. Memory stays at a few slices and two pieces beside the scales of one
 * matrix. With a journal it begins behind what an earlier run of the same import left, after checking those bytes.
 */
export function writeComponents(checkpoint: Checkpoint, options: WriteOptions): Promise<Manifest['components']> {
  return new ComponentWriter(checkpoint, options).run();
}
