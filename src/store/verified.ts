import { throwIfAborted, ZoetropeError } from '../errors';
import {
  type ByteSource,
  type ComponentName,
  type Folder,
  hashPiece,
  MANIFEST_FILE,
  type Manifest,
  type ManifestFile,
  type RangedTensorSource,
  type ShardTensor,
  type TensorSink,
  tensorBytes,
} from '../manifest';
import type { PartManifest, PartName } from '../part';
import { componentTensors, MAX_MANIFEST_BYTES, parseManifest, parsePart } from './manifest-reader';
import { PieceCache } from './piece-cache';

/** What a scan hands on at a time. Small, since each copy waits to be collected. */
const SLICE_BYTES = 1024 * 1024;

/** How much of a component has been fetched and verified. */
export interface VerifyProgress {
  component: ComponentName | PartName;
  doneBytes: number;
  totalBytes: number;
}

export interface OpenModelOptions {
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: VerifyProgress) => void) | undefined;
}

/** A component whose bytes come from verified pieces only. Every array handed out is the caller's own. */
export interface VerifiedComponent extends RangedTensorSource {
  /** A whole file, e.g. `tokenizer.json`. */
  readFile(path: string): Promise<Uint8Array>;
  /** Frees the cached pieces. Reading again is allowed and fetches again. */
  release(): void;
}

/** A model folder whose manifest is valid. */
export interface VerifiedModel {
  /** SHA-256 of the manifest's bytes: the model's identity. */
  readonly id: string;
  readonly manifest: Manifest;
  /** Bytes of all files together, the manifest aside. */
  readonly sizeBytes: number;
  /**
   * Opens a component without fetching anything yet. Throws `missing-component` when the model has none of that name.
   * @param options default: those given to {@link openModel}.
   */
  component(name: ComponentName, options?: OpenModelOptions): VerifiedComponent;
}

/**
 * One file of the folder: which piece holds a byte, and the pieces themselves, each checked against its hash when it
 * comes.
 */
class VerifiedFile {
  #source: Promise<ByteSource> | undefined;
  /** First byte of each piece, and the file's size at the end. */
  readonly #begins: number[] = [0];

  constructor(
    private readonly folder: Folder,
    readonly file: ManifestFile,
    /** Pieces of a stable source that have been verified: once holds for as long as the model is open. */
    private readonly verified: Set<number>,
    private readonly hash: (bytes: Uint8Array) => Promise<string>,
  ) {
    for (const piece of file.pieces) this.#begins.push(this.#begins[this.#begins.length - 1]! + piece.sizeBytes);
  }

  /** Index of the piece that holds a byte. */
  pieceAt(position: number): number {
    let low = 0;
    let high = this.file.pieces.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#begins[middle]! <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  beginOf(piece: number): number {
    return this.#begins[piece]!;
  }

  /** Bytes of a piece. */
  sizeOf(piece: number): number {
    return this.file.pieces[piece]!.sizeBytes;
  }

  /**
   * Fetches a piece into a buffer of its size. Throws `corrupt-data` when length or hash are not what the manifest
   * states.
   */
  async fetch(index: number, buffer: Uint8Array): Promise<void> {
    const { path, pieces } = this.file;
    const piece = pieces[index]!;
    const source = await this.#open();
    const begin = this.#begins[index]!;
    let filled = buffer.length;
    if (source.readInto) {
      await source.readInto(begin, buffer);
    } else {
      const bytes = await source.read(begin, begin + piece.sizeBytes);
      filled = bytes.length;
      if (filled === buffer.length) buffer.set(bytes);
    }
    if (this.verified.has(index) && filled === piece.sizeBytes) return;
    const sha256 = filled === piece.sizeBytes ? await this.hash(buffer) : undefined;
    if (sha256 === piece.sha256) {
      if (source.stable) this.verified.add(index);
      return;
    }
    const got = sha256 === undefined ? `${filled} bytes` : `SHA-256 ${sha256.slice(0, 12)}…`;
    const stated = sha256 === undefined ? `${piece.sizeBytes}` : `${piece.sha256.slice(0, 12)}…`;
    throw new ZoetropeError(
      'corrupt-data',
      `${path}: piece ${index + 1} of ${pieces.length} (bytes ${begin} to ${begin + piece.sizeBytes}) has ${got}, ${MANIFEST_FILE} states ${stated}. Download or import the model again.`,
    );
  }

  async #open(): Promise<ByteSource> {
    const { path, sizeBytes, pieces } = this.file;
    this.#source ??= this.folder.open(path);
    let source: ByteSource;
    try {
      source = await this.#source;
    } catch (error) {
      this.#source = undefined; // The next read tries again.
      throw error;
    }
    if (source.sizeBytes !== sizeBytes) {
      const broken = this.pieceAt(Math.min(source.sizeBytes, sizeBytes)) + 1;
      throw new ZoetropeError(
        'corrupt-data',
        `${path} has ${source.sizeBytes} bytes, ${MANIFEST_FILE} states ${sizeBytes}: piece ${broken} of ${pieces.length} is not as stated. Download or import the model again.`,
      );
    }
    return source;
  }
}

function bytesOf(files: readonly ManifestFile[]): number {
  return files.reduce((sum, file) => sum + file.sizeBytes, 0);
}

/** Hashes one piece after the other: the browser copies what it hashes. */
function hashingInTurn(): (bytes: Uint8Array) => Promise<string> {
  let last: Promise<unknown> = Promise.resolve();
  return (bytes) => {
    const hash = last.then(() => hashPiece(bytes));
    last = hash.catch(() => undefined);
    return hash;
  };
}

class Component implements VerifiedComponent {
  readonly entries: ReadonlyMap<string, ShardTensor & { path: string }>;
  readonly #files: ReadonlyMap<string, VerifiedFile>;
  /** Buffers of scans that are over. */
  readonly #slices: Uint8Array[] = [];
  readonly #seen = new Set<string>();
  #doneBytes = 0;
  readonly #totalBytes: number;

  constructor(
    openFile: (file: ManifestFile) => VerifiedFile,
    private readonly pieces: PieceCache,
    private readonly name: ComponentName | PartName,
    files: readonly ManifestFile[],
    private readonly options: OpenModelOptions,
  ) {
    this.entries = componentTensors(files);
    this.#files = new Map(files.map((file) => [file.path, openFile(file)]));
    this.#totalBytes = bytesOf(files);
  }

  async read(name: string): Promise<Uint8Array> {
    return this.readRange(name, 0, tensorBytes(this.#entry(name)));
  }

  async readRange(name: string, begin: number, end: number): Promise<Uint8Array> {
    const { path, first } = this.#locate(name, begin, end);
    const bytes = new Uint8Array(end - begin);
    await this.#assemble(path, first, bytes);
    return bytes;
  }

  async scan(name: string, begin: number, end: number, sink: TensorSink): Promise<void> {
    const { path, first } = this.#locate(name, begin, end);
    const slice = this.#slices.pop() ?? new Uint8Array(SLICE_BYTES);
    for (let offset = 0; offset < end - begin; offset += SLICE_BYTES) {
      const part = slice.subarray(0, Math.min(SLICE_BYTES, end - begin - offset));
      await this.#assemble(path, first + offset, part);
      await sink(offset, part);
    }
    this.#slices.push(slice);
  }

  /** The file of a tensor's bytes, and where in it they begin. */
  #locate(name: string, begin: number, end: number): { path: string; first: number } {
    const { path, range } = this.#entry(name);
    if (!(begin >= 0 && begin <= end && range[0] + end <= range[1])) {
      throw new ZoetropeError(
        'internal',
        `Bytes ${begin} to ${end} of tensor "${name}" were asked for; it has ${range[1] - range[0]}.`,
      );
    }
    return { path, first: range[0] + begin };
  }

  async readFile(path: string): Promise<Uint8Array> {
    const file = this.#files.get(path);
    if (!file) throw new ZoetropeError('internal', `${path} is not a file of the component "${this.name}".`);
    const bytes = new Uint8Array(file.file.sizeBytes);
    await this.#assemble(path, 0, bytes);
    return bytes;
  }

  release(): void {
    this.#slices.length = 0;
    this.pieces.release((key) => this.#files.has(pathOf(key)));
  }

  #entry(name: string): ShardTensor & { path: string } {
    const entry = this.entries.get(name);
    if (!entry) throw new ZoetropeError('internal', `Tensor "${name}" is not in the component "${this.name}".`);
    return entry;
  }

  /** Fills a buffer with a file's bytes from `begin` on, out of verified pieces. */
  async #assemble(path: string, begin: number, buffer: Uint8Array): Promise<void> {
    const file = this.#files.get(path)!;
    for (let filled = 0; filled < buffer.length; ) {
      throwIfAborted(this.options.signal);
      const index = file.pieceAt(begin + filled);
      const key = keyOf(path, index);
      const sizeBytes = file.sizeOf(index);
      const load = async (piece: Uint8Array) => {
        await file.fetch(index, piece);
        this.#report(key, sizeBytes);
      };
      await this.pieces.use(key, sizeBytes, load, (piece) => {
        const from = begin + filled - file.beginOf(index);
        const part = piece.subarray(from, from + buffer.length - filled);
        buffer.set(part, filled);
        filled += part.length;
      });
    }
  }

  #report(key: string, sizeBytes: number): void {
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    this.#doneBytes += sizeBytes;
    this.options.onProgress?.({ component: this.name, doneBytes: this.#doneBytes, totalBytes: this.#totalBytes });
  }
}

function keyOf(path: string, piece: number): string {
  return `${path} ${piece}`;
}

function pathOf(key: string): string {
  return key.slice(0, key.lastIndexOf(' '));
}

function cacheFor(files: readonly ManifestFile[]): PieceCache {
  let largestBytes = 0;
  for (const { pieces } of files) for (const { sizeBytes } of pieces) largestBytes = Math.max(largestBytes, sizeBytes);
  return new PieceCache(largestBytes);
}

/** Opens files of a folder; what was verified of a file holds for all who open it. */
function filesOf(folder: Folder): (file: ManifestFile) => VerifiedFile {
  const verified = new Map<string, Set<number>>();
  const hash = hashingInTurn();
  return (file) => {
    const pieces = verified.get(file.path) ?? new Set();
    verified.set(file.path, pieces);
    return new VerifiedFile(folder, file, pieces, hash);
  };
}

/**
 * Opens a model folder: reads and validates its manifest and nothing else. Bytes of the components are fetched when
 * they are read, a piece at a time, and handed on only after their SHA-256 matched. Throws `bad-checkpoint` for a
 * manifest that is wrong, `unreadable-source` for what cannot be read, and from the components `corrupt-data`, naming
 * file and piece.
 */
export async function openModel(folder: Folder, options: OpenModelOptions = {}): Promise<VerifiedModel> {
  const bytes = await readManifest(folder, options.signal);
  const manifest = parseManifest(bytes);
  const openFile = filesOf(folder);
  const pieces = cacheFor(Object.values(manifest.components).flat());
  return {
    id: await hashPiece(bytes),
    manifest,
    sizeBytes: Object.values(manifest.components).reduce((sum, files) => sum + bytesOf(files), 0),
    component(name, own = options) {
      const files = manifest.components[name];
      if (!files) {
        throw new ZoetropeError('missing-component', `The model "${manifest.name}" has no component "${name}".`);
      }
      return new Component(openFile, pieces, name, files, own);
    },
  };
}

/** An optional part whose manifest is valid. */
export interface VerifiedPart {
  readonly manifest: PartManifest;
  /** Bytes of all files together, the manifest aside. */
  readonly sizeBytes: number;
  /** Its tensors. Nothing is fetched before they are read. */
  open(options?: OpenModelOptions): VerifiedComponent;
}

/** Opens the folder of an optional part as {@link openModel} opens a model. */
export async function openPart(folder: Folder, part: PartName, options: OpenModelOptions = {}): Promise<VerifiedPart> {
  const manifest = parsePart(await readManifest(folder, options.signal), part);
  const openFile = filesOf(folder);
  const pieces = cacheFor(manifest.files);
  return {
    manifest,
    sizeBytes: bytesOf(manifest.files),
    open: (own = options) => new Component(openFile, pieces, part, manifest.files, own),
  };
}

/** Bytes of a folder's manifest, bounded and not validated. Throws `bad-checkpoint` when it is too large. */
export async function readManifest(folder: Folder, signal?: AbortSignal): Promise<Uint8Array> {
  throwIfAborted(signal);
  const source = await folder.open(MANIFEST_FILE);
  if (source.sizeBytes > MAX_MANIFEST_BYTES) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${MANIFEST_FILE} has ${source.sizeBytes} bytes; a manifest has at most ${MAX_MANIFEST_BYTES}. Check the address.`,
    );
  }
  return source.read(0, source.sizeBytes);
}
