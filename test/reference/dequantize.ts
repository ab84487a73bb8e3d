import type { TensorEntry } from '../../src/manifest';

/** Bits of an f16 as a number, by the definition. */
function half(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return NaN;
  const magnitude = exponent === 0 ? mantissa * 2 ** -24 : (1 + mantissa / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -magnitude : magnitude;
}

/** Values of a float tensor in float64. */
export function readFloat64({ dtype }: TensorEntry, bytes: Uint8Array): Float64Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype === 'F32') return Float64Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  if (dtype === 'F16')
    return Float64Array.from({ length: bytes.length / 2 }, (_, i) => half(view.getUint16(2 * i, true)));
  throw new RangeError(`${dtype} is not read here`);
}

/** The unsigned integer of `bits` bits at index `i`, the lowest bits of a byte first. */
export function bitsAt(bytes: Uint8Array, bits: number, i: number): number {
  return (bytes[Math.floor((i * bits) / 8)]! >> ((i * bits) % 8)) & (2 ** bits - 1);
}

/**
 * A quantised matrix in float64, straight from the layout of ONNX Runtime's MatMulNBits: B [rows, blocks, block * bits
 * / 8], scales [rows, blocks], zero points [rows, ceil(blocks * bits / 8)], value = (q - zero) * scale.
 */
export function dequantize(
  rows: number,
  columns: number,
  bits: number,
  packed: Uint8Array,
  scales: Float64Array,
  zeroPoints?: Uint8Array,
): Float64Array {
  const blocks = columns / 32;
  const rowBytes = Math.ceil((blocks * bits) / 8);
  const values = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const block = Math.floor(column / 32);
      const at = row * columns + column;
      const row0 = zeroPoints?.subarray(row * rowBytes, (row + 1) * rowBytes);
      const zero = row0 ? bitsAt(row0, bits, block) : 2 ** (bits - 1);
      values[at] = (bitsAt(packed, bits, at) - zero) * scales[row * blocks + block]!;
    }
  }
  return values;
}
