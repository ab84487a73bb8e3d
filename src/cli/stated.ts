import type { Folder, Manifest } from '../manifest';
import type { PartManifest, PartName } from '../part';
import { parseManifest, parsePart } from '../store/manifest-reader';
import { readManifest } from '../store/verified';

/** Which optional part a manifest says that it is of; undefined for a model's, and for what is no manifest. */
function partOf(bytes: Uint8Array): PartName | undefined {
  try {
    const { part } = JSON.parse(new TextDecoder().decode(bytes)) as { part?: unknown };
    return part === 'film' || part === 'rife' ? part : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The manifest of a folder: a model's, or that of an optional part. Throws `bad-checkpoint` for a wrong one,
 * `unreadable-source` for none.
 */
export async function statedBy(folder: Folder): Promise<{ model: Manifest } | { part: PartManifest }> {
  const bytes = await readManifest(folder);
  const part = partOf(bytes);
  return part ? { part: parsePart(bytes, part) } : { model: parseManifest(bytes) };
}
