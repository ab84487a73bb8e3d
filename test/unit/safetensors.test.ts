import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { dataBeginFor, encodeHeader, openSafetensors, openSharded, readHeader } from '../../src/checkpoint/safetensors';
import { hashPiece, type ShardTensor } from '../../src/manifest';
import { safetensors } from '../harness/checkpoint';
import { memoryFolder } from '../harness/memory-folder';
import { hasFixtures, readCase } from '../harness/sampling-fixtures';

const BAD = new URL('../../../shared/fixtures/safetensors-bad/', import.meta.url);

/** A file with this header text, its true length in front and `dataBytes` of data behind. */
function fileOf(header: string, dataBytes: number): Uint8Array {
  const text = new TextEncoder().encode(header);
  const file = new Uint8Array(8 + text.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  return file;
}

async function open(file: Uint8Array) {
  return openSafetensors(await memoryFolder([['a', file]]).open('a'), 'a');
}

const refused = { name: 'ZoetropeError:bad-checkpoint' };

describe('reading', () => {
  it('gives tensors and parts of them', async () => {
    const values = Float32Array.of(1, 2, 3, 4, 5, 6);
    const source = await open(
      safetensors(
        new Map([
          ['x', { shape: [2, 3], values }],
          ['y', { shape: [1], values: Uint16Array.of(7) }],
        ]),
      ),
    );
    expect([...source.entries]).toEqual([
      ['x', { dtype: 'F32', shape: [2, 3] }],
      ['y', { dtype: 'F16', shape: [1] }],
    ]);
    expect([...new Float32Array((await source.readRange('x', 4, 16)).slice().buffer)]).toEqual([2, 3, 4]);
    expect(await source.read('y')).toEqual(Uint8Array.of(7, 0));
    await expect(source.readRange('x', 0, 25)).rejects.toThrow('it has 24');
    await expect(source.read('z')).rejects.toThrow('"z"');
  });

  it.each([
    ['{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}', 1, 'its tensors after'],
    ['{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}', 3, '1 bytes follow the last tensor'],
    ['{"a":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}}', 4, 'leaves a gap'],
    [
      '{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}',
      4,
      'overlaps',
    ],
    ['{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,2]}}', 2, 'needs 4 bytes and has 2'],
    ['{"a":{"dtype":"f16","shape":[1],"data_offsets":[0,2]}}', 2, 'dtype "f16"'],
    ['{"a":{"dtype":"toString","shape":[1],"data_offsets":[0,2]}}', 2, 'dtype "toString"'],
    ['{"a":{"dtype":"F16","shape":[4294967296,4294967296],"data_offsets":[0,0]}}', 0, 'needs NaN bytes'],
    [
      '{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"\\u0061":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}',
      2,
      'the name "a" twice',
    ],
    ['{"a":{"dtype":"F16","dtype":"F16","shape":[1],"data_offsets":[0,2]}}', 2, 'the name "dtype" twice'],
    [`{"a":${'['.repeat(100_000)}`, 0, 'nests deeper'],
    ['\ufeff{}', 0, 'where "{" must be'],
    ['{}\0', 0, 'not a valid JSON'],
    ['{"a', 0, 'not a valid JSON'],
    ['{"\\', 0, 'not a valid JSON'],
  ])('refuses %j with %i bytes of data', async (header, dataBytes, message) => {
    await expect(open(fileOf(header, dataBytes))).rejects.toMatchObject(refused);
    await expect(open(fileOf(header, dataBytes))).rejects.toThrow(message);
  });

  it.each([0n, 1n << 20n, 1n << 53n, (1n << 64n) - 1n])(
    'refuses a header length of %i without asking for it',
    async (length) => {
      const file = new Uint8Array(16);
      new DataView(file.buffer).setBigUint64(0, length, true);
      const folder = memoryFolder([['a', file]]);
      await expect(readHeader(await folder.open('a'), 'a')).rejects.toMatchObject(refused);
      expect(folder.reads.every(({ end }) => end <= 16)).toBe(true);
    },
  );
});

describe('sharded sets', () => {
  const shard = (name: string) => safetensors(new Map([[name, { shape: [1], values: Float32Array.of(1) }]]));
  const index = (map: Record<string, string>) => new TextEncoder().encode(JSON.stringify({ weight_map: map }));
  const files = (map: Record<string, string>) =>
    memoryFolder([
      ['d/m.safetensors.index.json', index(map)],
      ['d/one.safetensors', shard('x')],
      ['d/two.safetensors', shard('y')],
    ]);

  it('are read as one', async () => {
    const source = await openSharded(files({ y: 'two.safetensors', x: 'one.safetensors' }), 'd', 'm');
    expect([...source.entries.keys()].sort()).toEqual(['x', 'y']);
    expect(await source.read('y')).toHaveLength(4);
  });

  it.each([
    [{ x: 'one.safetensors', z: 'two.safetensors' }, 'holds "y"'],
    [{ x: 'one.safetensors', y: 'one.safetensors' }, 'lacks "y"'],
    [{ x: '../one.safetensors' }, 'stays inside its folder'],
  ])('are refused when the index says %j', async (map, message) => {
    await expect(openSharded(files(map as Record<string, string>), 'd', 'm')).rejects.toThrow(message);
  });

  it('name the missing file when there is neither index nor single file', async () => {
    await expect(openSharded(memoryFolder(), 'd', 'm')).rejects.toThrow('d/m.safetensors');
  });
});

describe('our header', () => {
  it('is read back, begins the data at a multiple of 64 and leaves room that does not depend on ranges', async () => {
    const entries = new Map([
      ['weight', { dtype: 'U8' as const, shape: [3, 1, 32] }],
      ['weight.scales', { dtype: 'F32' as const, shape: [3, 1] }],
    ]);
    const dataBegin = dataBeginFor(entries);
    expect(dataBegin % 64).toBe(0);
    const tensors = new Map<string, ShardTensor>([
      ['weight', { dtype: 'U8', shape: [3, 1, 32], range: [dataBegin, dataBegin + 96] }],
      ['weight.scales', { dtype: 'F16', shape: [3, 1], range: [dataBegin + 96, dataBegin + 102] }],
    ]);
    const file = new Uint8Array(dataBegin + 102);
    file.set(encodeHeader(tensors, dataBegin));
    const header = await readHeader(await memoryFolder([['a', file]]).open('a'), 'a');
    expect([...header.tensors]).toEqual([...tensors]);
  });
});

interface BadCase {
  files_list: {
    file: string;
    must: 'refuse' | 'accept' | 'either';
    tensors?: { name: string; dtype: string; shape: number[]; sha256: string }[];
    metadata?: Record<string, string>;
  }[];
}

describe.skipIf(!hasFixtures)('malformed and unusual files of the fixtures', () => {
  const cases = hasFixtures
    ? readCase<BadCase>('fixtures/safetensors-bad').files_list.filter(({ file }) => file.endsWith('.safetensors'))
    : [];

  it('are all there', () => {
    expect(cases.length).toBe(readdirSync(BAD).filter((file) => file.endsWith('.safetensors')).length);
  });

  it.each(cases)('$file: $must', async ({ file, must, tensors, metadata }) => {
    const bytes = new Uint8Array(readFileSync(new URL(file, BAD)));
    const folder = memoryFolder([['a', bytes]]);
    const opening = (async () => ({
      source: await open(bytes),
      header: await readHeader(await folder.open('a'), file),
    }))();
    if (must === 'refuse') {
      await expect(opening).rejects.toMatchObject(refused);
      return;
    }
    const outcome = await opening.catch((error) => error);
    if (must === 'either' && outcome instanceof Error) {
      expect(outcome).toMatchObject(refused);
      return;
    }
    if (outcome instanceof Error) throw outcome;
    const { source, header } = outcome;
    if (metadata) expect(Object.fromEntries(header.metadata)).toEqual(metadata);
    if (!tensors) return;
    expect([...source.entries.keys()].sort()).toEqual(tensors.map(({ name }) => name).sort());
    for (const { name, dtype, shape, sha256 } of tensors) {
      expect(source.entries.get(name)).toEqual({ dtype, shape });
      expect(await hashPiece(await source.read(name))).toBe(sha256);
    }
  });
});
