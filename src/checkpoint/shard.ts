import { ZoetropeError } from '../errors';
import {
  type FileSink,
  type FolderSink,
  hashPiece,
  MAX_PIECE_BYTES,
  type ManifestFile,
  type Piece,
  type ShardTensor,
  type TensorEntry,
  tensorBytes,
} from '../manifest';
import type { FileCheckpoint, ResumableFolder } from './journal';
import { dataBeginFor, encodeHeader } from './safetensors';

/**
 * Writes a file front to back in pieces, hashing each before it is written. A head of known length may be given last:
 * the first piece then waits in memory for it. Holds two pieces at most.
 */
export class PieceWriter {
  readonly #pieces: (Piece | undefined)[] = [];
  #first: Uint8Array<ArrayBuffer> | undefined;
  #buffer = new Uint8Array(MAX_PIECE_BYTES);
  #filled: number;
  #written = 0;
  /** The first piece as a checkpoint put it on disk. */
  #waitingPiece: Piece | null = null;

  private constructor(
    readonly path: string,
    private readonly file: FileSink,
    private readonly headBytes: number,
  ) {
    if (headBytes > MAX_PIECE_BYTES)
      throw new ZoetropeError('internal', `A head of ${headBytes} bytes exceeds a piece.`);
    this.#filled = headBytes;
  }

  /** Starts the file; `headBytes` are left free for {@link finish}. */
  static async create(sink: FolderSink, path: string, headBytes = 0): Promise<PieceWriter> {
    return new PieceWriter(path, await sink.create(path), headBytes);
  }

  /** Goes on behind a checkpoint whose bytes were found intact. */
  static async resume(folder: ResumableFolder, headBytes: number, checkpoint: FileCheckpoint): Promise<PieceWriter> {
    const { path, pieces, waiting, tail } = checkpoint;
    const source = await folder.open(path);
    const writer = new PieceWriter(path, await folder.reopen(path), headBytes);
    writer.#written = pieces.reduce((sum, piece) => sum + (piece ?? waiting)!.sizeBytes, 0);
    for (const piece of pieces) writer.#pieces.push(piece ?? undefined);
    if (waiting) {
      writer.#first = new Uint8Array(waiting.sizeBytes);
      writer.#first.set(await source.read(0, waiting.sizeBytes));
    }
    writer.#buffer.set(await source.read(writer.#written, writer.#written + tail.sizeBytes));
    writer.#filled = tail.sizeBytes;
    writer.#waitingPiece = waiting;
    return writer;
  }

  /** Puts what is still in memory on disk as well, and tells what lies there now. Appending goes on as before. */
  async checkpoint(): Promise<Omit<FileCheckpoint, 'tensors' | 'partial'>> {
    if (this.#first) this.#waitingPiece ??= await this.#write(0, this.#first);
    const tail = await this.#write(this.#written, this.#buffer.subarray(0, this.#filled));
    const pieces = this.#pieces.map((piece) => piece ?? null);
    return { path: this.path, pieces, waiting: this.#waitingPiece, tail };
  }

  /** Bytes so far, the head included. */
  get sizeBytes(): number {
    return this.#written + this.#filled;
  }

  async append(bytes: Uint8Array): Promise<void> {
    for (let taken = 0; taken < bytes.length; ) {
      if (this.#filled === MAX_PIECE_BYTES) await this.#flush();
      const part = bytes.subarray(taken, taken + MAX_PIECE_BYTES - this.#filled);
      this.#buffer.set(part, this.#filled);
      this.#filled += part.length;
      taken += part.length;
    }
  }

  /** Ends the file with its head in place, and tells size and hashes. */
  async finish(head: Uint8Array = new Uint8Array(0)): Promise<ManifestFile> {
    if (head.length !== this.headBytes) {
      throw new ZoetropeError(
        'internal',
        `${this.path}: the head has ${head.length} bytes, ${this.headBytes} were left.`,
      );
    }
    if (this.#filled > 0) await this.#flush();
    if (this.#first) {
      this.#first.set(head);
      this.#pieces[0] = await this.#write(0, this.#first);
    }
    await this.file.close();
    return { path: this.path, sizeBytes: this.#written, pieces: this.#pieces as Piece[] };
  }

  /** Gives the file up after a failure. What was written stays behind, unusable because no manifest names it. */
  async abandon(): Promise<void> {
    await this.file.close();
  }

  async #flush(): Promise<void> {
    const piece = this.#buffer.subarray(0, this.#filled);
    if (this.#written === 0 && this.headBytes > 0) {
      this.#first = piece;
      this.#pieces.push(undefined);
      this.#buffer = new Uint8Array(MAX_PIECE_BYTES);
    } else {
      this.#pieces.push(await this.#write(this.#written, piece));
    }
    this.#written += this.#filled;
    this.#filled = 0;
  }

  async #write(position: number, bytes: Uint8Array): Promise<Piece> {
    const sha256 = await hashPiece(bytes);
    await this.file.write(position, bytes);
    return { sizeBytes: bytes.length, sha256 };
  }
}

/** Writes one safetensors shard: tensors are declared and appended in order, the header follows at the end. */
export class ShardWriter {
  readonly #tensors = new Map<string, ShardTensor>();
  #end: number;

  private constructor(
    private readonly file: PieceWriter,
    private readonly dataBegin: number,
  ) {
    this.#end = dataBegin;
  }

  /**
   * Starts the shard; `largest` are all tensors that may come, so that the header's room does not depend on the values.
   */
  static async create(sink: FolderSink, path: string, largest: ReadonlyMap<string, TensorEntry>): Promise<ShardWriter> {
    const dataBegin = dataBeginFor(largest);
    return new ShardWriter(await PieceWriter.create(sink, path, dataBegin), dataBegin);
  }

  /** Goes on behind a checkpoint; `largest` must be what the shard was started with. */
  static async resume(
    folder: ResumableFolder,
    largest: ReadonlyMap<string, TensorEntry>,
    checkpoint: FileCheckpoint,
  ): Promise<ShardWriter> {
    const dataBegin = dataBeginFor(largest);
    const writer = new ShardWriter(await PieceWriter.resume(folder, dataBegin, checkpoint), dataBegin);
    for (const [name, tensor] of checkpoint.tensors) {
      writer.#tensors.set(name, tensor);
      writer.#end = tensor.range[1];
    }
    return writer;
  }

  /** Notes the shard as it stands between two tensors, or behind some slices of the last one. */
  async checkpoint(partial: FileCheckpoint['partial']): Promise<FileCheckpoint> {
    if (!partial) this.#requireComplete();
    return { ...(await this.file.checkpoint()), tensors: [...this.#tensors], partial };
  }

  /** Bytes so far. */
  get sizeBytes(): number {
    return this.file.sizeBytes;
  }

  /** Declares the next tensor; its bytes follow through {@link append}, in as many parts as convenient. */
  declare(name: string, { dtype, shape }: TensorEntry): void {
    this.#requireComplete();
    const begin = this.#end;
    this.#end += tensorBytes({ dtype, shape });
    this.#tensors.set(name, { dtype, shape, range: [begin, this.#end] });
  }

  append(bytes: Uint8Array): Promise<void> {
    return this.file.append(bytes);
  }

  async finish(): Promise<ManifestFile> {
    this.#requireComplete();
    const file = await this.file.finish(encodeHeader(this.#tensors, this.dataBegin));
    return { ...file, tensors: Object.fromEntries(this.#tensors) };
  }

  abandon(): Promise<void> {
    return this.file.abandon();
  }

  #requireComplete(): void {
    if (this.file.sizeBytes !== this.#end) {
      const last = [...this.#tensors.keys()].pop();
      throw new ZoetropeError(
        'internal',
        `${this.file.path}: "${last}" ends at byte ${this.#end}, ${this.file.sizeBytes} were written.`,
      );
    }
  }
}
