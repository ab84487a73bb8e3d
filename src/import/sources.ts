import { blobSource } from '../checkpoint/blob';
import { type ImportSource, looseWeights } from '../checkpoint/sources';
import { messageOf, ZoetropeError } from '../errors';
import type { ByteSource, Folder } from '../manifest';
import type { SourceSpec } from './protocol';
import { urlSource } from './url';

/** Sources of an import as a browser has them: files, lists of a folder's files, handles and addresses. */

/** Files by path below their folder. */
type Listed = ReadonlyMap<string, Blob>;

function listedFolder(name: string, files: Listed): Folder {
  return {
    async open(path) {
      const file = files.get(path);
      if (file) return blobSource(file, `${name}/${path}`);
      throw new ZoetropeError('unreadable-source', `${name}/${path} is not among the files.`);
    },
  };
}

/** Reads through a fresh `File` each time: one that was held goes stale when its folder is synchronised, say. */
async function handleFile(handle: FileSystemFileHandle, path: string): Promise<ByteSource> {
  try {
    return blobSource(await handle.getFile(), path);
  } catch (cause) {
    const why = `${path} cannot be read: ${messageOf(cause)}. Choose it again.`;
    throw new ZoetropeError('unreadable-source', why, { cause });
  }
}

function handleFolder(handle: FileSystemDirectoryHandle): Folder {
  return {
    async open(path) {
      const names = path.split('/');
      let folder = handle;
      try {
        for (const name of names.slice(0, -1)) folder = await folder.getDirectoryHandle(name);
        return await handleFile(await folder.getFileHandle(names.at(-1)!), `${handle.name}/${path}`);
      } catch (cause) {
        if (cause instanceof ZoetropeError) throw cause;
        const why = `${handle.name}/${path} cannot be read: ${messageOf(cause)}. Choose the folder again.`;
        throw new ZoetropeError('unreadable-source', why, { cause });
      }
    },
  };
}

/** A folder of a known layout as one source; any other one as the weight files that lie in it. */
async function folderSources(path: string, names: readonly string[], folder: Folder): Promise<ImportSource[]> {
  const files = looseWeights(names);
  if (files.length === 0) return [{ path, folder }];
  return Promise.all(files.map(async (name) => ({ path: `${path}/${name}`, file: await folder.open(name) })));
}

async function handleSources(handle: FileSystemFileHandle | FileSystemDirectoryHandle): Promise<ImportSource[]> {
  if (handle.kind === 'file') return [{ path: handle.name, file: await handleFile(handle, handle.name) }];
  const names: string[] = [];
  try {
    for await (const name of handle.keys()) names.push(name);
  } catch (cause) {
    const why = `${handle.name} cannot be read: ${messageOf(cause)}. Choose the folder again.`;
    throw new ZoetropeError('unreadable-source', why, { cause });
  }
  return folderSources(handle.name, names, handleFolder(handle));
}

/** Files whose paths begin with the same folder are that folder; others stand for themselves. */
async function fileSources(specs: readonly Extract<SourceSpec, { kind: 'file' }>[]): Promise<ImportSource[]> {
  const folders = new Map<string, { files: Map<string, Blob>; role: 'high' | 'low' | undefined }>();
  const sources: ImportSource[] = [];
  for (const { path, file, role } of specs) {
    const [, root, within] = /^([^/]+)\/(.+)$/s.exec(path) ?? [];
    if (root === undefined || within === undefined) sources.push({ path, file: blobSource(file, path), role });
    else {
      const folder = folders.get(root) ?? { files: new Map(), role };
      folder.files.set(within, file);
      folders.set(root, folder);
    }
  }
  for (const [root, { files, role }] of folders) {
    const names = [...new Set([...files.keys()].map((path) => path.split('/')[0]!))];
    const found = await folderSources(root, names, listedFolder(root, files));
    sources.push(...found.map((source) => ({ ...source, role })));
  }
  return sources;
}

/**
 * Opens the sources. Throws `bad-request` when there are none or an address is none, and `unreadable-source` for what
 * cannot be read.
 */
export async function openSpecs(specs: readonly SourceSpec[], signal?: AbortSignal): Promise<ImportSource[]> {
  if (specs.length === 0) {
    throw new ZoetropeError('bad-request', 'An import needs at least one source: a file, a folder or a URL.');
  }
  const sources = await fileSources(specs.filter((spec) => spec.kind === 'file'));
  for (const spec of specs) {
    if (spec.kind === 'file') continue;
    const own = spec.kind === 'url' ? [await urlSource(spec.url, { signal })] : await handleSources(spec.handle);
    sources.push(...own.map((source) => ({ ...source, role: spec.role })));
  }
  return sources;
}
