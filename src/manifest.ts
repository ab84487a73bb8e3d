import {
  type DitConfig,
  ditShapes,
  type Shapes,
  type Umt5Config,
  umt5Shapes,
  type VaeConfig,
  vaeShapes,
} from './config';
import { ZoetropeError } from './errors';

/** Element types of tensors in files, by their safetensors names. */
export type FileDtype =
  | 'F64'
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'F8_E4M3'
  | 'F8_E5M2'
  | 'I64'
  | 'I32'
  | 'I16'
  | 'I8'
  | 'U64'
  | 'U32'
  | 'U16'
  | 'U8'
  | 'BOOL';

/** Bytes of one value of each element type. */
export const DTYPE_BYTES: Readonly<Record<FileDtype, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
};

/** One tensor as it lies in a file. */
export interface TensorEntry {
  dtype: FileDtype;
  /** Row-major, PyTorch axis order. */
  shape: number[];
}

/** Bytes that a tensor takes in a file; NaN when the count is beyond the whole numbers that a double holds. */
export function tensorBytes({ dtype, shape }: TensorEntry): number {
  const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
  return Number.isSafeInteger(bytes) ? bytes : Number.NaN;
}

/** Bytes at a range: a file handle, a Blob, a URL with Range requests, an OPFS file. */
export interface ByteSource {
  readonly sizeBytes: number;
  /**
   * Nobody but this project's store changes the bytes, and the store not while they are in use: what was verified once
   * stays verified. Default false, as on any server.
   */
  readonly stable?: boolean;
  /**
   * Bytes `begin` to `end` (exclusive). Throws `unreadable-source`, also when fewer bytes come back than were asked
   * for.
   */
  read(begin: number, end: number): Promise<Uint8Array>;
  /**
   * Fills the buffer from byte `begin` on, without making another one; throws as {@link read}. Absent where that saves
   * nothing.
   */
  readInto?(begin: number, buffer: Uint8Array): Promise<void>;
}

/** Cause of an `unreadable-source` that does not say that there is no such file: the server gives no answer yet. */
export const NO_ANSWER = 'no answer';

/** Files by relative path with `/` separators. `open` throws `unreadable-source` when there is no such file. */
export interface Folder {
  open(path: string): Promise<ByteSource>;
}

/** Tensors by name, wherever they come from. `read` gives the little-endian bytes of the whole tensor. */
export interface TensorSource {
  readonly entries: ReadonlyMap<string, TensorEntry>;
  read(name: string): Promise<Uint8Array>;
  /**
   * Hands bytes `begin` to `end` (exclusive) of a tensor on in order, without ever holding a tensor. Absent where the
   * whole is held anyway.
   */
  scan?(name: string, begin: number, end: number, sink: TensorSink): Promise<void>;
}

/**
 * Takes part of a tensor.
 * @param offset of the part, counted from where the scan begins; a multiple of 16.
 * @param bytes good until it returns, or until what it returns resolves.
 */
export type TensorSink = (offset: number, bytes: Uint8Array) => void | Promise<void>;

/** A {@link TensorSource} that also gives parts of a tensor, for embedding rows and for matrices too large to hold. */
export interface RangedTensorSource extends TensorSource {
  /** Bytes `begin` to `end` (exclusive), counted from the start of the tensor. */
  readRange(name: string, begin: number, end: number): Promise<Uint8Array>;
}

/** A file that is being written. Throws `unreadable-source` when the disk refuses. */
export interface FileSink {
  /**
   * Writes at a position, in any order, and over what is there when an import continues. The bytes may be reused after
   * it resolves.
   */
  write(position: number, bytes: Uint8Array): Promise<void>;
  /** Ends the file; nothing is promised to be readable before. */
  close(): Promise<void>;
}

/** A folder that is being written, by relative path with `/` separators. */
export interface FolderSink {
  /** Starts a file, replacing one that is there. */
  create(path: string): Promise<FileSink>;
  /** Deletes a file if it is there. */
  remove(path: string): Promise<void>;
}

/**
 * Checks a path from a manifest or an index: names of ASCII letters, digits, `_`, `-` and `.`, none beginning with a
 * dot, joined by `/`. Neither `..`, a drive, a URL nor an escape can be written in these, so the path cannot leave its
 * folder on any host. Throws `bad-checkpoint`; `what` names the document that holds the path.
 */
export function checkPath(path: string, what: string): string {
  if (path.length > 255 || !/^[A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$/.test(path)) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what} names the file ${JSON.stringify(path.slice(0, 80))}; a file name has letters, digits, "_", "-", "." and stays inside its folder.`,
    );
  }
  return path;
}

/** Storage of the large matrices: 4-bit or 8-bit blocks of 32 along the input axis, or 16-bit floats. */
export type Quantization = 'q4' | 'q8' | 'f16';

/**
 * Values that share a scale in `q4` and `q8`; the one block size for which ONNX Runtime has a fast kernel on every GPU.
 */
export const QUANT_BLOCK = 32;

/** Suffix of the tensor that holds the scales of a quantised matrix, F16 or F32 [rows, blocks]. */
export const SCALES_SUFFIX = '.scales';
/** Suffix of the packed zero points, U8 [rows, ceil(blocks * bits / 8)]; absent means 2^(bits-1). */
export const ZERO_POINTS_SUFFIX = '.zero_points';

/** A tensor inside a shard. */
export interface ShardTensor extends TensorEntry {
  /** First byte and the byte after the last, counted from the start of the file. */
  range: [begin: number, end: number];
}

/** A verified piece of a file. */
export interface Piece {
  /** At most {@link MAX_PIECE_BYTES}. */
  sizeBytes: number;
  /** SHA-256, 64 lower-case hexadecimal digits. */
  sha256: string;
}

/** Pieces are the unit of download, verification and resumption. */
export const MAX_PIECE_BYTES = 16 * 1024 * 1024;

/** SHA-256 of a piece as {@link Piece.sha256} writes it. */
export async function hashPiece(bytes: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** A file of the model folder. */
export interface ManifestFile {
  /** Name inside the folder, without directories that leave it. */
  path: string;
  sizeBytes: number;
  /** In file order, without gaps. */
  pieces: Piece[];
  /** Tensors of a safetensors shard; absent for other files. */
  tensors?: Record<string, ShardTensor>;
}

/** The model's parts. One file list each, so that a part can be loaded, swapped or streamed alone. */
export type ComponentName = 'tokenizer' | 'text_encoder' | 'high' | 'low' | 'vae';

/** Resolution labels of the endpoint. */
export type Resolution = '480p' | '580p' | '720p';
/** Aspect ratio labels of the endpoint. */
export type AspectRatio = '16:9' | '9:16' | '1:1';
/** Pixels that each label means for a model. */
export type Sizes = Record<Resolution, Record<AspectRatio, [width: number, height: number]>>;

/** Affine map from normalised latents to RGB in -1..1 for previews: rgb = weights^T z + bias. */
export interface PreviewMatrix {
  /** [zDim][3]. */
  weights: number[][];
  /** [3]. */
  bias: number[];
}

/**
 * How the residual of an expert, what its blocks add to the patch embedding, changes in magnitude along the steps of a
 * measured run: the mean over tokens of ‖R_t‖ / ‖R_t−1‖. The lists have one length, 2 or more.
 */
export interface MagnitudeRatios {
  /** Noise levels of the steps, falling, 0 to 1. */
  sigmas: number[];
  /**
   * Of the branch with the prompt, at each level against the level before; the first, which has none before it, is 1.
   */
  conditional: number[];
  /** Of the branch with the negative prompt. */
  unconditional: number[];
}

/** What `acceleration: "regular"` goes by; `diffusion/cache.ts` has the rule. */
export interface Acceleration {
  /** Accumulated error from which on a step is computed, above 0. */
  threshold: number;
  /** Most steps that are left out one after the other, 1 or more. */
  maxSkips: number;
  /** Share of an expert's steps, its first ones, that is always computed, 0 to 1. */
  retention: number;
  high: MagnitudeRatios;
  /** Absent with a single expert. */
  low?: MagnitudeRatios | undefined;
}

/** Name of the manifest inside a model folder. */
export const MANIFEST_FILE = 'zoetrope.json';

/** Longest name or licence of a manifest, UTF-16 units; the shortest has one. */
export const MAX_LABEL_LENGTH = 200;

/** Contents of `zoetrope.json`: everything needed to plan, fetch, verify and run a model folder. */
export interface Manifest {
  /** Version of this file's layout. */
  format: 1;
  /** Name for people, e.g. "demo". */
  name: string;
  /** SPDX identifier of the weights' licence. */
  license: string;
  /** Family by its numbers. */
  variant: 'a14b' | '14b' | '1.3b' | 'custom';
  quantization: Quantization;
  /** Expert(s). A model with a single expert has `high` only and no switch. */
  dit: DitConfig;
  umt5: Umt5Config;
  vae: VaeConfig;
  /** Fraction of 1000 training steps at and above which the high-noise expert works; null with a single expert. */
  boundary: number | null;
  sizes: Sizes;
  /** Settings that the page proposes; they never change the endpoint's defaults. */
  recommended: Record<string, string | number | boolean>;
  preview: PreviewMatrix;
  /** Absent where nobody has measured the model's ratios: `regular` then computes every step. */
  acceleration?: Acceleration | undefined;
  components: Partial<Record<ComponentName, ManifestFile[]>>;
}

/** Text of `zoetrope.json` with one line for each member, so that two versions can be compared by eye. */
export function manifestText(manifest: Manifest): string {
  const lines = Object.entries(manifest).map(([key, value]) => `${JSON.stringify(key)}: ${JSON.stringify(value)}`);
  return `{\n${lines.join(',\n')}\n}\n`;
}

/**
 * Name of part `index` of a matrix that was split by rows to fit a device's bindings. Scales and zero points add their
 * suffix.
 */
export function partName(matrix: string, index: number): string {
  return `${matrix}[${index}]`;
}

/** How a matrix lies in its shard, recovered from the entry itself. */
export interface MatrixStorage {
  rows: number;
  columns: number;
  /** 32 and 16 for floats, else 8 or 4. */
  bits: 32 | 16 | 8 | 4;
  zeroPoints: boolean;
}

/** Reads how matrix `name` is stored, and refuses what fits none of the layouts. */
export function matrixStorage(entries: ReadonlyMap<string, TensorEntry>, name: string): MatrixStorage {
  const entry = entries.get(name);
  if (!entry) throw new ZoetropeError('bad-checkpoint', `Tensor "${name}" is missing.`);
  const [rows, second, third] = entry.shape;
  if (entry.dtype !== 'U8') {
    const columns = entry.shape.slice(1).reduce((product, size) => product * size, 1);
    return { rows: rows!, columns, bits: entry.dtype === 'F32' ? 32 : 16, zeroPoints: false };
  }
  const scales = entries.get(name + SCALES_SUFFIX);
  const bits = third === QUANT_BLOCK ? 8 : third === QUANT_BLOCK / 2 ? 4 : undefined;
  if (entry.shape.length !== 3 || bits === undefined || scales?.shape[0] !== rows || scales?.shape[1] !== second) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `Quantised matrix "${name}" has shape [${entry.shape}] and scales [${scales?.shape ?? 'missing'}]; expected [rows, blocks, 16 or 32] with scales [rows, blocks].`,
    );
  }
  return { rows: rows!, columns: second! * QUANT_BLOCK, bits, zeroPoints: entries.has(name + ZERO_POINTS_SUFFIX) };
}

/** Tensors that the component must hold, by internal name and unquantised shape; empty for the tokenizer. */
export function componentShapes(manifest: Pick<Manifest, 'dit' | 'umt5' | 'vae'>, component: ComponentName): Shapes {
  if (component === 'high' || component === 'low') return ditShapes(manifest.dit);
  if (component === 'text_encoder') return umt5Shapes(manifest.umt5);
  if (component === 'vae') return vaeShapes(manifest.vae);
  return new Map();
}

/**
 * Tensors of a layer of the transformer, of the text encoder, and of a residual block of the VAE (without a shortcut).
 */
const DIT_LAYER_TENSORS = 27;
const UMT5_LAYER_TENSORS = 10;
const VAE_BLOCK_TENSORS = 6;

/**
 * Refuses a configuration of more layers than so many tensors can be, before {@link componentShapes} makes a list of
 * them: a configuration of a hundred bytes must not ask for more than the file beside it holds. Throws
 * `bad-checkpoint`.
 */
export function checkLayers(
  { dit, umt5, vae }: Pick<Manifest, 'dit' | 'umt5' | 'vae'>,
  component: ComponentName,
  tensorCount: number,
  what: string,
): void {
  let least = 0;
  if (component === 'high' || component === 'low') least = DIT_LAYER_TENSORS * dit.numLayers;
  if (component === 'text_encoder') least = UMT5_LAYER_TENSORS * umt5.numLayers;
  if (component === 'vae') least = VAE_BLOCK_TENSORS * vae.dimMult.length * (vae.numResBlocks + 1);
  if (least <= tensorCount) return;
  throw new ZoetropeError(
    'bad-checkpoint',
    `${what}: the configuration asks for at least ${least} tensors, and there are ${tensorCount}. Use the files of one complete release.`,
  );
}

/**
 * Checks that `entries` holds exactly the tensors of `shapes`, each plain with that shape or quantised to it. Throws
 * `bad-checkpoint` naming the first tensors that are missing, of a wrong shape, or unknown, and ending with `remedy`.
 */
export function checkTensors(
  entries: ReadonlyMap<string, TensorEntry>,
  shapes: Shapes,
  what: string,
  remedy = 'Import the checkpoint again.',
): void {
  const problems: string[] = [];
  for (const [name, shape] of shapes) {
    const entry = entries.get(name);
    if (!entry) {
      problems.push(`"${name}" [${shape}] is missing`);
      continue;
    }
    const plain = entry.shape.length === shape.length && entry.shape.every((size, axis) => size === shape[axis]);
    if (plain && entry.dtype !== 'U8') continue;
    if (entry.dtype === 'U8' && shape.length === 2) {
      const storage = matrixStorage(entries, name);
      if (storage.rows === shape[0] && storage.columns === shape[1]) continue;
      problems.push(`"${name}" holds a [${storage.rows},${storage.columns}] matrix, expected [${shape}]`);
      continue;
    }
    problems.push(`"${name}" has shape [${entry.shape}] of ${entry.dtype}, expected [${shape}]`);
  }
  for (const name of entries.keys()) {
    const owner = name.endsWith(SCALES_SUFFIX)
      ? name.slice(0, -SCALES_SUFFIX.length)
      : name.endsWith(ZERO_POINTS_SUFFIX)
        ? name.slice(0, -ZERO_POINTS_SUFFIX.length)
        : name;
    if (!shapes.has(owner)) problems.push(`"${name}" does not belong to the model`);
  }
  if (problems.length === 0) return;
  const more = problems.length > 4 ? ` and ${problems.length - 4} more problems` : '';
  throw new ZoetropeError('bad-checkpoint', `${what}: ${problems.slice(0, 4).join('; ')}${more}. ${remedy}`);
}
