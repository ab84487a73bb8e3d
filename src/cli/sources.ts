import { readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type ImportSource, looseWeights } from '../checkpoint/sources';
import { messageOf, ZoetropeError } from '../errors';
import { isUrl, urlSource } from '../import/url';
import { diskFolder } from './files';

/**
 * Sources of an import as a command line gives them: files, folders and URLs. Strings only, so that threads can be told
 * them.
 */
export interface SourceArguments {
  from: string[];
  /** Files of the two experts, where their names do not say which they are. */
  high?: string | undefined;
  low?: string | undefined;
}

/** A checkpoint has no hashes, so half of one file and half of another must not become a model. */
const UNCHANGED = { unchanged: true };

async function folderSource(path: string): Promise<ImportSource[]> {
  const files = looseWeights(await readdir(path));
  if (files.length === 0) return [{ path, folder: diskFolder(path, UNCHANGED) }];
  return Promise.all(files.map((name) => fileSource(join(path, name))));
}

async function fileSource(path: string): Promise<ImportSource> {
  return { path, file: await diskFolder(dirname(path), UNCHANGED).open(basename(path)) };
}

async function sourcesAt(path: string, signal: AbortSignal | undefined): Promise<ImportSource[]> {
  if (isUrl(path)) return [await urlSource(path, { signal })];
  try {
    return (await stat(path)).isDirectory() ? await folderSource(path) : [await fileSource(path)];
  } catch (error) {
    if (error instanceof ZoetropeError) throw error;
    throw new ZoetropeError('unreadable-source', `${path} cannot be read: ${messageOf(error)}.`, { cause: error });
  }
}

/** Opens the sources. Throws `unreadable-source` for what is not there. */
export async function openSources({ from, high, low }: SourceArguments, signal?: AbortSignal): Promise<ImportSource[]> {
  const sources = (await Promise.all(from.map((path) => sourcesAt(path, signal)))).flat();
  for (const [path, role] of [
    [high, 'high'],
    [low, 'low'],
  ] as const) {
    if (path !== undefined) for (const source of await sourcesAt(path, signal)) sources.push({ ...source, role });
  }
  return sources;
}

/** Files that imports write into their folder. */
const WRITTEN = /^((high|low|text_encoder|vae)(-\d+)?|film|rife)\.safetensors$|^(tokenizer|zoetrope)\.json$/i;

/** Refuses, with `bad-request`, sources that an import into this folder would write over before it has read them. */
export async function refuseOverwriting(sources: readonly ImportSource[], to: string): Promise<void> {
  const target = await realpath(to).catch(() => undefined); // Undefined where it is not there yet.
  for (const { path, file } of sources) {
    if (!file || isUrl(path) || !WRITTEN.test(basename(path)) || (await realpath(dirname(path))) !== target) continue;
    throw new ZoetropeError(
      'bad-request',
      `The import would write over its own source ${path}. Choose another folder with --to.`,
    );
  }
}
