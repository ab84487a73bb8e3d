import { ZoetropeError } from '../errors';
import { type PartFiles, partIn, writePart } from '../import/part-files';
import type { PartManifest } from '../part';
import { diskSink } from './files';
import { openSources, type SourceArguments } from './sources';

const MIB = 1024 * 1024;

/** What `zoetrope import` takes for a part; what belongs to a model alone is refused. */
export interface PartArguments {
  /** Folder of the part to write. */
  to: string;
  license?: string;
  name?: string;
  sizes?: string;
  components?: string[];
}

/**
 * The sources of an import as an optional part: `flownet.param` of RIFE with its weights beside it, or RIFE's or FILM's
 * safetensors file.
 */
export async function partSources({ from, high, low }: SourceArguments) {
  const [path] = from;
  if (from.length !== 1 || high !== undefined || low !== undefined) return undefined;
  const graph = /\.param$/i.test(path!) && !/^https?:/i.test(path!);
  const beside = graph ? [path!.replace(/\.param$/i, '.bin')] : [];
  return partIn(await openSources({ from: [path!, ...beside] }));
}

/**
 * Imports an optional part into the folder that the engine looks for beside a model. Throws `bad-request` for what
 * belongs to a model alone, and what {@link writePart} throws.
 */
export async function runImportPart(
  files: PartFiles,
  { to, license, name, sizes, components }: PartArguments,
): Promise<PartManifest> {
  if ([name, sizes, components].some((value) => value !== undefined)) {
    throw new ZoetropeError('bad-request', 'An interpolator has no --name, --sizes and --components. Leave them out.');
  }
  const manifest = await writePart(files, { sink: diskSink(to), license });
  const [shard] = manifest.files;
  console.log(`${to}: ${manifest.name}, ${(shard!.sizeBytes / MIB).toFixed(1)} MiB in ${shard!.path}`);
  return manifest;
}
