import { throwIfAborted, ZoetropeError } from '../errors';
import {
  type Folder,
  type FolderSink,
  MANIFEST_FILE,
  MAX_LABEL_LENGTH,
  type Manifest,
  type ManifestFile,
  manifestText,
  type PreviewMatrix,
  type Quantization,
  type Sizes,
} from '../manifest';
import { type ImportProgress, writeComponents } from './component-writer';
import type { Convert } from './convert';
import { openDiffusers } from './diffusers';
import { fingerprintOf, Journal, type ResumableFolder } from './journal';
import { fitPreview, publishedPreview } from './preview';
import { publishedAcceleration } from './ratios';
import { PieceWriter } from './shard';
import { defaultSizes, recommendedSettings, variantOf } from './variants';
import type { Checkpoint } from './weights';

export type { ImportProgress } from './component-writer';

/** Bytes of a file copied at a time. */
const COPY_BYTES = 4 * 1024 * 1024;

/** Where an opened checkpoint goes, and how. */
export interface WriteModelOptions {
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
  /**
   * The sink once more, where it can be read back: the import then keeps a journal there, and goes on behind what an
   * earlier run of the same import left. Absent: it starts afresh.
   */
  journal?: ResumableFolder | undefined;
  /** Converts slices, e.g. in other threads; default: in this one. */
  convert?: Convert | undefined;
  /** Slices under way at once; default 1. */
  ahead?: number | undefined;
  /** See {@link WriteOptions.noteBytes} of `component-writer.ts`. */
  noteBytes?: number | undefined;
  onProgress?: (progress: ImportProgress) => void;
  signal?: AbortSignal | undefined;
}

export interface ImportOptions extends WriteModelOptions {
  /** The checkpoint, in the diffusers layout. */
  folder: Folder;
}

/**
 * Refuses a name or licence that no manifest may hold, with `bad-request`: at the end of an import it would be found
 * too late.
 */
export function checkLabels(labels: { name?: string | undefined; license?: string | undefined }): void {
  for (const what of ['name', 'license'] as const) {
    const label = labels[what];
    if (label === undefined || (label.length > 0 && label.length <= MAX_LABEL_LENGTH)) continue;
    throw new ZoetropeError(
      'bad-request',
      `The ${what} has 1 to ${MAX_LABEL_LENGTH} characters, got ${label.length}. Give another ${what}.`,
    );
  }
}

/** Copies `tokenizer.json` into the model's folder. */
export async function copyTokenizer(
  sink: FolderSink,
  { tokenizer }: Pick<Checkpoint, 'tokenizer'>,
): Promise<ManifestFile> {
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

/** Writes `zoetrope.json`, with which a folder becomes a model. */
export async function writeManifest(sink: FolderSink, manifest: Manifest): Promise<void> {
  const file = await sink.create(MANIFEST_FILE);
  try {
    await file.write(0, new TextEncoder().encode(manifestText(manifest)));
  } finally {
    await file.close();
  }
}

/** Colours for previews: Wan's published ones for its own VAE, else fitted to the weights. */
export async function previewOf(
  { vae, weights }: Pick<Checkpoint, 'vae' | 'weights'>,
  signal: AbortSignal | undefined,
): Promise<PreviewMatrix> {
  return publishedPreview(vae) ?? (await fitPreview(vae, weights.vae!, signal));
}

/** What an import found and wrote, from which a manifest follows. */
export type ManifestFacts = Pick<Checkpoint, 'dit' | 'umt5' | 'vae' | 'boundary' | 'shift'> &
  Pick<Manifest, 'quantization' | 'preview' | 'components'>;

/** The manifest of what was written. */
export function manifestOf(
  { dit, umt5, vae, boundary, shift, quantization, preview, components }: ManifestFacts,
  { name, license = 'unknown', sizes }: Pick<WriteModelOptions, 'name' | 'license' | 'sizes'>,
): Manifest {
  const experts = boundary === null ? 1 : 2;
  const variant = variantOf(dit, experts);
  const acceleration = publishedAcceleration(variant);
  return {
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
    preview,
    ...(acceleration && { acceleration }),
    components,
  };
}

/**
 * Turns an opened checkpoint into a model folder: safetensors shards, `tokenizer.json`, and last `zoetrope.json`.
 * Memory stays at a few slices and two pieces beside the scales of one matrix. The same checkpoint and options give the
 * same bytes, in one go or in several. Throws `bad-request` for a name or licence that is too short or long, before
 * anything is changed.
 */
export async function writeModel(options: WriteModelOptions, checkpoint: Checkpoint): Promise<Manifest> {
  const { sink, quantization, signal } = options;
  checkLabels(options);
  await sink.remove(MANIFEST_FILE);
  const folder = options.journal;
  const journal = folder && {
    folder,
    journal: await Journal.open(folder, await fingerprintOf(checkpoint, quantization)),
  };
  const tokenizer = [await copyTokenizer(sink, checkpoint)];
  const components = { tokenizer, ...(await writeComponents(checkpoint, { ...options, journal })) };
  const preview = await previewOf(checkpoint, signal);
  const manifest = manifestOf({ ...checkpoint, quantization, preview, components }, options);
  throwIfAborted(signal);
  await writeManifest(sink, manifest);
  await journal?.journal.remove();
  return manifest;
}

/**
 * Imports a checkpoint in the diffusers layout. Everything that can be refused from names, shapes and configurations is
 * refused before the first byte is written. Throws `bad-checkpoint`, `unreadable-source` or `aborted`.
 */
export async function importCheckpoint(options: ImportOptions): Promise<Manifest> {
  return writeModel(options, await openDiffusers(options.folder, options.signal));
}
