import type { ComponentName, Manifest, ManifestFile } from '../manifest';

/** Which pieces a model has, which are there, and which to fetch next. Pure. */

/** The order of components in which pieces are numbered and fetched; the order in which a generation needs them. */
const COMPONENTS: readonly ComponentName[] = ['tokenizer', 'text_encoder', 'high', 'low', 'vae'];

/** A piece of a model. */
export interface StoredPiece {
  /** Number within the model, from 0. */
  index: number;
  /** Number of its file in {@link PieceList.files}. */
  file: number;
  /** Bytes of the file, the end exclusive. */
  begin: number;
  end: number;
  /** As in the manifest. */
  sha256: string;
}

/** All pieces of a model, numbered in an order that follows from the manifest alone. */
export interface PieceList {
  files: readonly ManifestFile[];
  pieces: readonly StoredPiece[];
  /** Bytes of all files. */
  sizeBytes: number;
  /** Bytes of the largest piece. */
  largestBytes: number;
}

export function listPieces({ components }: Pick<Manifest, 'components'>): PieceList {
  const files = COMPONENTS.flatMap((name) => components[name] ?? []);
  const pieces: StoredPiece[] = [];
  for (const [file, { pieces: own }] of files.entries()) {
    let begin = 0;
    for (const { sizeBytes, sha256 } of own) {
      pieces.push({ index: pieces.length, file, begin, end: begin + sizeBytes, sha256 });
      begin += sizeBytes;
    }
  }
  const sizeBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
  const largestBytes = pieces.reduce((largest, { begin, end }) => Math.max(largest, end - begin), 0);
  return { files, pieces, sizeBytes, largestBytes };
}

/** Mark of a piece that is verified and on disk. Every other byte of a journal means that the piece is missing. */
export const DONE = 1;

/**
 * The journal of a model as it was last written: one byte for each piece, {@link DONE} or not. A journal that ends
 * early or is not there has no more pieces; what it says too much is found when the pieces are verified before use.
 */
export function readJournal(written: Uint8Array | undefined, { pieces }: PieceList): Uint8Array {
  const journal = new Uint8Array(pieces.length);
  if (written) journal.set(written.subarray(0, pieces.length));
  return journal;
}

/** Bytes of the pieces that are there. */
export function storedBytes({ pieces }: PieceList, journal: Uint8Array): number {
  return pieces.reduce((sum, { index, begin, end }) => (journal[index] === DONE ? sum + end - begin : sum), 0);
}

/** Whether no piece is missing. */
export function isComplete({ pieces }: PieceList, journal: Uint8Array): boolean {
  return pieces.every(({ index }) => journal[index] === DONE);
}

/** What a download has in hand. */
export interface Standing {
  /** See {@link readJournal}. */
  journal: Uint8Array;
  /** Pieces on their way, by index. */
  fetching: ReadonlySet<number>;
  /** Files whose server sends them only as a whole. */
  whole: ReadonlySet<number>;
  /** Files that are on their way as a whole. */
  streaming: ReadonlySet<number>;
}

/** What a lane of a download does next: one piece by a range, or a file from its first byte on. */
export type Work = { kind: 'piece'; piece: StoredPiece } | { kind: 'file'; file: number };

/**
 * The first missing piece that nobody fetches, or its file where ranges are not to be had; undefined when all is in
 * hand.
 */
export function nextWork({ pieces }: PieceList, { journal, fetching, whole, streaming }: Standing): Work | undefined {
  for (const piece of pieces) {
    if (journal[piece.index] === DONE || fetching.has(piece.index) || streaming.has(piece.file)) continue;
    return whole.has(piece.file) ? { kind: 'file', file: piece.file } : { kind: 'piece', piece };
  }
  return undefined;
}

/**
 * Bytes that the disk still has to find for a model: its files, and room for the pieces on their way.
 * @param present sizes of the files as they are, 0 for those that are not there.
 * @param arriving most bytes of pieces on their way, and those that the disk has given them already.
 */
export function neededBytes(
  { files, sizeBytes }: PieceList,
  journalBytes: number,
  present: readonly number[],
  arriving: { mostBytes: number; presentBytes: number },
): number {
  const model = files.reduce((sum, file, index) => sum + Math.max(0, file.sizeBytes - (present[index] ?? 0)), 0);
  const slots = Math.min(arriving.mostBytes, sizeBytes - journalBytes);
  return model + Math.max(0, slots - arriving.presentBytes);
}

/** Where a model's files lie within its folder of the store. Names of its own cannot clash with the store's. */
export function modelPath(path: string): string {
  return `model/${path}`;
}
