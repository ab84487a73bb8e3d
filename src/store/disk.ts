import { ZoetropeError } from '../errors';
import { type ByteSource, type Folder, MANIFEST_FILE } from '../manifest';
import type { Fetch } from './http';
import { modelPath, type PieceList, readJournal } from './pieces';

/** What the store needs of its surroundings, and how a model lies on the disk. */

/** A file that is being written. Its calls take effect in their order; each throws what the disk throws. */
export interface DiskFile {
  sizeBytes(): number;
  /** Fills the buffer from a position. Returns the bytes read, fewer where the file ends. */
  read(position: number, buffer: Uint8Array): number;
  /** Writes at a position, past the end too. Returns the bytes written, which a full disk makes fewer. */
  write(position: number, bytes: Uint8Array): number;
  /** Empties the file. */
  clear(): void;
  /** What was written before this survives a crash. */
  flush(): void;
  close(): void;
}

/** Room for files, in bytes. */
export interface Room {
  usedBytes: number;
  /** What may be used in all. */
  quotaBytes: number;
}

/** Folders of files, one folder for each model. */
export interface Disk {
  folders(): Promise<string[]>;
  /** Throws `unreadable-source` when there is no such file. */
  open(folder: string, path: string): Promise<ByteSource>;
  /** Opens a file for writing; it is made, with its folders, when it is not there. One writer has it at a time. */
  edit(folder: string, path: string): Promise<DiskFile>;
  /** Moves a file that nobody has open to the same path in another folder, which is made, replacing what is there. */
  move(folder: string, path: string, to: string): Promise<void>;
  /** Deletes a folder with everything in it. */
  remove(folder: string): Promise<void>;
  /** Deletes a file if it is there. */
  removeFile(folder: string, path: string): Promise<void>;
  room(): Promise<Room>;
}

/** Messages between the tabs of an origin: the part of `BroadcastChannel` that is used. */
export interface Channel {
  postMessage(message: unknown): void;
  onmessage: ((event: MessageEvent) => unknown) | null;
  close(): void;
}

/** Everything that the store touches. */
export interface StoreHost {
  disk: Disk;
  fetch: Fetch;
  /** `navigator.locks`: what is locked is locked in all tabs. */
  locks: Pick<LockManager, 'request' | 'query'>;
  channel(name: string): Channel;
  /** Milliseconds since 1970. */
  now(): number;
  /** Resolves early at the signal. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
  /** From 0 to 1. */
  random(): number;
}

/** Files of the store beside a model's own. */
export const JOURNAL_FILE = 'pieces';
export const SOURCE_FILE = 'source.json';
export const ARRIVALS_FILE = 'arrivals';

/** Names of locks. Whoever changes a model holds the first alone; whoever reads one holds the second, shared. */
export const changeLock = (id: string) => `zoetrope-change-${id}`;
export const useLock = (id: string) => `zoetrope-use-${id}`;

/** A small file, whole; undefined when there is none. */
export async function readSmall(disk: Disk, id: string, path: string): Promise<Uint8Array | undefined> {
  try {
    const source = await disk.open(id, path);
    return await source.read(0, source.sizeBytes);
  } catch (error) {
    if (error instanceof ZoetropeError && error.code === 'unreadable-source') return undefined;
    throw error;
  }
}

/** Which pieces of a model are there. */
export interface Present {
  /** As {@link readJournal} gives it, without the pieces of files that the browser has thrown away or cut. */
  journal: Uint8Array;
  /** Bytes of each file of the list, 0 for those that are not there. */
  sizes: number[];
}

export async function presentPieces(disk: Disk, id: string, list: PieceList): Promise<Present> {
  const [written, ...sizes] = await Promise.all([
    readSmall(disk, id, JOURNAL_FILE),
    ...list.files.map(({ path }) => fileBytes(disk, id, modelPath(path))),
  ]);
  const journal = readJournal(written, list);
  for (const { index, file, end } of list.pieces) if (end > sizes[file]!) journal[index] = 0;
  return { journal, sizes };
}

/** Bytes of a file, 0 when it is not there. */
export async function fileBytes(disk: Disk, id: string, path: string): Promise<number> {
  try {
    return (await disk.open(id, path)).sizeBytes;
  } catch (error) {
    if (error instanceof ZoetropeError && error.code === 'unreadable-source') return 0;
    throw error;
  }
}

/** Writes a small file, replacing what is there unless that is the same. */
export async function writeSmall(disk: Disk, id: string, path: string, bytes: Uint8Array): Promise<void> {
  const present = await readSmall(disk, id, path);
  if (present?.length === bytes.length && bytes.every((byte, index) => byte === present[index])) return;
  const file = await disk.edit(id, path);
  try {
    file.clear();
    if (file.write(0, bytes) < bytes.length)
      throw new DOMException('The disk took too few bytes.', 'QuotaExceededError');
    file.flush();
  } finally {
    file.close();
  }
}

/** Notes where a model came from, beside what is noted by now. */
export async function noteOrigin(
  disk: Disk,
  id: string,
  origin: { url: string } | { imported: string },
): Promise<void> {
  const written = await readSmall(disk, id, SOURCE_FILE);
  let before: object | null = null;
  try {
    before = JSON.parse(new TextDecoder().decode(written));
  } catch {
    // None, or its write was cut.
  }
  await writeSmall(disk, id, SOURCE_FILE, new TextEncoder().encode(JSON.stringify({ ...before, ...origin })));
}

/** A stored model as a folder to open. Its bytes are stable: who opens it holds {@link useLock}. */
export function storedFolder(disk: Disk, id: string): Folder {
  return {
    open: async (path) => {
      const source = await disk.open(id, path === MANIFEST_FILE ? path : modelPath(path));
      return { ...source, stable: true };
    },
  };
}

/** The error of a disk that is full, with the numbers. */
export function storageFull(neededBytes: number, { usedBytes, quotaBytes }: Room): ZoetropeError {
  const availableBytes = Math.max(0, quotaBytes - usedBytes);
  const message = `The model needs ${neededBytes} more bytes of storage; this browser offers ${availableBytes}. Delete another model or free space on the disk.`;
  const ctx = { neededBytes, availableBytes };
  return new ZoetropeError('storage-full', message, {
    detail: [{ loc: ['storage'], msg: message, type: 'storage_full', ctx }],
  });
}

/**
 * Whether a disk refused bytes because it is full: `QuotaExceededError`, as an exception or, in newer browsers, a
 * class.
 */
export function isFull(error: unknown): boolean {
  return error instanceof Error && error.name === 'QuotaExceededError';
}
