import { decodeFloats, isFloatDtype, refuseNonFinite } from '../floats';
import { checkTensors, MANIFEST_FILE, type RangedTensorSource } from '../manifest';
import type { PartManifest } from '../part';
import { filmConfig, filmShapes } from '../part/film';
import { writePartManifest } from './part-manifest';
import { type PartFileOptions, refuseOtherTypes, renamedTensors, writePartShard } from './part-shard';
import { openSafetensors } from './safetensors';

/**
 * A tensor that FILM has and no other network that is imported, by its name in the PyTorch port and in ComfyUI's file.
 */
const MARKERS = [
  'extract.extract_sublevels.convs.0.0.0.weight',
  'extract.extract_sublevels.convs.0.0.conv.weight',
] as const;

/** Where to get another file. */
const REMEDY = 'Use film_net_fp16.safetensors of Comfy-Org/frame_interpolation.';

/** Whether these are tensors of FILM, in either naming. */
export function isFilm(entries: Pick<ReadonlyMap<string, unknown>, 'has'>): boolean {
  return MARKERS.some((name) => entries.has(name));
}

/**
 * The name in the PyTorch port: ComfyUI's file says `.conv.` where that has the convolution's place in its sequence,
 * `.0.`.
 */
function portName(name: string): string {
  return name.replace(/\.conv\.(weight|bias)$/, '.0.$1');
}

/** Checks every name, shape and type, and gives the tensors that the shard will hold, in the order of use. */
function planShard(source: RangedTensorSource, names: ReadonlyMap<string, string>, what: string) {
  const entries = new Map([...names].map(([ours, theirs]) => [ours, source.entries.get(theirs)!]));
  const config = filmConfig(entries);
  const shapes = filmShapes(config);
  checkTensors(entries, shapes, what, REMEDY);
  const ordered = new Map([...shapes.keys()].map((name) => [name, entries.get(name)!]));
  refuseOtherTypes(ordered, what, REMEDY);
  return { config, entries: ordered };
}

/**
 * Turns a file of FILM into the folder of the part `film`: one safetensors shard with the PyTorch port's names and the
 * file's own values, and `zoetrope.json`. What is missing, of another shape or not FILM's is refused before anything is
 * written. Throws `bad-checkpoint`, `unreadable-source` or `aborted`.
 */
export async function importFilm(options: PartFileOptions): Promise<PartManifest> {
  const { file, what, sink, license, signal } = options;
  const source = await openSafetensors(file, what);
  const names = renamedTensors(source.entries, portName, what, REMEDY);
  const { config, entries } = planShard(source, names, what);
  await sink.remove(MANIFEST_FILE);
  const shard = await writePartShard(options, 'film.safetensors', entries, async (name, { dtype }) => {
    const bytes = await source.read(names.get(name)!);
    if (isFloatDtype(dtype)) refuseNonFinite(decodeFloats(bytes, dtype), name, 0);
    return bytes;
  });
  return writePartManifest(sink, { part: 'film', name: config.name, license }, shard, signal);
}
