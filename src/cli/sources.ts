import { readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { ImportSource } from '../checkpoint/sources';
import { messageOf, ZoetropeError } from '../errors';
import { httpFolder } from '../store/http';
import { diskFolder } from './files';

/** Sources of an import as a command line gives them: files, folders and URLs. Strings only, so that threads can be told them. */
export interface SourceArguments {
  from: string[];
  /** Files of the two experts, where their names do not say which they are. */
  high?: string | undefined;
  low?: string | undefined;
}

const WEIGHTS = /\.(safetensors|gguf)$/i;

function isUrl(path: string): boolean {
  return /^https?:\/\//i.test(path);
}

async function urlSource(url: string): Promise<ImportSource> {
  const { pathname, search } = new URL(url);
  if (search !== '') {
    throw new ZoetropeError('bad-request', `${url} has a query (${search}). Give the plain address of the file.`);
  }
  if (pathname.endsWith('/') || !/\.[a-z0-9]+$/i.test(pathname)) return { path: url, folder: httpFolder(url) };
  const cut = url.lastIndexOf('/') + 1;
  return { path: url, file: await httpFolder(url.slice(0, cut)).open(url.slice(cut)) };
}

/** A folder of the known layouts as one source; any other one as the weight files that lie in it. */
async function folderSources(path: string): Promise<ImportSource[]> {
  const names = await readdir(path);
  const known = names.some((name) => /^(model_index|config|tokenizer|.*\.index)\.json$|^spiece\.model$/.test(name));
  const parts = names.some((name) => /^(transformer|high_noise_model|text_encoder|vae|tokenizer)$/.test(name));
  const files = names.filter((name) => WEIGHTS.test(name)).sort();
  const plain = files.some((name) => /^(diffusion_pytorch_)?model\.safetensors$/.test(name));
  if (known || parts || plain || files.length === 0) return [{ path, folder: diskFolder(path) }];
  return Promise.all(files.map((name) => fileSource(join(path, name))));
}

async function fileSource(path: string): Promise<ImportSource> {
  return { path, file: await diskFolder(dirname(path)).open(basename(path)) };
}

async function sourcesAt(path: string): Promise<ImportSource[]> {
  if (isUrl(path)) return [await urlSource(path)];
  let isFolder: boolean;
  try {
    isFolder = (await stat(path)).isDirectory();
  } catch (error) {
    throw new ZoetropeError('unreadable-source', `${path} cannot be read: ${messageOf(error)}.`, { cause: error });
  }
  return isFolder ? folderSources(path) : [await fileSource(path)];
}

/** Opens the sources. Throws `unreadable-source` for what is not there. */
export async function openSources({ from, high, low }: SourceArguments): Promise<ImportSource[]> {
  const sources = (await Promise.all(from.map(sourcesAt))).flat();
  for (const [path, role] of [
    [high, 'high'],
    [low, 'low'],
  ] as const) {
    if (path !== undefined) for (const source of await sourcesAt(path)) sources.push({ ...source, role });
  }
  return sources;
}
