import { throwIfAborted, ZoetropeError } from '../errors';
import { isFloatDtype } from '../floats';
import type { ByteSource, FolderSink, ManifestFile, TensorEntry } from '../manifest';
import { ShardWriter } from './shard';

/** What the imports of interpolators share: one file of PyTorch's becomes one shard. */

/** Where a part comes from and goes to. */
export interface PartFileOptions {
  /** A safetensors file with PyTorch's names, those of the authors' files or of ComfyUI's. */
  file: ByteSource;
  /** The file's name, for messages. */
  what: string;
  /** Where the part's folder goes. `zoetrope.json` is removed first and written last. */
  sink: FolderSink;
  /** SPDX identifier of the weights' licence; default "unknown", because the file does not state it. */
  license?: string;
  signal?: AbortSignal | undefined;
}

/**
 * The file's names by ours. Throws `bad-checkpoint` when two of its tensors would get one.
 * @param ourName undefined for what is not imported.
 * @param remedy what to do instead, for the error.
 */
export function renamedTensors(
  entries: ReadonlyMap<string, TensorEntry>,
  ourName: (name: string) => string | undefined,
  what: string,
  remedy: string,
): Map<string, string> {
  const names = new Map<string, string>();
  for (const name of entries.keys()) {
    const ours = ourName(name);
    if (ours === undefined) continue;
    const other = names.get(ours);
    if (other !== undefined) {
      throw new ZoetropeError('bad-checkpoint', `${what} holds both "${other}" and "${name}". ${remedy}`);
    }
    names.set(ours, name);
  }
  return names;
}

/** Throws `bad-checkpoint` for a tensor that holds no floats of 16 or 32 bits. */
export function refuseOtherTypes(entries: ReadonlyMap<string, TensorEntry>, what: string, remedy: string): void {
  for (const [name, { dtype }] of entries) {
    if (isFloatDtype(dtype)) continue;
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what}: "${name}" has type ${dtype}; F16, BF16 and F32 are read. ${remedy}`,
    );
  }
}

/**
 * Writes tensors as one shard, in their order; it is abandoned when one cannot be had. Throws `aborted` and what
 * `bytesOf` throws.
 */
export async function writePartShard(
  { sink, signal }: Pick<PartFileOptions, 'sink' | 'signal'>,
  path: string,
  entries: ReadonlyMap<string, TensorEntry>,
  bytesOf: (name: string, entry: TensorEntry) => Uint8Array | Promise<Uint8Array>,
): Promise<ManifestFile> {
  const writer = await ShardWriter.create(sink, path, entries);
  try {
    for (const [name, entry] of entries) {
      throwIfAborted(signal);
      const bytes = await bytesOf(name, entry);
      writer.declare(name, { dtype: entry.dtype, shape: entry.shape });
      await writer.append(bytes);
    }
    return await writer.finish();
  } catch (error) {
    await writer.abandon();
    throw error;
  }
}
