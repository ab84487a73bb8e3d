import { basename, dirname } from 'node:path';
import { importRife } from '../checkpoint/rife';
import { ZoetropeError } from '../errors';
import type { PartManifest } from '../part';
import { diskFolder, diskSink } from './files';
import type { SourceArguments } from './sources';

/** What `zoetrope import` takes for an interpolator; what belongs to a model alone is refused. */
export interface ImportRifeArguments extends SourceArguments {
  /** Folder of the part to write. */
  to: string;
  license?: string;
  name?: string;
  sizes?: string;
}

/** Ending of an ncnn graph, whose weights lie beside it by the same name. */
const NCNN_GRAPH = /\.param$/;

const MIB = 1024 * 1024;

/** Whether an import is one of an interpolator: a single source, an ncnn graph on disk. */
export function isInterpolator({ from }: Pick<SourceArguments, 'from'>): boolean {
  return from.length === 1 && NCNN_GRAPH.test(from[0]!) && !/^https?:/.test(from[0]!);
}

/**
 * Imports RIFE 4.6, `flownet.param` with `flownet.bin` beside it, into the folder of the part `rife`, which the engine looks for
 * beside a model. Throws `ZoetropeError`.
 */
export async function runImportRife({
  from,
  high,
  low,
  to,
  license,
  name,
  sizes,
}: ImportRifeArguments): Promise<PartManifest> {
  if ([high, low, name, sizes].some((value) => value !== undefined)) {
    throw new ZoetropeError('bad-request', 'An interpolator has no --high, --low, --name and --sizes. Leave them out.');
  }
  const graph = from[0]!;
  const folder = diskFolder(dirname(graph));
  const manifest = await importRife({
    param: await folder.open(basename(graph)),
    bin: await folder.open(basename(graph).replace(NCNN_GRAPH, '.bin')),
    sink: diskSink(to),
    ...(license === undefined ? {} : { license }),
  });
  const [file] = manifest.files;
  console.log(`${to}: ${manifest.name}, ${(file!.sizeBytes / MIB).toFixed(1)} MiB in ${file!.path}`);
  return manifest;
}
