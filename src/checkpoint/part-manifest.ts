import { throwIfAborted } from '../errors';
import { type FolderSink, MANIFEST_FILE, type ManifestFile } from '../manifest';
import type { PartManifest } from '../part';

/** What a part's manifest states besides its files. */
export type PartStatement = Pick<PartManifest, 'part' | 'name'> & { license: string | undefined };

/**
 * Writes a part's `zoetrope.json` behind its shard, so that an interrupted import is never taken for a part. One line
 * for each field. Throws `aborted`, `unreadable-source`.
 */
export async function writePartManifest(
  sink: FolderSink,
  { part, name, license }: PartStatement,
  file: ManifestFile,
  signal: AbortSignal | undefined,
): Promise<PartManifest> {
  const manifest: PartManifest = { format: 1, part, name, license: license ?? 'unknown', files: [file] };
  throwIfAborted(signal);
  const lines = Object.entries(manifest).map(([key, value]) => `${JSON.stringify(key)}: ${JSON.stringify(value)}`);
  const target = await sink.create(MANIFEST_FILE);
  try {
    await target.write(0, new TextEncoder().encode(`{\n${lines.join(',\n')}\n}\n`));
  } finally {
    await target.close();
  }
  return manifest;
}
