/**
 * The part of protobuf's wire format that an ONNX model needs. Field numbers are those of onnx.proto (onnx/onnx,
 * `onnx/onnx.proto`, IR version 8).
 */

/** A message under construction: bytes appended field by field. */
export class MessageWriter {
  private readonly parts: Uint8Array[] = [];
  private sizeBytes = 0;

  private push(bytes: Uint8Array): void {
    this.parts.push(bytes);
    this.sizeBytes += bytes.byteLength;
  }

  /** Appends an int64 or enum field; `value` is a whole number, negative ones take ten bytes as protobuf wants. */
  integer(field: number, value: number): this {
    this.push(varint(field << 3));
    this.push(varint(value));
    return this;
  }

  /** Appends an IEEE single in a fixed32 field. */
  float(field: number, value: number): this {
    this.push(varint((field << 3) | 5));
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    this.push(bytes);
    return this;
  }

  /** Appends length-delimited bytes. */
  bytes(field: number, value: Uint8Array): this {
    this.push(varint((field << 3) | 2));
    this.push(varint(value.byteLength));
    this.push(value);
    return this;
  }

  /** Appends a UTF-8 string. */
  string(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  /** Appends a nested message. */
  message(field: number, value: MessageWriter): this {
    return this.bytes(field, value.finish());
  }

  /** Appends a packed list of int64. */
  integers(field: number, values: readonly number[]): this {
    const packed = values.map(varint);
    const bytes = new Uint8Array(packed.reduce((size, part) => size + part.byteLength, 0));
    let at = 0;
    for (const part of packed) {
      bytes.set(part, at);
      at += part.byteLength;
    }
    return this.bytes(field, bytes);
  }

  /** The message's bytes. */
  finish(): Uint8Array {
    const out = new Uint8Array(this.sizeBytes);
    let at = 0;
    for (const part of this.parts) {
      out.set(part, at);
      at += part.byteLength;
    }
    return out;
  }
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest > 0n ? low | 0x80 : low);
  } while (rest > 0n);
  return Uint8Array.from(bytes);
}
