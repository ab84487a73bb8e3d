import { basename } from 'node:path';
import { importFilm, isFilm } from '../checkpoint/film';
import { readHeader } from '../checkpoint/safetensors';
import type { ImportSource } from '../checkpoint/sources';
import { ZoetropeError } from '../errors';
import type { PartManifest } from '../part';
import { diskSink } from './files';
import type { ImportRifeArguments } from './import-rife';
import { openSources } from './sources';

const MIB = 1024 * 1024;

/** The source of an import that is a file of FILM: one safetensors file, on disk or at a URL, with its tensors. */
export async function filmSource({ from }: Pick<ImportRifeArguments, 'from'>): Promise<ImportSource | undefined> {
  if (from.length !== 1 || !/\.safetensors$/i.test(from[0]!)) return undefined;
  const [source] = await openSources({ from });
  if (!source?.file) return undefined;
  const { tensors } = await readHeader(source.file, source.path);
  return isFilm(tensors) ? source : undefined;
}

/**
 * Imports FILM from the file that {@link filmSource} found into the folder of the part `film`, which the engine looks for beside a model.
 * Throws `ZoetropeError`.
 */
export async function runImportFilm(
  { path, file }: ImportSource,
  { high, low, to, license, name, sizes }: ImportRifeArguments,
): Promise<PartManifest> {
  if ([high, low, name, sizes].some((value) => value !== undefined)) {
    throw new ZoetropeError('bad-request', 'An interpolator has no --high, --low, --name and --sizes. Leave them out.');
  }
  const manifest = await importFilm({
    file: file!,
    what: basename(path),
    sink: diskSink(to),
    ...(license === undefined ? {} : { license }),
  });
  const [shard] = manifest.files;
  console.log(`${to}: ${manifest.name}, ${(shard!.sizeBytes / MIB).toFixed(1)} MiB in ${shard!.path}`);
  return manifest;
}
