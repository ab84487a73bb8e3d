import type { DiskFile } from './disk';
import { DONE, type PieceList, type StoredPiece } from './pieces';

/**
 * Pieces on their way, in a file of their own: one slot for each lane of a download. Nothing in it is verified, so
 * nothing of it is in the model's files, which others may be reading. An interruption at any moment leaves what was
 * kept before, and how much that is.
 */

/**
 * Requests at once, each for a block of a quarter of the largest piece: together they can lose one piece and no more.
 */
export const LANES = 4;

/** Bytes asked for at once: what all lanes have asked for and not yet on the disk is no more than the largest piece. */
export function blockBytes({ largestBytes }: PieceList): number {
  return Math.ceil(largestBytes / LANES); // Three bytes more where it does not divide.
}

/**
 * A slot's record: number of its piece + 1, 0 for none, and how many bytes of it are there; both u32, little-endian.
 */
const RECORD_BYTES = 8;

/** The beginning of a piece. */
export interface Arrival {
  piece: StoredPiece;
  /** Bytes of it in the slot, from its first on. */
  haveBytes: number;
}

/** Bytes of the file at most. */
export function arrivalBytes({ largestBytes }: PieceList, slots: number): number {
  return slots * (RECORD_BYTES + largestBytes);
}

export class Arrivals {
  /** @param file of the model's folder; it may hold anything, whose hash then decides. */
  constructor(
    private readonly file: DiskFile,
    private readonly list: PieceList,
    private readonly slots: number,
  ) {}

  /** What each slot holds of a piece that the journal lacks; undefined for those that hold nothing of use. */
  found(journal: Uint8Array): (Arrival | undefined)[] {
    const records = new Uint8Array(this.slots * RECORD_BYTES);
    this.file.read(0, records);
    const view = new DataView(records.buffer);
    const taken = new Set<number>();
    return Array.from({ length: this.slots }, (_, slot) => {
      const piece = this.list.pieces[view.getUint32(slot * RECORD_BYTES, true) - 1];
      const haveBytes = view.getUint32(slot * RECORD_BYTES + 4, true);
      if (!piece || journal[piece.index] === DONE || taken.has(piece.index)) return undefined;
      const within = haveBytes > 0 && haveBytes <= piece.end - piece.begin;
      if (!within || this.position(slot) + haveBytes > this.file.sizeBytes()) return undefined;
      taken.add(piece.index);
      return { piece, haveBytes };
    });
  }

  /** Adds bytes behind those that are there, then notes them, each to the disk before the next. */
  keep(slot: number, { piece, haveBytes }: Arrival, bytes: Uint8Array): Arrival {
    const now = { piece, haveBytes: haveBytes + bytes.length };
    this.write(this.position(slot) + haveBytes, bytes);
    this.file.flush();
    this.note(slot, piece.index + 1, now.haveBytes);
    this.file.flush();
    return now;
  }

  /** Fills the buffer with the beginning of the slot's piece. Whether there was as much. */
  read(slot: number, buffer: Uint8Array): boolean {
    return this.file.read(this.position(slot), buffer) === buffer.length;
  }

  /** Forgets what a slot holds. */
  drop(slot: number): void {
    this.note(slot, 0, 0);
  }

  /** Gives the file's room back. */
  clear(): void {
    this.file.clear();
    this.file.flush();
  }

  close(): void {
    this.file.close();
  }

  private position(slot: number): number {
    return this.slots * RECORD_BYTES + slot * this.list.largestBytes;
  }

  private note(slot: number, number: number, haveBytes: number): void {
    const record = new DataView(new ArrayBuffer(RECORD_BYTES));
    record.setUint32(0, number, true);
    record.setUint32(4, haveBytes, true);
    this.write(slot * RECORD_BYTES, new Uint8Array(record.buffer));
  }

  private write(position: number, bytes: Uint8Array): void {
    if (this.file.write(position, bytes) < bytes.length) {
      throw new DOMException('The disk took too few bytes.', 'QuotaExceededError');
    }
  }
}
