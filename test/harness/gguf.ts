import { decodeF16, encodeF16, floatBytes } from '../../src/floats';

/** Writes GGUF files the plain way, for tests of readers. */

/** A tensor to write: type number, PyTorch shape, and its bytes in that type. */
export interface GgufTestTensor {
  type: number;
  shape: readonly number[];
  bytes: Uint8Array;
}

/** A key's value with its type number; lists with the type of their elements. */
export type GgufTestValue =
  | { type: 4; value: number }
  | { type: 8; value: string }
  | { type: 9; of: 5; value: number[] }
  | { type: 9; of: 6; value: number[] }
  | { type: 9; of: 8; value: string[] };

class Bytes {
  readonly parts: Uint8Array[] = [];
  length = 0;
  add(bytes: Uint8Array): void {
    this.parts.push(bytes);
    this.length += bytes.length;
  }
  number(size: 4 | 8, value: number, kind: 'u' | 'i' | 'f' = 'u'): void {
    const bytes = new Uint8Array(size);
    const view = new DataView(bytes.buffer);
    if (size === 8) view.setBigUint64(0, BigInt(value), true);
    else if (kind === 'f') view.setFloat32(0, value, true);
    else view.setInt32(0, value | 0, true);
    this.add(bytes);
  }
  string(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.number(8, bytes.length);
    this.add(bytes);
  }
  pad(alignment: number): void {
    this.add(new Uint8Array(Math.ceil(this.length / alignment) * alignment - this.length));
  }
  joined(): Uint8Array {
    const all = new Uint8Array(this.length);
    let at = 0;
    for (const part of this.parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }
}

function addValue(out: Bytes, entry: GgufTestValue): void {
  if (entry.type === 4) {
    out.number(4, entry.value);
    return;
  }
  if (entry.type === 8) {
    out.string(entry.value);
    return;
  }
  out.number(4, entry.of);
  out.number(8, entry.value.length);
  for (const value of entry.value) {
    if (typeof value === 'string') out.string(value);
    else out.number(4, value, entry.of === 6 ? 'f' : 'i');
  }
}

/** A file of version 3 with alignment 32. */
export function ggufFile(
  keys: Readonly<Record<string, GgufTestValue>>,
  tensors: ReadonlyMap<string, GgufTestTensor>,
): Uint8Array {
  const out = new Bytes();
  out.add(new TextEncoder().encode('GGUF'));
  out.number(4, 3);
  out.number(8, tensors.size);
  out.number(8, Object.keys(keys).length);
  for (const [key, entry] of Object.entries(keys)) {
    out.string(key);
    out.number(4, entry.type);
    addValue(out, entry);
  }
  let offset = 0;
  for (const [name, { type, shape, bytes }] of tensors) {
    out.string(name);
    out.number(4, shape.length);
    for (const size of [...shape].reverse()) out.number(8, size);
    out.number(4, type);
    out.number(8, offset);
    offset += Math.ceil(bytes.length / 32) * 32;
  }
  for (const { bytes } of tensors.values()) {
    out.pad(32);
    out.add(bytes);
  }
  out.pad(32);
  return out.joined();
}

/** Q8_0 as ggml's `quantize_row_q8_0` makes it, except that values are divided by the scale as it is stored. */
export function toQ8(values: Float32Array): Uint8Array {
  const out = new Uint8Array((values.length / 32) * 34);
  for (let block = 0; block < values.length / 32; block++) {
    const part = values.subarray(32 * block, 32 * block + 32);
    const scale = encodeF16(Float32Array.of(part.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127));
    const d = decodeF16(scale)[0]!;
    out.set(floatBytes(scale), 34 * block);
    // The largest value becomes 127 whatever the rounding of the scale did.
    part.forEach((value, j) => {
      out[34 * block + 2 + j] = d === 0 ? 0 : Math.max(-127, Math.min(127, Math.round(value / d)));
    });
  }
  return out;
}

/** Q4_0 as ggml's `quantize_row_q4_0` makes it: the value of largest magnitude at -8. */
export function toQ4(values: Float32Array): Uint8Array {
  const out = new Uint8Array((values.length / 32) * 18);
  for (let block = 0; block < values.length / 32; block++) {
    const part = values.subarray(32 * block, 32 * block + 32);
    const largest = part.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
    const scale = encodeF16(Float32Array.of(largest / -8));
    const d = decodeF16(scale)[0]!;
    out.set(floatBytes(scale), 18 * block);
    const q = (value: number) => (d === 0 ? 8 : Math.max(0, Math.min(15, Math.round(value / d) + 8)));
    for (let j = 0; j < 16; j++) out[18 * block + 2 + j] = q(part[j]!) | (q(part[j + 16]!) << 4);
  }
  return out;
}

/** Values of Q8_0 blocks by their definition. */
export function fromQ8(bytes: Uint8Array): Float32Array {
  return Float32Array.from({ length: (bytes.length / 34) * 32 }, (_, i) => {
    const at = 34 * (i >> 5);
    const d = decodeF16(Uint16Array.of(bytes[at]! | (bytes[at + 1]! << 8)))[0]!;
    return d * ((bytes[at + 2 + (i & 31)]! << 24) >> 24);
  });
}

/** Values of Q4_0 blocks by their definition. */
export function fromQ4(bytes: Uint8Array): Float32Array {
  return Float32Array.from({ length: (bytes.length / 18) * 32 }, (_, i) => {
    const at = 18 * (i >> 5);
    const d = decodeF16(Uint16Array.of(bytes[at]! | (bytes[at + 1]! << 8)))[0]!;
    const byte = bytes[at + 2 + (i & 15)]!;
    return d * ((i & 16 ? byte >> 4 : byte & 15) - 8);
  });
}
