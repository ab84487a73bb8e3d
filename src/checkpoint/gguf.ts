import { throwIfAborted, ZoetropeError } from '../errors';
import type { ByteSource } from '../manifest';
import { GGUF_TYPES, type GgufType } from './gguf-blocks';

/** First read of a file: holds the whole header of a diffusion model, which has some 60 kB. */
const FIRST_READ_BYTES = 1024 * 1024;
/** Longest header read. A text encoder's, with its vocabulary, has about 10 MB. */
const MAX_HEADER_BYTES = 128 * 1024 * 1024;
/** Axes that a tensor may have; Wan's patch embedding has five. */
const MAX_AXES = 8;
/** `GGUF_DEFAULT_ALIGNMENT`. */
const DEFAULT_ALIGNMENT = 32;
/** Shortest entries that the format allows: they bound the counts by the length of the file. */
const MIN_KEY_BYTES = 8 + 4 + 1;
const MIN_TENSOR_BYTES = 8 + 4 + 4 + 8;

/** A list among the keys; a vocabulary has 256,384 entries, so it is decoded only when asked for. */
export interface GgufArray {
  count: number;
  /** All elements; strings that are not UTF-8 are refused. */
  values(): (string | number | bigint | boolean)[];
}

/** A value of a key. */
export type GgufValue = string | number | bigint | boolean | GgufArray;

/** A tensor of the file. */
export interface GgufTensor {
  type: GgufType;
  /** PyTorch axis order, i.e. the file's dimensions reversed. */
  shape: number[];
  /** Bytes in the file. */
  range: [begin: number, end: number];
}

export interface GgufHeader {
  keys: ReadonlyMap<string, GgufValue>;
  /** In the order of the file's list. */
  tensors: ReadonlyMap<string, GgufTensor>;
}

/** Thrown inside this module when the bytes read so far end before the header does. */
class NeedMore {
  constructor(readonly bytes: number) {}
}

type Refuse = (why: string) => never;

const SCALAR_BYTES: Readonly<Record<number, number>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
};
const STRING = 8;
const ARRAY = 9;

/**
 * Reads the header's fields from its first bytes. Nothing is allocated for a length before it was compared with the
 * file's.
 */
class Cursor {
  #at = 0;
  readonly #view: DataView;
  readonly #utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

  constructor(
    private readonly bytes: Uint8Array,
    private readonly fileBytes: number,
    readonly refuse: Refuse,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get at(): number {
    return this.#at;
  }

  /** Moves on by `count` bytes and tells where they begin. */
  #take(count: number, what: string): number {
    const begin = this.#at;
    const end = begin + count;
    if (end > this.fileBytes) this.refuse(`it ends inside ${what}`);
    if (end > this.bytes.length) throw new NeedMore(end);
    this.#at = end;
    return begin;
  }

  u32(what: string): number {
    return this.#view.getUint32(this.#take(4, what), true);
  }

  /** A 64-bit count or length; those beyond the whole numbers that a double holds are refused. */
  u64(what: string): number {
    const value = this.#view.getBigUint64(this.#take(8, what), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) this.refuse(`${what} is ${value}`);
    return Number(value);
  }

  string(what: string): string {
    const length = this.u64(`the length of ${what}`);
    const begin = this.#take(length, what);
    try {
      return this.#utf8.decode(this.bytes.subarray(begin, begin + length));
    } catch {
      return this.refuse(`${what} is not UTF-8`);
    }
  }

  value(type: number, what: string): GgufValue {
    if (type === STRING) return this.string(what);
    if (type === ARRAY) return this.#array(what);
    const size = SCALAR_BYTES[type];
    if (size === undefined) return this.refuse(`${what} is of the unknown type ${type}`);
    return this.#scalar(type, this.#take(size, what), what);
  }

  #scalar(type: number, at: number, what: string): number | bigint | boolean {
    const view = this.#view;
    switch (type) {
      case 0:
        return view.getUint8(at);
      case 1:
        return view.getInt8(at);
      case 2:
        return view.getUint16(at, true);
      case 3:
        return view.getInt16(at, true);
      case 4:
        return view.getUint32(at, true);
      case 5:
        return view.getInt32(at, true);
      case 6:
        return view.getFloat32(at, true);
      case 7: {
        const value = view.getUint8(at);
        if (value > 1) this.refuse(`${what} is a boolean of value ${value}`);
        return value === 1;
      }
      case 10:
        return view.getBigUint64(at, true);
      case 11:
        return view.getBigInt64(at, true);
      default:
        return view.getFloat64(at, true);
    }
  }

  /** Steps over a list, checking only lengths, and keeps where it lies. Lists of lists are in no known file. */
  #array(what: string): GgufArray {
    const type = this.u32(what);
    const count = this.u64(`the length of ${what}`);
    if (type === ARRAY) this.refuse(`${what} is a list of lists`);
    const size = type === STRING ? 8 : SCALAR_BYTES[type];
    if (size === undefined) return this.refuse(`${what} is a list of the unknown type ${type}`);
    if (count * size > this.fileBytes - this.#at)
      this.refuse(`${what} states ${count} elements, more than the file holds`);
    const begin = this.#at;
    if (type === STRING) for (let i = 0; i < count; i++) this.#take(this.u64(what), what);
    else this.#take(count * size, what);
    return { count, values: () => this.#elements(type, begin, count, what) };
  }

  #elements(type: number, begin: number, count: number, what: string): (string | number | bigint | boolean)[] {
    const reader = new Cursor(this.bytes, this.fileBytes, this.refuse);
    reader.#at = begin;
    return Array.from({ length: count }, () => reader.value(type, what) as string | number | bigint | boolean);
  }
}

function parseTensor(cursor: Cursor, name: string): Omit<GgufTensor, 'range'> & { offset: number; sizeBytes: number } {
  const { refuse } = cursor;
  const at = `tensor ${JSON.stringify(name.slice(0, 120))}`;
  const axes = cursor.u32(at);
  if (axes > MAX_AXES) refuse(`${at} has ${axes} axes; at most ${MAX_AXES} are read`);
  const dimensions = Array.from({ length: axes }, () => cursor.u64(`a dimension of ${at}`));
  const typeNumber = cursor.u32(at);
  const offset = cursor.u64(`the offset of ${at}`);
  const type = GGUF_TYPES.get(typeNumber);
  if (!type) {
    const known = [...GGUF_TYPES.values()].map((entry) => entry.name).join(', ');
    return refuse(`${at} is of type number ${typeNumber}; known are ${known}`);
  }
  const count = dimensions.reduce((product, size) => product * size, 1);
  const row = dimensions[0] ?? 1;
  if (row % type.values !== 0)
    refuse(`${at} has rows of ${row} values, and ${type.name} comes in blocks of ${type.values}`);
  const sizeBytes = (count / type.values) * type.bytes;
  if (!Number.isSafeInteger(count) || !Number.isSafeInteger(sizeBytes)) refuse(`${at} is of size [${dimensions}]`);
  return { type, shape: dimensions.reverse(), offset, sizeBytes };
}

function alignmentOf(keys: ReadonlyMap<string, GgufValue>, refuse: Refuse): number {
  const alignment = keys.get('general.alignment') ?? DEFAULT_ALIGNMENT;
  if (typeof alignment !== 'number' || alignment < 8 || !Number.isInteger(Math.log2(alignment))) {
    return refuse(`general.alignment must be a power of two from 8 on, got ${String(alignment)}`);
  }
  return alignment;
}

/** Parses the header from the file's first bytes. Throws {@link NeedMore} when they end before it does. */
function parse(bytes: Uint8Array, fileBytes: number, refuse: Refuse): GgufHeader {
  const cursor = new Cursor(bytes, fileBytes, refuse);
  const magic = cursor.u32('its first four bytes');
  if (magic !== 0x46554747) refuse('it does not begin with "GGUF"');
  const version = cursor.u32('the version');
  if (version !== 2 && version !== 3) refuse(`it is of version ${version}; 2 and 3 are read, little-endian`);
  const tensorCount = cursor.u64('the number of tensors');
  const keyCount = cursor.u64('the number of keys');
  if (keyCount * MIN_KEY_BYTES + tensorCount * MIN_TENSOR_BYTES > fileBytes) {
    refuse(`it states ${tensorCount} tensors and ${keyCount} keys in ${fileBytes} bytes`);
  }
  const keys = new Map<string, GgufValue>();
  for (let i = 0; i < keyCount; i++) {
    const key = cursor.string(`key ${i + 1}`);
    if (keys.has(key)) refuse(`it gives the key ${JSON.stringify(key.slice(0, 120))} twice`);
    keys.set(key, cursor.value(cursor.u32(`the type of key ${i + 1}`), `the key ${JSON.stringify(key.slice(0, 120))}`));
  }
  const infos = new Map<string, ReturnType<typeof parseTensor>>();
  for (let i = 0; i < tensorCount; i++) {
    const name = cursor.string(`the name of tensor ${i + 1}`);
    if (infos.has(name)) refuse(`it gives the tensor ${JSON.stringify(name.slice(0, 120))} twice`);
    infos.set(name, parseTensor(cursor, name));
  }
  const alignment = alignmentOf(keys, refuse);
  const align = (position: number) => Math.ceil(position / alignment) * alignment;
  const dataBegin = align(cursor.at);
  // The writers of this format put each tensor at the next aligned byte, and llama.cpp reads no other files. Anything
  // else is a damaged list.
  let end = dataBegin;
  const tensors = new Map<string, GgufTensor>();
  const byOffset = [...infos].sort(([, a], [, b]) => a.offset - b.offset || a.sizeBytes - b.sizeBytes);
  for (const [name, { type, shape, offset, sizeBytes }] of byOffset) {
    const begin = dataBegin + offset;
    if (begin !== align(end)) {
      refuse(`tensor ${JSON.stringify(name.slice(0, 120))} begins at byte ${begin}, where ${align(end)} is the next`);
    }
    end = begin + sizeBytes;
    if (!(end <= fileBytes))
      refuse(`it ends after ${fileBytes} bytes, tensor ${JSON.stringify(name.slice(0, 120))} after ${end}`);
    tensors.set(name, { type, shape, range: [begin, end] });
  }
  if (tensorCount > 0 && fileBytes > align(end)) refuse(`${fileBytes - end} bytes follow the last tensor`);
  return { keys, tensors };
}

/** Whether the file begins with GGUF's four letters. */
export async function isGguf(file: ByteSource): Promise<boolean> {
  if (file.sizeBytes < 4) return false;
  const [g, g2, u, f] = await file.read(0, 4);
  return g === 0x47 && g2 === 0x47 && u === 0x55 && f === 0x46;
}

/**
 * Reads and checks the header of a GGUF file (versions 2 and 3, little-endian): every count and length against the
 * file's size before anything is allocated, names once, known types, whole blocks in a row, and tensors that fill the
 * data section without gaps, overlaps or a rest. Throws `bad-checkpoint`.
 */
export async function readGguf(file: ByteSource, what: string, signal?: AbortSignal): Promise<GgufHeader> {
  const refuse: Refuse = (why) => {
    throw new ZoetropeError('bad-checkpoint', `${what} is not a valid GGUF file: ${why}. Download it again.`);
  };
  let length = Math.min(file.sizeBytes, FIRST_READ_BYTES);
  for (;;) {
    throwIfAborted(signal);
    const bytes = await file.read(0, length);
    try {
      return parse(bytes, file.sizeBytes, refuse);
    } catch (error) {
      if (!(error instanceof NeedMore)) throw error;
      if (error.bytes > MAX_HEADER_BYTES) refuse(`its header is longer than ${MAX_HEADER_BYTES} bytes`);
      length = Math.min(file.sizeBytes, Math.max(error.bytes, 4 * length), MAX_HEADER_BYTES);
    }
  }
}
