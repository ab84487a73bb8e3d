import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { parseNcnnParam, readNcnn } from '../../src/checkpoint/ncnn';
import { importRife } from '../../src/checkpoint/rife';
import { diskFolder } from '../../src/cli/files';
import { importCommand } from '../../src/cli/import';
import { inspect } from '../../src/cli/inspect';
import { verifyModel } from '../../src/cli/verify';
import { encodeF16, floatBytes } from '../../src/floats';
import type { ByteSource } from '../../src/manifest';
import { openPart } from '../../src/store/verified';
import { memoryFolder } from '../harness/memory-folder';
import { seededFloats } from '../harness/near';

const original = resolve(import.meta.dirname, '../../../shared/data/rife');
const shipped = resolve(import.meta.dirname, '../../public/models/rife');
const hasOriginal = existsSync(resolve(original, 'flownet.bin'));

function source(bytes: Uint8Array | string): ByteSource {
  const data = typeof bytes === 'string' ? new TextEncoder().encode(bytes) : bytes;
  return { sizeBytes: data.length, read: async (begin, end) => data.subarray(begin, end) };
}

/** Two convolutions, the second transposed with an odd count of weights, which is padded to four bytes. */
const GRAPH = `7767517
4 5
Input in0 0 1 in0
Convolution c 1 1 in0 1 0=2 1=3 3=2 4=1 5=1 6=36 9=2 -23310=1,2.000000e-01
Split s 1 2 1 2 3
Deconvolution d 1 1 2 4 0=1 1=3 5=1 6=9
`;

function concat(...parts: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

const TAG = new Uint8Array([0x47, 0x6b, 0x30, 0x01]);
const first = seededFloats(1, 36);
const second = seededFloats(2, 9);
const half = (values: Float32Array) => floatBytes(encodeF16(values));
const BIN = concat(
  TAG,
  half(first),
  floatBytes(seededFloats(3, 2)),
  TAG,
  half(second),
  new Uint8Array(2),
  floatBytes(seededFloats(4, 1)),
);

describe('parseNcnnParam', () => {
  it('reads layers, blobs, numbers and arrays', () => {
    const layers = parseNcnnParam(GRAPH, 'net');
    expect(layers.map(({ type, inputs, outputs }) => [type, inputs, outputs])).toEqual([
      ['Input', [], ['in0']],
      ['Convolution', ['in0'], ['1']],
      ['Split', ['1'], ['2', '3']],
      ['Deconvolution', ['2'], ['4']],
    ]);
    expect([...layers[1]!.params]).toEqual([
      [0, 2],
      [1, 3],
      [3, 2],
      [4, 1],
      [5, 1],
      [6, 36],
      [9, 2],
      [10, [0.2]],
    ]);
  });

  it.each([
    ['another magic', GRAPH.replace('7767517', '7767518')],
    ['no counts', GRAPH.replace('4 5', '4')],
    ['another count of layers', GRAPH.replace('4 5', '5 5')],
    ['another count of blobs', GRAPH.replace('4 5', '4 6')],
    ['a blob that is not there', GRAPH.replace('d 1 1 2', 'd 1 1 9')],
    ['a blob that is read twice', GRAPH.replace('d 1 1 2', 'd 1 1 1')],
    ['a blob that is made twice', GRAPH.replace('2 4 0=1', '2 3 0=1')],
    ['counts beyond the line', GRAPH.replace('s 1 2', 's 1 9')],
    ['a parameter that is no number', GRAPH.replace('1=3 5', '1=x 5')],
    ['a parameter that is none', GRAPH.replace('1=3 5', '1 5')],
    ['a parameter that is there twice', GRAPH.replace('5=1 6=9', '5=1 5=1 6=9')],
    ['an array of another length', GRAPH.replace('=1,2.0', '=2,2.0')],
    ['nothing', ''],
  ])('refuses %s', (_, text) => {
    expect(() => parseNcnnParam(text, 'net')).toThrowError(expect.objectContaining({ code: 'bad-checkpoint' }));
  });
});

describe('readNcnn', () => {
  it('reads records in the order of their layers, exactly, the padding of an odd count skipped', async () => {
    const { records } = await readNcnn(source(GRAPH), source(BIN), 'net');
    expect(records.map(({ layer, shape }) => [layer.name, shape])).toEqual([
      ['c', [2, 2, 3, 3]],
      ['d', [1, 1, 3, 3]],
    ]);
    expect([...encodeF16(records[0]!.weight)]).toEqual([...encodeF16(first)]);
    expect([...encodeF16(records[1]!.weight)]).toEqual([...encodeF16(second)]);
    expect([...records[0]!.bias]).toEqual([...seededFloats(3, 2)]);
    expect([...records[1]!.bias]).toEqual([...seededFloats(4, 1)]);
  });

  const broken = (at: number, value: number) => BIN.map((byte, i) => (i === at ? value : byte));
  it.each([
    ['a cut file', GRAPH, BIN.subarray(0, BIN.length - 1)],
    ['bytes behind the last record', GRAPH, concat(BIN, new Uint8Array(4))],
    ['32-bit weights', GRAPH, broken(0, 0x56)],
    ['an infinite weight', GRAPH, concat(BIN.subarray(0, 4), new Uint8Array([0, 0x7c]), BIN.subarray(6))],
    ['weights that do not divide', GRAPH.replace('6=36', '6=35'), BIN],
    ['a convolution without bias', GRAPH.replace('5=1 6=9', '5=0 6=9'), BIN],
  ])('refuses %s', async (_, graph, bin) => {
    await expect(readNcnn(source(graph), source(bin), 'net')).rejects.toMatchObject({ code: 'bad-checkpoint' });
  });
});

describe.skipIf(!hasOriginal)('the import of RIFE 4.6', () => {
  const read = (name: string) => new Uint8Array(readFileSync(resolve(original, name)));

  it('gives the bytes that are shipped, which open as the part', async () => {
    const sink = memoryFolder();
    await importRife({ param: source(read('flownet.param')), bin: source(read('flownet.bin')), sink, license: 'MIT' });
    for (const path of ['zoetrope.json', 'rife.safetensors']) {
      const made = await sink.open(path);
      const bytes = await made.read(0, made.sizeBytes);
      expect(Buffer.compare(bytes, readFileSync(resolve(shipped, path))), path).toBe(0);
    }
    const part = await openPart(sink, 'rife');
    expect(part.manifest).toMatchObject({ part: 'rife', name: 'RIFE 4.6', license: 'MIT' });
    expect(part.open().entries.size).toBe(88);
  });

  it('is a command', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'zoetrope-rife-'));
    const log = vi.spyOn(console, 'log').mockImplementation(() => undefined);
    try {
      const args = ['--from', join(original, 'flownet.param'), '--to', join(folder, 'rife'), '--license', 'MIT'];
      await importCommand().parseAsync(args, { from: 'user' });
      expect(log.mock.calls.flat().join()).toMatch(/RIFE 4\.6, 10\.1 MiB/);
      expect(readdirSync(join(folder, 'rife')).sort()).toEqual(['rife.safetensors', 'zoetrope.json']);
      expect((await openPart(diskFolder(join(folder, 'rife')), 'rife')).manifest.license).toBe('MIT');
      expect((await inspect(join(original, 'flownet.param'))).text).toMatch(/10\.\d MiB\n.*optional part "rife"/);
      expect((await inspect(join(folder, 'rife'))).text).toMatch(/optional part "rife", RIFE 4\.6, MIT\n.*10\.1 MiB/);
      expect(await verifyModel(diskFolder(join(folder, 'rife')))).toMatchObject({ files: 1, bad: [] });
      truncateSync(join(folder, 'rife/rife.safetensors'), 1000);
      expect((await verifyModel(diskFolder(join(folder, 'rife')))).bad[0]).toMatchObject({ path: 'rife.safetensors' });
      await expect(importCommand().parseAsync([...args, '--name', 'x'], { from: 'user' })).rejects.toMatchObject({
        code: 'bad-request',
      });
    } finally {
      log.mockRestore();
      rmSync(folder, { recursive: true });
    }
  });

  it.each([
    ['another slope', '-23310=1,2.000000e-01', '-23310=1,1.000000e-01'],
    ['another stride', '1=3 3=2 4=1 5=1 6=6048', '1=3 3=1 4=1 5=1 6=6048'],
    ['another scale', '1=1.250000e-01 2=1.250000e-01', '1=1.000000e+00 2=1.000000e+00'],
    ['a layer of another type', 'Sigmoid ', 'HardSigmoid '],
    ['another pixel shuffle', 'pixelshuffle_104         1 1 77 flow0 0=2', 'pixelshuffle_104         1 1 77 flow0 0=1'],
  ])('refuses a graph with %s, and writes nothing', async (_, from, to) => {
    const text = new TextDecoder().decode(read('flownet.param'));
    expect(text).toContain(from);
    const sink = memoryFolder();
    await expect(
      importRife({ param: source(text.replace(from, to)), bin: source(read('flownet.bin')), sink }),
    ).rejects.toMatchObject({ code: 'bad-checkpoint' });
    expect(sink.files.size).toBe(0);
  });
});

/** A manifest that tests break; what they break need not fit its type. */
// biome-ignore lint/suspicious/noExplicitAny: see above
type Loose = any;

describe('a part', () => {
  const manifest = JSON.parse(readFileSync(resolve(shipped, 'zoetrope.json'), 'utf8'));
  const folder = (change: (manifest: Loose) => void) => {
    const changed = structuredClone(manifest);
    change(changed);
    const sink = memoryFolder();
    sink.files.set('zoetrope.json', new TextEncoder().encode(JSON.stringify(changed)));
    sink.files.set('rife.safetensors', new Uint8Array(readFileSync(resolve(shipped, 'rife.safetensors'))));
    return sink;
  };
  const weight = 'block3.lastconv.0.weight';

  it.each<[string, (manifest: Loose) => void]>([
    ['another part', (m) => (m.part = 'film')],
    ['a missing tensor', (m) => delete m.files[0].tensors[weight]],
    ['another shape', (m) => (m.files[0].tensors[weight].shape = [24, 64, 4, 4])],
    ['pieces that do not add up', (m) => (m.files[0].pieces[0].sizeBytes -= 1)],
    ['a path that leaves the folder', (m) => (m.files[0].path = '../rife.safetensors')],
    [
      'the tensors of a newer version',
      (m) => (m.files[0].tensors['encode.cnn0.weight'] = { dtype: 'F16', shape: [0], range: [0, 0] }),
    ],
  ])('refuses %s', async (_, change) => {
    await expect(openPart(folder(change), 'rife')).rejects.toMatchObject({ code: 'bad-checkpoint' });
  });

  it('refuses a model’s manifest, and bytes that are not those of the hash', async () => {
    const model = folder((m) => delete m.part);
    await expect(openPart(model, 'rife')).rejects.toMatchObject({ code: 'bad-checkpoint' });
    const flipped = folder(() => undefined);
    flipped.files.get('rife.safetensors')![5_000_000]! ^= 1;
    const part = await openPart(flipped, 'rife');
    await expect(part.open().read(weight)).rejects.toMatchObject({ code: 'corrupt-data' });
  });
});
