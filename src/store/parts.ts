import { ZoetropeError } from '../errors';
import { type Folder, hashPiece, MANIFEST_FILE, type ManifestFile } from '../manifest';
import type { PartName } from '../part';
import { type Disk, isFull, type StoreHost, storageFull, storedFolder, writeSmall } from './disk';
import { httpFolder } from './http';
import { exclusively, holdInUse } from './library';
import { parsePart } from './manifest-reader';
import { modelPath } from './pieces';
import { openPart, readManifest, type VerifiedPart } from './verified';

/** Optional parts in the store, one folder each: every model of this origin finds them there, without network too. */

const PARTS: readonly PartName[] = ['film', 'rife'];

/** Folder of a part in the store. */
export function partId(part: PartName): string {
  return `part-${part}`;
}

/** A part of the store, taken into use. */
export interface StoredPartCopy {
  part: VerifiedPart;
  /** Lets it be replaced and deleted again. */
  release(): void;
}

/** Opens a part of the store; undefined when it is not there, or not whole. */
export async function useStoredPart(
  host: Pick<StoreHost, 'disk' | 'locks'>,
  part: PartName,
): Promise<StoredPartCopy | undefined> {
  const id = partId(part);
  if (!(await host.disk.folders()).includes(id)) return undefined;
  const release = await holdInUse(host, id);
  const opened = await openWhole(host.disk, part);
  if (opened) return { part: opened, release };
  release();
  return undefined;
}

/**
 * A part, from a folder of parts or else from the store. Whatever lies in the folder instead, such as a server's page
 * for what it does not have, is none.
 * @param url of the folder, with its slash.
 */
export async function findPart(
  host: Pick<StoreHost, 'disk' | 'locks'> | undefined,
  url: string,
  part: PartName,
): Promise<StoredPartCopy | undefined> {
  try {
    return { part: await openPart(httpFolder(new URL(`${part}/`, url).href), part), release: () => undefined };
  } catch (error) {
    const none = error instanceof ZoetropeError && ['unreadable-source', 'bad-checkpoint'].includes(error.code);
    if (none) return host && useStoredPart(host, part);
    throw error;
  }
}

/**
 * A part whose manifest is valid and whose files have their sizes; the manifest is written last, so these are whole.
 */
async function openWhole(disk: Disk, part: PartName): Promise<VerifiedPart | undefined> {
  const folder = storedFolder(disk, partId(part));
  try {
    const opened = await openPart(folder, part);
    for (const { path, sizeBytes } of opened.manifest.files) {
      if ((await folder.open(path)).sizeBytes !== sizeBytes) return undefined;
    }
    return opened;
  } catch (error) {
    if (error instanceof ZoetropeError && ['unreadable-source', 'bad-checkpoint'].includes(error.code))
      return undefined;
    throw error;
  }
}

/** The parts that are in the store. */
export async function storedParts(disk: Disk): Promise<{ part: PartName; opened: VerifiedPart }[]> {
  const found: { part: PartName; opened: VerifiedPart }[] = [];
  const folders = await disk.folders();
  for (const part of PARTS) {
    const opened = folders.includes(partId(part)) ? await openWhole(disk, part) : undefined;
    if (opened) found.push({ part, opened });
  }
  return found;
}

/** How a part is stored. */
export interface StorePartOptions {
  signal: AbortSignal;
  onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * Copies a part's folder into the store, each piece after its hash matched; pieces that are there from an earlier
 * attempt are not read again. Gives the part's id. The same part once more changes nothing; another one replaces what
 * is there, unless it is open (`model-in-use`). Throws what the folder throws, `corrupt-data`, and `storage-full`.
 */
export async function storePart(
  host: StoreHost,
  folder: Folder,
  part: PartName,
  { signal, onProgress }: StorePartOptions,
): Promise<string> {
  const id = partId(part);
  const bytes = await readManifest(folder, signal);
  const { files } = parsePart(bytes, part);
  const there = (await host.disk.folders()).includes(id) ? await openWhole(host.disk, part) : undefined;
  if (there && JSON.stringify(there.manifest.files) === JSON.stringify(files)) return id;
  const totalBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
  const room = await host.disk.room();
  if (totalBytes > Math.max(0, room.quotaBytes - room.usedBytes)) throw storageFull(totalBytes, room);
  await exclusively(host, id, async () => {
    await host.disk.removeFile(id, MANIFEST_FILE);
    let doneBytes = 0;
    for (const file of files) {
      await copyFile(host, folder, id, file, signal, (count) => {
        doneBytes += count;
        onProgress?.(doneBytes, totalBytes);
      });
    }
    await writeSmall(host.disk, id, MANIFEST_FILE, bytes);
  });
  return id;
}

async function copyFile(
  { disk }: StoreHost,
  folder: Folder,
  id: string,
  { path, pieces, sizeBytes }: ManifestFile,
  signal: AbortSignal,
  report: (count: number) => void,
): Promise<void> {
  const source = await folder.open(path);
  const file = await disk.edit(id, modelPath(path));
  try {
    if (file.sizeBytes() > sizeBytes) file.clear();
    let begin = 0;
    for (const piece of pieces) {
      if (signal.aborted) throw new ZoetropeError('aborted', 'Storing the part was stopped. What is there stays.');
      const present = new Uint8Array(piece.sizeBytes);
      const whole = file.read(begin, present) === present.length && (await hashPiece(present)) === piece.sha256;
      if (!whole) {
        const bytes = await source.read(begin, begin + piece.sizeBytes);
        if ((await hashPiece(bytes)) !== piece.sha256) {
          const why = `${path}: bytes ${begin} to ${begin + piece.sizeBytes} have another SHA-256 than ${MANIFEST_FILE} states.`;
          throw new ZoetropeError('corrupt-data', `${why} Ask the part's publisher, or import it again.`);
        }
        if (file.write(begin, bytes) < bytes.length) throw storageFull(sizeBytes - begin, await disk.room());
        file.flush();
      }
      begin += piece.sizeBytes;
      report(piece.sizeBytes);
    }
  } catch (error) {
    throw isFull(error) ? storageFull(sizeBytes, await disk.room()) : error;
  } finally {
    file.close();
  }
}

/** Stores the parts that a model's folder has beside it, as `../<part>/`; those that are not there are left out. */
export async function storePartsBeside(
  host: StoreHost,
  folderOf: (part: PartName) => Folder,
  options: StorePartOptions,
): Promise<void> {
  for (const part of PARTS) {
    const folder = folderOf(part);
    try {
      await openPart(folder, part, { signal: options.signal });
    } catch (error) {
      // Whatever lies there instead, such as a server's page for what it does not have, is no part.
      if (error instanceof ZoetropeError && ['unreadable-source', 'bad-checkpoint'].includes(error.code)) continue;
      throw error;
    }
    await storePart(host, folder, part, options);
  }
}
