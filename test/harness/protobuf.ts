/**
 * A reader of protobuf's wire format (protobuf.dev, "Encoding"), written from its specification to check our writer.
 */

/** One field of a message. */
export interface Field {
  number: number;
  /** Varints: the 64 bits as they are, not signed. 0 for other fields. */
  integer: bigint;
  /** Contents of length-delimited and of fixed 32-bit fields; empty for varints. */
  bytes: Uint8Array;
}

/** Fields of a message in their order. Throws on wire types other than 0, 2 and 5, and on a message that ends early. */
export function fieldsOf(message: Uint8Array): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const take = (size: number) => {
    if (at + size > message.length) throw new RangeError(`${at + size} bytes wanted of ${message.length}`);
    at += size;
    return message.subarray(at - size, at);
  };
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const [byte] = take(1) as Uint8Array & [number];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.length) {
    const tag = Number(varint());
    const [number, wireType] = [tag >>> 3, tag & 7];
    if (wireType === 0) fields.push({ number, integer: varint(), bytes: new Uint8Array() });
    else if (wireType === 2) fields.push({ number, integer: 0n, bytes: take(Number(varint())) });
    else if (wireType === 5) fields.push({ number, integer: 0n, bytes: take(4) });
    else throw new RangeError(`wire type ${wireType}`);
  }
  return fields;
}

/** The first field of a number; throws if there is none. */
export function first(fields: readonly Field[], number: number): Field {
  const field = fields.find((each) => each.number === number);
  if (!field) throw new RangeError(`no field ${number}`);
  return field;
}

/** A field as UTF-8. */
export function text(field: Field): string {
  return new TextDecoder('utf-8', { fatal: true }).decode(field.bytes);
}

/** The varints of a packed field. */
export function packedIntegers({ bytes }: Field): bigint[] {
  const values: bigint[] = [];
  let value = 0n;
  let shift = 0n;
  for (const byte of bytes) {
    value |= BigInt(byte & 0x7f) << shift;
    shift += 7n;
    if (byte >= 0x80) continue;
    values.push(value);
    [value, shift] = [0n, 0n];
  }
  return values;
}
