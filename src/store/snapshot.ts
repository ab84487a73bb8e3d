import { ZoetropeError } from '../errors';
import type { Disk } from './disk';

/**
 * Small facts and large arrays that are replaced together or not at all. A snapshot lies in two files that are written
 * by turns: the newer one counts if it is whole, else the one before it. Everything is covered by SHA-256, so that a
 * file which a crash has torn, or a disk has spoilt, is recognised.
 *
 * A file: magic, version, sequence number, length of the facts and their SHA-256, in {@link HEADER_BYTES}; the facts as
 * JSON, which hold the length and SHA-256 of each array; the arrays. The header is written when everything behind it
 * has been flushed.
 */

/** Facts and arrays by name. */
export interface Snapshot {
  facts: Record<string, unknown>;
  arrays: ReadonlyMap<string, Uint8Array>;
}

/** The format of the files. A file of another format is none. */
const VERSION = 1;
const MAGIC = 0x7a6f6531; // "zoe1"
const HEADER_BYTES = 64;
const HASH_AT = 24;
/** Facts are some kilobytes; a header that says more is not one. */
const MAX_FACTS_BYTES = 1 << 20;

interface ArrayEntry {
  name: string;
  sizeBytes: number;
  sha256: string;
}

/** A file whose header and facts are whole. */
interface Found {
  path: string;
  sequence: number;
  facts: Record<string, unknown>;
  arrays: ArrayEntry[];
  /** Where the arrays begin. */
  beginBytes: number;
}

const paths = (name: string): [string, string] => [`${name}-0`, `${name}-1`];

/**
 * Replaces a snapshot. When it rejects, the former one is still there.
 * @param folder of the disk. One writer at a time: who writes holds a lock.
 */
export async function writeSnapshot(disk: Disk, folder: string, name: string, snapshot: Snapshot): Promise<void> {
  const [newest] = await findAll(disk, folder, name);
  const [first, second] = paths(name);
  const path = newest?.path === first ? second : first;
  const arrays: ArrayEntry[] = [];
  for (const [array, bytes] of snapshot.arrays) {
    arrays.push({ name: array, sizeBytes: bytes.length, sha256: hex(await sha256(bytes)) });
  }
  const facts = new TextEncoder().encode(JSON.stringify({ facts: snapshot.facts, arrays }));
  const header = await encodeHeader((newest?.sequence ?? 0) + 1, facts);
  const file = await disk.edit(folder, path);
  const put = (position: number, bytes: Uint8Array): void => {
    if (file.write(position, bytes) < bytes.length) {
      throw new DOMException('The disk took too few bytes.', 'QuotaExceededError');
    }
  };
  try {
    file.clear();
    let position = HEADER_BYTES;
    for (const bytes of [facts, ...snapshot.arrays.values()]) {
      put(position, bytes);
      position += bytes.length;
    }
    file.flush();
    put(0, header);
    file.flush();
  } catch (error) {
    file.clear(); // gives back what a full disk has taken of it
    throw error;
  } finally {
    file.close();
  }
}

/** The newest snapshot that is whole; undefined when there is none. */
export async function readSnapshot(disk: Disk, folder: string, name: string): Promise<Snapshot | undefined> {
  for (const { path, facts, arrays, beginBytes } of await findAll(disk, folder, name)) {
    const source = await openOrNone(disk, folder, path);
    let position = beginBytes;
    const read = new Map<string, Uint8Array>();
    for (const { name: array, sizeBytes, sha256: expected } of arrays) {
      const bytes = await source?.read(position, position + sizeBytes).catch(() => undefined);
      if (!bytes || hex(await sha256(bytes)) !== expected) break;
      read.set(array, bytes);
      position += sizeBytes;
    }
    if (read.size === arrays.length) return { facts, arrays: read };
  }
  return undefined;
}

/** The facts of the newest snapshot, without its arrays being read, and the bytes of both files. */
export async function peekSnapshot(
  disk: Disk,
  folder: string,
  name: string,
): Promise<{ facts: Record<string, unknown> | undefined; storedBytes: number }> {
  const [found, sizes] = await Promise.all([
    findAll(disk, folder, name),
    Promise.all(paths(name).map(async (path) => (await openOrNone(disk, folder, path))?.sizeBytes ?? 0)),
  ]);
  return { facts: found[0]?.facts, storedBytes: sizes[0]! + sizes[1]! };
}

/** The files whose header and facts are whole, newest first. */
async function findAll(disk: Disk, folder: string, name: string): Promise<Found[]> {
  const found = await Promise.all(paths(name).map((path) => find(disk, folder, path)));
  return found.filter((each) => each !== undefined).sort((a, b) => b.sequence - a.sequence);
}

async function find(disk: Disk, folder: string, path: string): Promise<Found | undefined> {
  const source = await openOrNone(disk, folder, path);
  if (!source || source.sizeBytes < HEADER_BYTES) return undefined;
  // A file that is being written, or was thrown away by the browser, cannot be read: it is none.
  const header = await source.read(0, HEADER_BYTES).catch(() => undefined);
  if (!header) return undefined;
  const view = new DataView(header.buffer, header.byteOffset, HEADER_BYTES);
  const [magic, version, factsBytes] = [view.getUint32(0, true), view.getUint32(4, true), view.getUint32(16, true)];
  if (magic !== MAGIC || version !== VERSION || factsBytes > MAX_FACTS_BYTES) return undefined;
  const beginBytes = HEADER_BYTES + factsBytes;
  const bytes = await source.read(HEADER_BYTES, beginBytes).catch(() => undefined);
  const sequence = view.getFloat64(8, true);
  const expected = bytes && (await encodeHeader(sequence, bytes));
  if (!expected?.every((byte, i) => byte === header[i])) return undefined;
  const { facts, arrays } = JSON.parse(new TextDecoder().decode(bytes)) as Pick<Found, 'facts' | 'arrays'>;
  if (source.sizeBytes < arrays.reduce((sum, { sizeBytes }) => sum + sizeBytes, beginBytes)) return undefined;
  return { path, sequence, facts, arrays, beginBytes };
}

async function encodeHeader(sequence: number, facts: Uint8Array): Promise<Uint8Array> {
  const header = new Uint8Array(HEADER_BYTES);
  const view = new DataView(header.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setFloat64(8, sequence, true);
  view.setUint32(16, facts.length, true);
  const covered = new Uint8Array(HASH_AT + facts.length);
  covered.set(header.subarray(0, HASH_AT));
  covered.set(facts, HASH_AT);
  header.set(await sha256(covered), HASH_AT);
  return header;
}

async function openOrNone(disk: Disk, folder: string, path: string) {
  try {
    return await disk.open(folder, path);
  } catch (error) {
    if (error instanceof ZoetropeError && error.code === 'unreadable-source') return undefined;
    throw error;
  }
}

async function sha256(bytes: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>));
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
