import { ZoetropeError } from '../errors';
import { floatBytes } from '../floats';
import {
  type ByteSource,
  type FileSink,
  type Folder,
  type FolderSink,
  hashPiece,
  MAX_PIECE_BYTES,
  type ManifestFile,
  type Piece,
  type ShardTensor,
} from '../manifest';
import type { Checkpoint, WeightComponent, Weights } from './weights';

/**
 * What an import has done so far, kept in the target folder, so that one that was stopped or killed goes on where it
 * was. Two files take turns: a write that is cut leaves the other one whole.
 */

const JOURNAL_FILES = ['import-journal-0.json', 'import-journal-1.json'] as const;
/** Largest journal read; that of A14B at its end has about 1 MB. */
const MAX_JOURNAL_BYTES = 16 * 1024 * 1024;
/**
 * Number of this layout, of the slices and of the bytes that the importer writes; a journal of another is not
 * continued.
 */
const VERSION = 1;

/** A folder that can be read back and whose files can be opened again for writing without losing what they hold. */
export interface ResumableFolder extends FolderSink, Folder {
  /** Opens a file that is there for further writes. Throws `unreadable-source` when it is not. */
  reopen(path: string): Promise<FileSink>;
}

/** A file that was begun: everything needed to check what lies on disk and to go on behind it. */
export interface FileCheckpoint {
  path: string;
  /** Whole pieces; the first is missing while it waits for the file's head. */
  pieces: (Piece | null)[];
  /** What the first piece holds until the head is known. */
  waiting: Piece | null;
  /** What follows the whole pieces. */
  tail: Piece;
  /** Declared so far, the last one perhaps not complete. */
  tensors: [name: string, tensor: ShardTensor][];
  /** The last tensor when it is not complete, and how many of its slices are there. */
  partial: { name: string; slices: number } | null;
}

/** Progress of an import. */
export interface JournalState {
  /** Finished files by component, in order. */
  done: Partial<Record<WeightComponent, ManifestFile[]>>;
  open: FileCheckpoint | null;
}

interface Written extends JournalState {
  version: number;
  fingerprint: string;
  turn: number;
}

/** Small tensors whose values stand for those of their component. */
const SAMPLES = ['head.head.bias', 'patch_embedding.bias', 'encoder.final_layer_norm.weight', 'conv2.bias'];
/**
 * Matrices of a component whose first rows do so too, since a merged LoRA changes matrices alone. Spread over its
 * blocks, and few: on a server each is a request.
 */
const SAMPLED_MATRICES = 16;
/** Values of the largest block of GGUF's formats; a tensor that was reshaped for them may have several rows in one. */
const LARGEST_BLOCK = 256;

/** The matrices to sample, with the values to read of each: whole rows and whole blocks. */
function sampledRows({ entries }: Pick<Weights, 'entries'>): [name: string, count: number][] {
  const matrices = [...entries].flatMap(([name, { shape }]): [string, number][] => {
    const [rows, length] = [shape[0]!, shape.slice(1).reduce((product, size) => product * size, 1)];
    let read = 1;
    while ((read * length) % LARGEST_BLOCK !== 0) read *= 2;
    return rows > 1 && length > 1 ? [[name, Math.min(rows, read) * length]] : [];
  });
  const count = Math.min(SAMPLED_MATRICES, matrices.length);
  return Array.from({ length: count }, (_, i) => matrices[Math.floor(((i + 0.5) * matrices.length) / count)]!);
}

/**
 * Tells one import from another: the sources' tensors, some of their values, and everything that decides about the
 * bytes written.
 */
export async function fingerprintOf({ weights, ...config }: Checkpoint, options: unknown): Promise<string> {
  const parts: unknown[] = [VERSION, { ...config, tokenizer: config.tokenizer.sizeBytes }, options];
  for (const [component, source] of Object.entries(weights)) {
    const entries = Array.from(source.entries, ([name, { shape, storage, sizeBytes }]) => [
      name,
      shape,
      storage,
      sizeBytes,
    ]);
    const samples = SAMPLES.filter((name) => source.entries.has(name)).map(async (name) => {
      const count = source.entries.get(name)!.shape.reduce((product, size) => product * size, 1);
      return [...(await source.readFloats(name, 0, count))];
    });
    const rows = sampledRows(source).map(async ([name, count]) =>
      hashPiece(floatBytes(await source.readFloats(name, 0, count))),
    );
    parts.push(component, entries, await Promise.all(samples), await Promise.all(rows));
  }
  return hashPiece(new TextEncoder().encode(JSON.stringify(parts)));
}

async function readWhole(folder: Folder, path: string): Promise<Uint8Array | undefined> {
  let file: ByteSource;
  try {
    file = await folder.open(path);
  } catch (error) {
    if (error instanceof ZoetropeError && error.code === 'unreadable-source') return undefined;
    throw error;
  }
  return file.sizeBytes > MAX_JOURNAL_BYTES ? undefined : file.read(0, file.sizeBytes);
}

/** The last whole state of the journals in a folder, of whatever import. */
async function newest(folder: Folder, fits: (state: Written) => boolean): Promise<Written | undefined> {
  const read = await Promise.all(JOURNAL_FILES.map((path) => readWhole(folder, path)));
  const parsed = await Promise.all(read.map((bytes) => bytes && parse(bytes)));
  const valid = parsed.filter((state) => state !== undefined && fits(state)) as Written[];
  return valid.sort((a, b) => b.turn - a.turn)[0];
}

/** Bytes that an import can go on from, as its journal notes them; 0 without one. */
export async function notedBytes(folder: Folder): Promise<number> {
  const state = await newest(folder, () => true);
  if (!state) return 0;
  const whole = Object.values(state.done).flat();
  const pieces = state.open ? [...state.open.pieces, state.open.tail] : [];
  return [...whole, ...pieces].reduce((sum, item) => sum + (item ?? state.open?.waiting)!.sizeBytes, 0);
}

/** The journal of one import. */
export class Journal {
  #turn = 0;

  private constructor(
    private readonly folder: ResumableFolder,
    private readonly fingerprint: string,
    /** What was there when it was opened. */
    readonly found: JournalState,
  ) {}

  /** Opens the folder's journal. One of another import, or a damaged one, counts as none. */
  static async open(folder: ResumableFolder, fingerprint: string): Promise<Journal> {
    const state = await newest(folder, (written) => written.fingerprint === fingerprint);
    const journal = new Journal(folder, fingerprint, state ?? { done: {}, open: null });
    journal.#turn = (state?.turn ?? 0) + 1;
    return journal;
  }

  /** Notes what has been done. */
  async write({ done, open }: JournalState): Promise<void> {
    const state: Written = { version: VERSION, fingerprint: this.fingerprint, turn: this.#turn, done, open };
    const text = new TextEncoder().encode(JSON.stringify(state));
    const bytes = new TextEncoder().encode(`${await hashPiece(text)}\n`);
    const file = await this.folder.create(JOURNAL_FILES[this.#turn % 2]!);
    this.#turn++;
    try {
      await file.write(0, bytes);
      await file.write(bytes.length, text);
    } finally {
      await file.close();
    }
  }

  /** Removes the journal, at the end of the import or for a fresh start. */
  async remove(): Promise<void> {
    for (const path of JOURNAL_FILES) await this.folder.remove(path);
  }
}

function isPiece(value: unknown): boolean {
  const { sizeBytes, sha256 } = (value ?? {}) as Partial<Piece>;
  return Number.isInteger(sizeBytes) && sizeBytes! >= 0 && sizeBytes! <= MAX_PIECE_BYTES && typeof sha256 === 'string';
}

function isFile(value: unknown): boolean {
  const { path, sizeBytes, pieces } = (value ?? {}) as Partial<ManifestFile>;
  return typeof path === 'string' && Number.isSafeInteger(sizeBytes) && Array.isArray(pieces) && pieces.every(isPiece);
}

function isTensor(value: unknown): boolean {
  const [name, tensor] = Array.isArray(value) ? value : [];
  const { dtype, shape, range } = (tensor ?? {}) as Partial<ShardTensor>;
  const numbers = [shape, range].every((list) => Array.isArray(list) && list.every(Number.isSafeInteger));
  return typeof name === 'string' && typeof dtype === 'string' && numbers && range!.length === 2;
}

function isBegun(value: unknown): boolean {
  const { path, pieces, waiting, tail, tensors, partial } = (value ?? {}) as Partial<FileCheckpoint>;
  if (typeof path !== 'string' || !isPiece(tail) || (waiting !== null && !isPiece(waiting))) return false;
  // Only the first piece waits, and only while its bytes are noted.
  const held =
    Array.isArray(pieces) && pieces.every((piece, i) => isPiece(piece) || (piece === null && i === 0 && waiting));
  const whole = partial === null || (typeof partial?.name === 'string' && Number.isSafeInteger(partial.slices));
  return held && whole && Array.isArray(tensors) && tensors.every(isTensor);
}

/** Whether a journal is of this version and form. */
function isWritten(value: unknown): value is Written {
  const { version, fingerprint, turn, done, open } = (value ?? {}) as Partial<Written>;
  if (version !== VERSION || typeof fingerprint !== 'string' || !Number.isSafeInteger(turn)) return false;
  if (typeof done !== 'object' || done === null || (open !== null && !isBegun(open))) return false;
  return Object.values(done).every((files) => Array.isArray(files) && files.every(isFile));
}

/**
 * The first line is the hash of the rest, so a journal that matches it is whole. Its form is looked at nevertheless:
 * other versions of this code may have written it. Undefined for what cannot be continued.
 */
async function parse(bytes: Uint8Array): Promise<Written | undefined> {
  const line = 65;
  const stated = new TextDecoder().decode(bytes.subarray(0, line));
  const text = bytes.subarray(line);
  if (stated !== `${await hashPiece(text)}\n`) return undefined;
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(text));
    return isWritten(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the bytes of a file, from `begin` on, are those of a piece. */
async function holds(file: ByteSource, begin: number, piece: Piece): Promise<boolean> {
  if (begin + piece.sizeBytes > file.sizeBytes) return false;
  return (await hashPiece(await file.read(begin, begin + piece.sizeBytes))) === piece.sha256;
}

/** Whether every piece of a finished file is on disk as noted. */
export async function isIntact(folder: Folder, { path, pieces, sizeBytes }: ManifestFile): Promise<boolean> {
  const file = await openOrNone(folder, path);
  if (file?.sizeBytes !== sizeBytes) return false;
  let begin = 0;
  for (const piece of pieces) {
    if (!(await holds(file, begin, piece))) return false;
    begin += piece.sizeBytes;
  }
  return true;
}

/**
 * Whether everything that a checkpoint notes is on disk. What lies behind it does not matter, it will be written again.
 */
export async function isContinuable(folder: Folder, { path, pieces, waiting, tail }: FileCheckpoint): Promise<boolean> {
  const file = await openOrNone(folder, path);
  if (!file) return false;
  let begin = 0;
  for (const piece of [...pieces.map((piece) => piece ?? waiting), tail]) {
    if (!piece || !(await holds(file, begin, piece))) return false;
    begin += piece.sizeBytes;
  }
  return true;
}

async function openOrNone(folder: Folder, path: string): Promise<ByteSource | undefined> {
  try {
    return await folder.open(path);
  } catch (error) {
    if (error instanceof ZoetropeError && error.code === 'unreadable-source') return undefined;
    throw error;
  }
}
