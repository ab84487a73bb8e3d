import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { importRifeTorch } from '../../src/checkpoint/rife-torch';
import { openSafetensors } from '../../src/checkpoint/safetensors';
import { diskFolder } from '../../src/cli/files';
import { importCommand } from '../../src/cli/import';
import { startServer } from '../../src/cli/server';
import { decodeFloats, encodeF16, floatBytes } from '../../src/floats';
import { rifeEncoderMac, rifeMac } from '../../src/interpolate/rife-sizes';
import { RIFE_46, type RifeConfig, rifeConfig, rifeShapes } from '../../src/part/rife';
import { openPart } from '../../src/store/verified';
import { safetensors, type TestTensor } from '../harness/checkpoint';
import { memoryFolder } from '../harness/memory-folder';
import { comfyRife, importedRife, randomRife, SMALL_RIFE, smallRife } from '../harness/rife-family';

/** Tensors of a network as a file's header states them. */
function headers(config: RifeConfig) {
  return new Map([...rifeShapes(config)].map(([name, shape]) => [name, { dtype: 'F16' as const, shape: [...shape] }]));
}

describe('the versions of RIFE', () => {
  // Parameters and multiply-adds, the encoding of both frames included, as counted on the published network
  // definitions.
  it.each([
    ['RIFE 4.6', 0, [192, 128, 96, 64], [8, 4, 2, 1], 32, 5.3, 39.5],
    ['RIFE 4.22.lite', 8, [192, 128, 64, 32], [8, 4, 2, 1], 32, 4.88, 24.9],
    ['RIFE 4.25/4.26', 4, [192, 128, 96, 64, 32], [16, 8, 4, 2, 1], 64, 5.66, 21.8],
    ['RIFE 4.25.lite', 4, [192, 128, 96, 64, 24], [32, 16, 8, 4, 1], 128, 5.62, 10.5],
    ['RIFE 4.25.heavy', 4, [384, 256, 192, 128, 64], [16, 8, 4, 2, 1], 64, 21.66, 69.1],
    ['RIFE 4.26.heavy', 16, [192, 128, 96, 64, 32], [16, 8, 4, 2, 1], 64, 5.72, 24.9],
  ])('%s is told by its tensors', (name, encoder, channels, scales, multiple, millions, gmac) => {
    const config = rifeConfig(headers(smallRife(encoder, channels)));
    expect(config).toEqual({ name, encoder, channels, scales, multiple });
    const values = [...rifeShapes(config).values()].map((shape) =>
      shape.reduce((product, length) => product * length, 1),
    );
    expect(values.reduce((sum, count) => sum + count, 0) / 1e6).toBeCloseTo(millions, 1);
    const mac = rifeMac(config, 1280, 720) + 2 * rifeEncoderMac(config, 1280, 720);
    expect(mac / 1e9).toBeCloseTo(gmac, 1);
  });

  it('4.6 has 88 tensors of 5,302,416 values', () => {
    const shapes = rifeShapes(RIFE_46);
    expect(shapes.size).toBe(88);
    const values = [...shapes.values()].map((shape) => shape.reduce((product, length) => product * length, 1));
    expect(values.reduce((sum, count) => sum + count, 0)).toBe(5_302_416);
    expect(rifeConfig(headers(RIFE_46))).toEqual(RIFE_46);
  });

  it('count the pixels of extended pictures', () => {
    expect(rifeMac(RIFE_46, 1280, 720)).toBe(rifeMac(RIFE_46, 1280, 736));
    expect(rifeMac(RIFE_46, 33, 1)).toBe(2 * rifeMac(RIFE_46, 32, 32));
    const lite = SMALL_RIFE['4.25.lite'];
    expect(rifeMac(lite, 129, 1)).toBe(2 * rifeMac(lite, 128, 128));
    expect(rifeEncoderMac(RIFE_46, 64, 64)).toBe(0);
  });

  const of = (config: RifeConfig, change: (entries: ReturnType<typeof headers>) => void) => {
    const entries = headers(config);
    change(entries);
    return entries;
  };
  const entry = (...shape: number[]) => ({ dtype: 'F16' as const, shape });
  it.each([
    ['nothing', new Map(), 'has 0 blocks'],
    ['three blocks', of(RIFE_46, (m) => m.delete('block3.conv0.1.0.weight')), 'has 3 blocks'],
    ['six blocks', of(SMALL_RIFE['4.25'], (m) => m.set('block5.conv0.1.0.weight', entry(8, 4, 3, 3))), 'has 6 blocks'],
    ['the encoder of 4.7', of(RIFE_46, (m) => m.set('encode.0.weight', entry(16, 3, 3, 3))), 'as versions 4.7 to 4.21'],
    ['odd channels', of(RIFE_46, (m) => m.set('block1.conv0.1.0.weight', entry(12, 6, 3, 3))), 'makes 12 channels'],
    [
      'an odd encoder',
      of(SMALL_RIFE['4.25'], (m) => m.set('encode.cnn3.weight', entry(16, 6, 4, 4))),
      'makes 6 channels',
    ],
  ])('are not %s', (_, entries, why) => {
    const refused = expect.objectContaining({ code: 'bad-checkpoint', message: expect.stringContaining(why) });
    expect(() => rifeConfig(entries)).toThrowError(refused);
  });
});

describe('the import of a safetensors file', () => {
  const config = SMALL_RIFE['4.25'];
  const tensors = randomRife(config, 1);
  const source = (bytes: Uint8Array) => ({
    sizeBytes: bytes.length,
    read: async (begin: number, end: number) => bytes.slice(begin, end),
  });
  const importing = (bytes: Uint8Array, sink = memoryFolder()) =>
    importRifeTorch({ file: source(bytes), what: 'rife.safetensors', sink });

  it('multiplies beta into weight and bias, as half floats and floats', async () => {
    const part = await importedRife(tensors);
    expect(part.manifest).toMatchObject({ part: 'rife', name: config.name, license: 'MIT' });
    const opened = part.open();
    expect([...opened.entries.keys()]).toEqual([...rifeShapes(config).keys()]);
    for (const [name, { dtype }] of opened.entries) {
      expect(dtype, name).toBe(name.endsWith('.bias') ? 'F32' : 'F16');
      const { values, shape } = tensors.get(name)!;
      const beta = tensors.get(name.replace(/conv\.(weight|bias)$/, 'beta'))?.values;
      const each = values.length / shape[0]!;
      const folded = values.map((value, i) =>
        name.includes('convblock') ? value * beta![Math.floor(i / each)]! : value,
      );
      const expected = dtype === 'F16' ? decodeFloats(new Uint8Array(encodeF16(folded).buffer), 'F16') : folded;
      const made = decodeFloats(await opened.read(name), dtype as 'F16' | 'F32');
      expect(Buffer.compare(floatBytes(made), floatBytes(expected)), name).toBe(0);
    }
  });

  it('reads the authors’ names, with and without beta, to the same bytes', async () => {
    const module = new Map([...tensors].map(([name, tensor]) => [`module.${name}`, tensor]));
    const [theirs, comfy] = [memoryFolder(), memoryFolder()];
    await importing(safetensors(module), theirs);
    await importing(comfyRife(tensors), comfy);
    expect(Buffer.compare(theirs.files.get('rife.safetensors')!, comfy.files.get('rife.safetensors')!)).toBe(0);
    const folded = new Map<string, TestTensor>();
    const opened = await openSafetensors(source(comfy.files.get('rife.safetensors')!), 'rife');
    for (const [name, { dtype, shape }] of opened.entries) {
      folded.set(name, {
        shape: [...shape],
        values: decodeFloats(await opened.read(name), dtype as 'F16' | 'F32').slice(),
      });
    }
    const plain = memoryFolder();
    await importing(safetensors(folded), plain);
    expect(Buffer.compare(plain.files.get('rife.safetensors')!, comfy.files.get('rife.safetensors')!)).toBe(0);
  });

  const changed = (change: (map: Map<string, TestTensor>) => void) => {
    const map = new Map<string, TestTensor>(tensors);
    change(map);
    return safetensors(map);
  };
  const zeros = (...shape: number[]) => ({ shape, values: new Float32Array(shape.reduce((a, b) => a * b, 1)) });
  it.each<[string, Uint8Array, RegExp]>([
    [
      'a missing tensor',
      changed((m) => m.delete('block4.lastconv.0.bias')),
      /"block4.lastconv.0.bias" \[52\] is missing/,
    ],
    ['another tensor', changed((m) => m.set('block4.more', zeros(1))), /"block4.more" does not belong/],
    ['another shape', changed((m) => m.set('encode.cnn0.weight', zeros(16, 4, 3, 3))), /expected \[16,3,3,3\]/],
    ['a beta of another shape', changed((m) => m.set('block0.convblock.0.beta', zeros(16))), /expected \[1,16,1,1\]/],
    ['a tensor under two names', changed((m) => m.set('module.encode.cnn0.bias', zeros(16))), /holds both/],
    ['integers', changed((m) => m.set('encode.cnn0.bias', { ...zeros(16), dtype: 'I32' })), /type I32/],
  ])('refuses %s, and writes nothing', async (_, bytes, why) => {
    const sink = memoryFolder();
    await expect(importing(bytes, sink)).rejects.toMatchObject({
      code: 'bad-checkpoint',
      message: expect.stringMatching(why),
    });
    expect(sink.files.size).toBe(0);
  });

  it.each([
    ['beyond half floats', 70_000],
    ['that is infinite', Number.POSITIVE_INFINITY],
  ])('refuses a weight %s, and leaves no manifest', async (_, value) => {
    const sink = memoryFolder();
    const values = tensors.get('encode.cnn0.weight')!.values.slice();
    values[3] = value;
    const bytes = changed((m) => m.set('encode.cnn0.weight', { shape: [16, 3, 3, 3], values }));
    await expect(importing(bytes, sink)).rejects.toMatchObject({ code: 'bad-checkpoint' });
    expect(sink.files.has('zoetrope.json')).toBe(false);
  });

  it.each(['a path', 'a URL'])('is a command that knows the file by its tensors, at %s', async (place) => {
    const folder = mkdtempSync(join(tmpdir(), 'zoetrope-rife-'));
    const log = vi.spyOn(console, 'log').mockImplementation(() => undefined);
    try {
      writeFileSync(join(folder, 'net.safetensors'), comfyRife(tensors));
      const server = place === 'a URL' ? await startServer({ folders: { '/': folder } }) : undefined;
      await using _ = { [Symbol.asyncDispose]: async () => server?.close() };
      const from = server ? `${server.url}net.safetensors` : join(folder, 'net.safetensors');
      const args = ['--from', from, '--to', join(folder, 'rife'), '--license', 'MIT'];
      await importCommand().parseAsync(args, { from: 'user' });
      expect(log.mock.calls.flat().join()).toMatch(/rife: RIFE of 16,16,8,16,8 channels, 4 encoded, \d\.\d MiB/);
      expect(readdirSync(join(folder, 'rife')).sort()).toEqual(['rife.safetensors', 'zoetrope.json']);
      expect((await openPart(diskFolder(join(folder, 'rife')), 'rife')).manifest.license).toBe('MIT');
    } finally {
      log.mockRestore();
      rmSync(folder, { recursive: true });
    }
  });
});
