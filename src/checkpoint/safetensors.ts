import { shown, throwIfAborted, ZoetropeError } from '../errors';
import {
  type ByteSource,
  checkPath,
  DTYPE_BYTES,
  type FileDtype,
  type Folder,
  NO_ANSWER,
  type RangedTensorSource,
  type ShardTensor,
  type TensorEntry,
  tensorBytes,
} from '../manifest';
import { parseObject } from './json';

/** Longest header that the format allows: `MAX_HEADER_SIZE` of safetensors 0.8.0. */
const MAX_HEADER_BYTES = 100_000_000;
/** Largest `*.index.json` read; that of a 14B expert has 105 kB. */
const MAX_INDEX_BYTES = 16 * 1024 * 1024;
/** Axes that a tensor may have; Wan's convolutions have five. */
const MAX_AXES = 32;
/** Our own files begin their data at a multiple of this, so that a mapped file can be read as any typed array. */
const DATA_ALIGNMENT = 64;

/** A parsed header: tensors in the order of their bytes, with ranges counted from the start of the file. */
export interface SafetensorsHeader {
  tensors: ReadonlyMap<string, ShardTensor>;
  /** The `__metadata__` map, empty when absent. */
  metadata: ReadonlyMap<string, string>;
}

type Refuse = (why: string) => never;

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function parseMetadata(value: unknown, refuse: Refuse): Map<string, string> {
  const metadata = new Map<string, string>();
  if (value === undefined) return metadata;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) refuse('"__metadata__" is not an object');
  for (const [key, text] of Object.entries(value as object)) {
    if (typeof text !== 'string') refuse(`"__metadata__" holds ${shown(key)}, which is not a string`);
    metadata.set(key, text);
  }
  return metadata;
}

function parseTensor(name: string, value: unknown, dataBegin: number, refuse: Refuse): ShardTensor {
  const at = `tensor ${JSON.stringify(name.slice(0, 120))}`;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) refuse(`${at} is not an object`);
  const { dtype, shape, data_offsets: offsets } = value as Record<string, unknown>;
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    refuse(`${at} has the dtype ${shown(dtype)}; known are ${Object.keys(DTYPE_BYTES).join(', ')}`);
  }
  if (!Array.isArray(shape) || shape.length > MAX_AXES || !shape.every(isCount)) {
    refuse(`${at} has a shape that is not a list of at most ${MAX_AXES} whole numbers`);
  }
  const [begin, end, third] = Array.isArray(offsets) ? offsets : [];
  if (!isCount(begin) || !isCount(end) || third !== undefined || begin > end) {
    refuse(`${at} has data_offsets that are not [begin, end] in whole numbers`);
  }
  const entry: TensorEntry = { dtype: dtype as FileDtype, shape };
  if (tensorBytes(entry) !== end - begin) {
    refuse(`${at} of ${dtype} [${shape}] needs ${tensorBytes(entry)} bytes and has ${end - begin}`);
  }
  return { ...entry, range: [dataBegin + begin, dataBegin + end] };
}

/**
 * Parses the header of a safetensors file of `sizeBytes` whose data begin at `dataBegin`. Stricter than the official
 * parser: no name twice, and the tensors must fill the data section without gaps, overlaps or a rest. Throws
 * `bad-checkpoint`.
 */
export function parseHeader(header: Uint8Array, dataBegin: number, sizeBytes: number, what: string): SafetensorsHeader {
  const refuse: Refuse = (why) => {
    throw new ZoetropeError('bad-checkpoint', `${what} is not a valid safetensors file: ${why}. Download it again.`);
  };
  const json = parseObject(header, `The header of ${what}`);
  const tensors: [name: string, tensor: ShardTensor][] = [];
  let metadata = new Map<string, string>();
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') metadata = parseMetadata(value, refuse);
    else tensors.push([name, parseTensor(name, value, dataBegin, refuse)]);
  }
  tensors.sort(([, a], [, b]) => a.range[0] - b.range[0] || a.range[1] - b.range[1]);
  let cursor = dataBegin;
  for (const [name, { range }] of tensors) {
    if (range[0] !== cursor) {
      const problem = range[0] > cursor ? 'leaves a gap before it' : 'overlaps the one before it';
      refuse(`tensor ${JSON.stringify(name.slice(0, 120))} ${problem}`);
    }
    cursor = range[1];
  }
  if (cursor > sizeBytes) refuse(`it ends after ${sizeBytes} bytes, its tensors after ${cursor}`);
  if (cursor < sizeBytes) refuse(`${sizeBytes - cursor} bytes follow the last tensor`);
  return { tensors: new Map(tensors), metadata };
}

/** Reads and checks the header of a safetensors file. Allocates nothing that a false length asks for. */
export async function readHeader(file: ByteSource, what: string): Promise<SafetensorsHeader> {
  const refuse: Refuse = (why) => {
    throw new ZoetropeError('bad-checkpoint', `${what} is not a valid safetensors file: ${why}. Download it again.`);
  };
  if (file.sizeBytes < 8) refuse(`it has ${file.sizeBytes} bytes, fewer than its length field`);
  const prefix = await file.read(0, 8);
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(Math.min(MAX_HEADER_BYTES, file.sizeBytes - 8))) {
    refuse(`it states a header of ${length} bytes in a file of ${file.sizeBytes}`);
  }
  const dataBegin = 8 + Number(length);
  return parseHeader(await file.read(8, dataBegin), dataBegin, file.sizeBytes, what);
}

/** The tensors of one or several safetensors files as one source. */
class SafetensorsSource implements RangedTensorSource {
  readonly entries = new Map<string, TensorEntry>();
  readonly #places = new Map<string, { file: ByteSource; tensor: ShardTensor }>();

  /** Adds a file's tensors; a name that is already there is refused by the caller's index. */
  add(file: ByteSource, header: SafetensorsHeader): void {
    for (const [name, tensor] of header.tensors) {
      this.entries.set(name, { dtype: tensor.dtype, shape: tensor.shape });
      this.#places.set(name, { file, tensor });
    }
  }

  async read(name: string): Promise<Uint8Array> {
    const entry = this.entries.get(name);
    return this.readRange(name, 0, entry ? tensorBytes(entry) : 0);
  }

  async readRange(name: string, begin: number, end: number): Promise<Uint8Array> {
    const place = this.#places.get(name);
    if (!place) throw new ZoetropeError('internal', `Tensor "${name}" was asked for but is in none of the files.`);
    const [first, last] = place.tensor.range;
    if (!(begin >= 0 && begin <= end && first + end <= last)) {
      throw new ZoetropeError(
        'internal',
        `Bytes ${begin} to ${end} of tensor "${name}" were asked for; it has ${last - first}.`,
      );
    }
    return begin === end ? new Uint8Array(0) : place.file.read(first + begin, first + end);
  }
}

/** Opens a single safetensors file. */
export async function openSafetensors(file: ByteSource, what: string): Promise<RangedTensorSource> {
  const source = new SafetensorsSource();
  source.add(file, await readHeader(file, what));
  return source;
}

/** Which file of a sharded set holds each tensor: the `weight_map` of `<stem>.safetensors.index.json`. */
function parseIndex(bytes: Uint8Array, what: string): Map<string, Set<string>> {
  const map = parseObject(bytes, what).weight_map;
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw new ZoetropeError('bad-checkpoint', `${what} has no "weight_map" object. Download it again.`);
  }
  const files = new Map<string, Set<string>>();
  for (const [name, path] of Object.entries(map)) {
    const file = checkPath(typeof path === 'string' ? path : String(path), what);
    const names = files.get(file) ?? new Set();
    files.set(file, names.add(name));
  }
  return files;
}

/**
 * Opens a file; undefined when there is none. Throws `unreadable-source` when a server does not say whether there is.
 */
export async function openIfThere(folder: Folder, path: string): Promise<ByteSource | undefined> {
  try {
    return await folder.open(path);
  } catch (error) {
    const none = error instanceof ZoetropeError && error.code === 'unreadable-source' && error.cause !== NO_ANSWER;
    if (none) return undefined;
    throw error;
  }
}

/**
 * Opens `<directory>/<stem>.safetensors` (the folder itself when `directory` is empty), or the shards that
 * `<directory>/<stem>.safetensors.index.json` lists. The index and the shards' headers must name exactly the same
 * tensors. Throws `unreadable-source` when neither is there.
 */
export async function openSharded(
  folder: Folder,
  directory: string,
  stem: string,
  signal?: AbortSignal,
): Promise<RangedTensorSource> {
  const within = directory === '' ? '' : `${directory}/`;
  const single = `${within}${stem}.safetensors`;
  const indexPath = `${single}.index.json`;
  const index = await openIfThere(folder, indexPath);
  if (!index) return openSafetensors(await folder.open(single), single);
  if (index.sizeBytes > MAX_INDEX_BYTES) {
    throw new ZoetropeError('bad-checkpoint', `${indexPath} has ${index.sizeBytes} bytes; at most ${MAX_INDEX_BYTES}.`);
  }
  const source = new SafetensorsSource();
  for (const [file, names] of parseIndex(await index.read(0, index.sizeBytes), indexPath)) {
    throwIfAborted(signal);
    const path = within + file;
    const shard = await folder.open(path);
    const header = await readHeader(shard, path);
    const stray = [...header.tensors.keys()].find((name) => !names.has(name));
    const missing = [...names].find((name) => !header.tensors.has(name));
    if (stray !== undefined || missing !== undefined) {
      const problem = stray === undefined ? `lacks "${missing}"` : `holds "${stray}"`;
      throw new ZoetropeError(
        'bad-checkpoint',
        `${path} ${problem}, against ${indexPath}. Download both from the same release.`,
      );
    }
    source.add(shard, header);
  }
  return source;
}

/** Bytes of length field and header for tensors in file order; `range` must count from the start of the file. */
export function encodeHeader(tensors: ReadonlyMap<string, ShardTensor>, dataBegin: number): Uint8Array {
  const json = Object.fromEntries(
    Array.from(tensors, ([name, { dtype, shape, range }]) => [
      name,
      { dtype, shape, data_offsets: [range[0] - dataBegin, range[1] - dataBegin] },
    ]),
  );
  const text = new TextEncoder().encode(JSON.stringify(json));
  if (8 + text.length > dataBegin) {
    throw new ZoetropeError('internal', `A header of ${text.length} bytes does not fit before byte ${dataBegin}.`);
  }
  const bytes = new Uint8Array(dataBegin).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(dataBegin - 8), true);
  bytes.set(text, 8);
  return bytes;
}

/** First byte of the data section that leaves room for a header of these tensors, a multiple of 64. */
export function dataBeginFor(tensors: ReadonlyMap<string, TensorEntry>): number {
  // Every entry is counted with the longest offsets that a double holds, so that the room does not depend on the data.
  const longest = Number.MAX_SAFE_INTEGER;
  let room = 8 + 2;
  for (const [name, { dtype, shape }] of tensors) {
    room += JSON.stringify({ [name]: { dtype, shape, data_offsets: [longest, longest] } }).length;
  }
  return Math.ceil(room / DATA_ALIGNMENT) * DATA_ALIGNMENT;
}
