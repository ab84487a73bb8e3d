import { throwIfAborted, ZoetropeError } from '../errors';
import { decodeFloats, isFloatDtype, refuseNonFinite } from '../floats';
import {
  type ByteSource,
  checkTensors,
  type FolderSink,
  MANIFEST_FILE,
  type ManifestFile,
  type RangedTensorSource,
  type TensorEntry,
} from '../manifest';
import type { PartManifest } from '../part';
import { filmConfig, filmShapes } from '../part/film';
import { writePartManifest } from './part-manifest';
import { openSafetensors } from './safetensors';
import { ShardWriter } from './shard';

/** A tensor that FILM has and no other network that is imported, by its name in the PyTorch port and in ComfyUI's file. */
const MARKERS = [
  'extract.extract_sublevels.convs.0.0.0.weight',
  'extract.extract_sublevels.convs.0.0.conv.weight',
] as const;

/** Where to get another file. */
const REMEDY = 'Use film_net_fp16.safetensors of Comfy-Org/frame_interpolation.';

export interface FilmImportOptions {
  /** A safetensors file with the names of the PyTorch port or of ComfyUI's `film_net_fp16.safetensors`. */
  file: ByteSource;
  /** The file's name, for messages. */
  what: string;
  /** Where the part's folder goes. `zoetrope.json` is removed first and written last. */
  sink: FolderSink;
  /** SPDX identifier of the weights' licence; default "unknown", because the file does not state it. */
  license?: string;
  signal?: AbortSignal | undefined;
}

/** Whether these are tensors of FILM, in either naming. */
export function isFilm(entries: Pick<ReadonlyMap<string, unknown>, 'has'>): boolean {
  return MARKERS.some((name) => entries.has(name));
}

/** The name in the PyTorch port: ComfyUI's file says `.conv.` where that has the convolution's place in its sequence, `.0.`. */
function portName(name: string): string {
  return name.replace(/\.conv\.(weight|bias)$/, '.0.$1');
}

/** The file's names by ours. Throws when two of its tensors would get one. */
function renamed(entries: ReadonlyMap<string, TensorEntry>, what: string): Map<string, string> {
  const names = new Map<string, string>();
  for (const name of entries.keys()) {
    const ours = portName(name);
    const other = names.get(ours);
    if (other !== undefined) {
      throw new ZoetropeError('bad-checkpoint', `${what} holds both "${other}" and "${name}". ${REMEDY}`);
    }
    names.set(ours, name);
  }
  return names;
}

/** Checks every name, shape and type, and gives the tensors that the shard will hold, in the order of use. */
function planShard(source: RangedTensorSource, names: ReadonlyMap<string, string>, what: string) {
  const entries = new Map([...names].map(([ours, theirs]) => [ours, source.entries.get(theirs)!]));
  const config = filmConfig(entries);
  const shapes = filmShapes(config);
  checkTensors(entries, shapes, what, REMEDY);
  const ordered = new Map([...shapes.keys()].map((name) => [name, entries.get(name)!]));
  for (const [name, { dtype }] of ordered) {
    if (isFloatDtype(dtype)) continue;
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what}: "${name}" has type ${dtype}; F16, BF16 and F32 are read. ${REMEDY}`,
    );
  }
  return { config, entries: ordered };
}

async function writeShard(
  options: FilmImportOptions,
  source: RangedTensorSource,
  names: ReadonlyMap<string, string>,
  entries: ReadonlyMap<string, TensorEntry>,
): Promise<ManifestFile> {
  const writer = await ShardWriter.create(options.sink, 'film.safetensors', entries);
  try {
    for (const [name, entry] of entries) {
      throwIfAborted(options.signal);
      const bytes = await source.read(names.get(name)!);
      if (isFloatDtype(entry.dtype)) refuseNonFinite(decodeFloats(bytes, entry.dtype), name, 0);
      writer.declare(name, { dtype: entry.dtype, shape: entry.shape });
      await writer.append(bytes);
    }
    return await writer.finish();
  } catch (error) {
    await writer.abandon();
    throw error;
  }
}

/**
 * Turns a file of FILM into the folder of the part `film`: one safetensors shard with the PyTorch port's names and the file's own
 * values, and `zoetrope.json`. What is missing, of another shape or not FILM's is refused before anything is written. Throws
 * `bad-checkpoint`, `unreadable-source` or `aborted`.
 */
export async function importFilm(options: FilmImportOptions): Promise<PartManifest> {
  const { file, what, sink, license, signal } = options;
  const source = await openSafetensors(file, what);
  const names = renamed(source.entries, what);
  const { config, entries } = planShard(source, names, what);
  await sink.remove(MANIFEST_FILE);
  const shard = await writeShard(options, source, names, entries);
  return writePartManifest(sink, { part: 'film', name: config.name, license }, shard, signal);
}
