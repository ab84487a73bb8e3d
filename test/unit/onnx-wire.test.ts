import { describe, expect, it } from 'vitest';
import { MessageWriter } from '../../src/onnx/wire';
import { fieldsOf, first, packedIntegers, text } from '../harness/protobuf';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const message = () => new MessageWriter();

/**
 * Bytes by hand from protobuf.dev, "Encoding": seven bits a byte, lowest first; int64 as two's complement of 64 bits.
 */
describe('the wire format', () => {
  it.each([
    [0, '00'],
    [1, '01'],
    [127, '7f'],
    [128, '8001'],
    [300, 'ac02'],
    [16_383, 'ff7f'],
    [16_384, '808001'],
    [2 ** 31 - 1, 'ffffffff07'],
    [2 ** 31, '8080808008'],
    [2 ** 32, '8080808010'],
    [2 ** 53 - 1, 'ffffffffffffff0f'],
    [-1, 'ffffffffffffffffff01'],
    [-2, 'feffffffffffffffff01'],
    [-(2 ** 31), '80808080f8ffffffff01'],
    [-(2 ** 53) + 1, '81808080808080f0ff01'],
  ])('writes %d as %s', (value, bytes) => {
    expect(hex(message().integer(1, value).finish())).toBe(`08${bytes}`);
    const read = first(fieldsOf(message().integer(1, value).finish()), 1).integer;
    expect(BigInt.asIntN(64, read)).toBe(BigInt(value));
  });

  it('refuses numbers that are not whole', () => {
    expect(() => message().integer(1, 1.5)).toThrow(RangeError);
    expect(() => message().integers(1, [1, Number.NaN])).toThrow(RangeError);
  });

  it('writes tags of one byte up to field 15 and of two from 16 on', () => {
    expect(hex(message().integer(15, 1).finish())).toBe('7801');
    expect(hex(message().integer(16, 1).finish())).toBe('800101');
    expect(hex(message().integer(20, 2).finish())).toBe('a00102');
  });

  it('writes floats little-endian in four bytes', () => {
    expect(hex(message().float(2, 1.5).finish())).toBe('150000c03f');
    expect(hex(message().float(2, -0).finish())).toBe('1500000080');
  });

  it('counts strings in bytes of UTF-8', () => {
    expect(hex(message().string(1, '').finish())).toBe('0a00');
    expect(hex(message().string(1, 'é€').finish())).toBe('0a05c3a9e282ac');
    const long = 'x'.repeat(300);
    const written = message().string(3, long).finish();
    expect(hex(written.subarray(0, 3))).toBe('1aac02');
    expect(text(first(fieldsOf(written), 3))).toBe(long);
  });

  it('packs integers, none at all included', () => {
    expect(hex(message().integers(8, []).finish())).toBe('4200');
    expect(hex(message().integers(8, [1, 300, 0]).finish())).toBe('420401ac0200');
    const values = [0, -1, 2 ** 40, 127, 128];
    const packed = packedIntegers(first(fieldsOf(message().integers(8, values).finish()), 8));
    expect(packed.map((value) => BigInt.asIntN(64, value))).toEqual(values.map(BigInt));
  });

  it('nests messages and keeps the order of fields', () => {
    const inner = message().integer(1, 150);
    const outer = message().message(3, inner).integer(1, 1).message(3, message());
    expect(hex(outer.finish())).toBe('1a0308960108011a00');
    expect(fieldsOf(outer.finish()).map((field) => field.number)).toEqual([3, 1, 3]);
  });

  it('takes bytes as they are', () => {
    expect(
      hex(
        message()
          .bytes(9, Uint8Array.of(0, 255, 128))
          .finish(),
      ),
    ).toBe('4a0300ff80');
  });
});
