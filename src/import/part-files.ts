import { importFilm, isFilm } from '../checkpoint/film';
import { checkLabels } from '../checkpoint/import';
import { importRife } from '../checkpoint/rife';
import { importRifeTorch, isRife } from '../checkpoint/rife-torch';
import { openIfThere, readHeader } from '../checkpoint/safetensors';
import type { ImportSource } from '../checkpoint/sources';
import { ZoetropeError } from '../errors';
import type { ByteSource, FolderSink } from '../manifest';
import type { PartManifest, PartName } from '../part';
import { isUrl, urlSource } from './url';

/** Sources that are an optional part: FILM's or RIFE's safetensors file, or ncnn's two files of RIFE. */
export type PartFiles =
  | { part: 'film' | 'rife'; path: string; file: ByteSource }
  | { part: 'rife'; param: ByteSource; bin: ByteSource };

/** Ending of an ncnn graph, whose weights lie beside it by the same name. */
const NCNN_GRAPH = /\.param$/i;
const NCNN_WEIGHTS = /\.bin$/i;

/**
 * The sources as an optional part; undefined when they are none. Throws `unreadable-source` for a graph without its
 * weights.
 */
export async function partIn(sources: readonly ImportSource[]): Promise<PartFiles | undefined> {
  const [first] = sources;
  const graph = sources.find(({ path, file }) => file && NCNN_GRAPH.test(path));
  if (graph) return { part: 'rife', param: graph.file!, bin: await weightsOf(graph.path, sources) };
  if (sources.length !== 1 || !first) return undefined;
  if (first.folder) {
    const param = await openIfThere(first.folder, 'flownet.param');
    return param && { part: 'rife', param, bin: await first.folder.open('flownet.bin') };
  }
  if (!/\.safetensors$/i.test(first.path)) return undefined;
  const { tensors } = await readHeader(first.file!, first.path);
  const part = partOf(tensors);
  return part && { part, path: first.path, file: first.file! };
}

/** The optional part that a file's tensors are; undefined for others. */
export function partOf(tensors: ReadonlyMap<string, unknown>): PartName | undefined {
  return isFilm(tensors) ? 'film' : isRife(tensors) ? 'rife' : undefined;
}

async function weightsOf(path: string, sources: readonly ImportSource[]): Promise<ByteSource> {
  const given = sources.find((source) => source.file && NCNN_WEIGHTS.test(source.path));
  if (given) return given.file!;
  const beside = path.replace(NCNN_GRAPH, '.bin');
  if (isUrl(path)) return (await urlSource(beside)).file!;
  throw new ZoetropeError('unreadable-source', `${path} is half of an ncnn network. Add its weights, ${beside}, too.`);
}

/**
 * Writes the folder of an optional part. Throws `bad-checkpoint`, `unreadable-source`, `aborted`, or `bad-request` for
 * the licence.
 * @param options.license SPDX identifier of the weights' licence; default "unknown".
 */
export function writePart(
  files: PartFiles,
  options: { sink: FolderSink; license?: string | undefined; signal?: AbortSignal | undefined },
): Promise<PartManifest> {
  const { sink, license, signal } = options;
  checkLabels({ license });
  const rest = { sink, signal, ...(license === undefined ? {} : { license }) };
  if ('param' in files) return importRife({ param: files.param, bin: files.bin, ...rest });
  const what = files.path.replace(/^.*[\\/]/, '');
  const tensors = { file: files.file, what, ...rest };
  return files.part === 'film' ? importFilm(tensors) : importRifeTorch(tensors);
}
