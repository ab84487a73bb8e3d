import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { openTensors } from '../../src/checkpoint/file-tensors';
import { readGguf } from '../../src/checkpoint/gguf';
import { ZoetropeError } from '../../src/errors';
import { hashPiece } from '../../src/manifest';
import { readTensors } from '../fixtures/case';
import { safetensors } from '../harness/checkpoint';
import { ggufFile } from '../harness/gguf';
import { memoryFolder } from '../harness/memory-folder';
import { seededUniform } from '../harness/near';
import { readCase } from '../harness/sampling-fixtures';

const GOLDEN = new URL('../golden/', import.meta.url);
const BAD = new URL('../../../shared/fixtures/safetensors-bad/', import.meta.url);
const hasBad = existsSync(BAD);
/** The golden file of all types. */
const types = new Uint8Array(readFileSync(new URL('gguf-types.gguf', GOLDEN)));

async function open(bytes: Uint8Array) {
  return openTensors(await memoryFolder([['a', bytes]]).open('a'), 'a');
}

const product = (shape: readonly number[]) => shape.reduce((all, size) => all * size, 1);

describe('every type', () => {
  const expected = readTensors(new URL('gguf-types.safetensors', GOLDEN).pathname);

  it.each([...expected])(
    '%s decodes to the reference’s values, whole and row by row',
    async (name, { values, shape }) => {
      const tensor = (await open(types)).tensors.get(name)!;
      expect(tensor.shape).toEqual(shape);
      const whole = await tensor.readFloats!(0, product(shape));
      const block = /_k$|_xs$/.test(name) ? 256 : 32;
      for (let i = 0; i < values.length; i++) {
        const begin = i - (i % block);
        // Other orders of multiplication round differently: 4e-7 of the block's largest value.
        const largest = (values as Float32Array)
          .subarray(begin, begin + block)
          .reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        expect(Math.abs(whole[i]! - values[i]!)).toBeLessThanOrEqual(4e-7 * largest);
      }
      const row = shape[1]!;
      expect(await tensor.readFloats!(row, 2 * row)).toEqual(whole.slice(row, 2 * row));
    },
  );

  it('refuses ranges inside a block', async () => {
    const { tensors } = await open(types);
    await expect(tensors.get('t.q4_k')!.readFloats!(0, 32)).rejects.toMatchObject({ code: 'internal' });
  });
});

describe('keys', () => {
  it('are read with their types, lists only when asked for', async () => {
    const file = ggufFile(
      {
        name: { type: 8, value: 'ünï' },
        count: { type: 4, value: 7 },
        words: { type: 9, of: 8, value: ['a', '', '▁x'] },
        scores: { type: 9, of: 6, value: [0.5, -2] },
      },
      new Map(),
    );
    const { keys } = await readGguf(await memoryFolder([['a', file]]).open('a'), 'a');
    expect(keys.get('name')).toBe('ünï');
    expect(keys.get('count')).toBe(7);
    const list = (key: string) => (keys.get(key) as { values(): unknown[] }).values();
    expect(list('words')).toEqual(['a', '', '▁x']);
    expect(list('scores')).toEqual([0.5, -2]);
  });

  it('note the shape that a tensor had before it was reshaped', async () => {
    const tensors = new Map([['x', { type: 0, shape: [4, 6], bytes: new Uint8Array(96) }]]);
    const shape = (value: number[]) => ({ 'comfy.gguf.orig_shape.x': { type: 9, of: 5, value } }) as const;
    expect((await open(ggufFile(shape([2, 2, 6]), tensors))).tensors.get('x')!.shape).toEqual([2, 2, 6]);
    await expect(open(ggufFile(shape([2, 3, 6]), tensors))).rejects.toThrow('original shape');
  });

  it('longer than the first read are read too', async () => {
    const words = Array.from({ length: 60_000 }, (_, i) => `a rather long piece ${i}`);
    const file = ggufFile({ words: { type: 9, of: 8, value: words } }, new Map());
    const folder = memoryFolder([['a', file]]);
    const { keys } = await readGguf(await folder.open('a'), 'a');
    expect((keys.get('words') as { values(): unknown[] }).values()).toEqual(words);
    // Nothing is read more often than the doubling needs.
    expect(folder.reads.reduce((sum, { begin, end }) => sum + end - begin, 0)).toBeLessThan(2 * file.length + 1);
  });
});

describe('fp8 with a scale a row', () => {
  it('reads rows in the middle with their own scales', async () => {
    const scales = Float32Array.of(1, 2, 4, 8);
    const bytes = new Uint8Array(12).fill(0x38); // 1
    const tensors = new Map([
      ['x.weight', { shape: [4, 3], values: bytes, dtype: 'F8_E4M3' }],
      ['x.weight_scale', { shape: [4, 1], values: scales }],
    ]);
    const { readFloats } = (await open(safetensors(tensors))).tensors.get('x.weight')!;
    expect([...(await readFloats!(6, 12))]).toEqual([4, 4, 4, 8, 8, 8]);
  });
});

interface BadCase {
  files_list: {
    file: string;
    must: 'refuse' | 'accept' | 'either';
    tensors?: { name: string; type: string; dims_innermost_first: number[]; sha256: string }[];
  }[];
}

describe.skipIf(!hasBad)('malformed and unusual files of the fixtures', () => {
  const cases = hasBad
    ? readCase<BadCase>('fixtures/safetensors-bad').files_list.filter(({ file }) => file.endsWith('.gguf'))
    : [];

  it.each(cases)('$file: $must', async ({ file, must, tensors = [] }) => {
    const folder = memoryFolder([['a', new Uint8Array(readFileSync(new URL(file, BAD)))]]);
    const source = await folder.open('a');
    const outcome = await readGguf(source, file).catch((error) => error);
    if (must === 'refuse' || (must === 'either' && outcome instanceof Error)) {
      expect(outcome).toMatchObject({ name: 'ZoetropeError:bad-checkpoint' });
      return;
    }
    if (outcome instanceof Error) throw outcome;
    for (const { name, type, dims_innermost_first, sha256 } of tensors) {
      const tensor = outcome.tensors.get(name)!;
      expect(tensor.type.name).toBe(type);
      expect(tensor.shape).toEqual([...dims_innermost_first].reverse());
      expect(await hashPiece(await source.read(...(tensor.range as [number, number])))).toBe(sha256);
    }
  });
});

/** A small file of each format whose tensors a damaged header must not give wrongly. */
const FILES: Record<string, Uint8Array> = {
  GGUF: ggufFile(
    { 'general.architecture': { type: 8, value: 'wan' }, 'general.alignment': { type: 4, value: 32 } },
    new Map([
      ['blocks.0.self_attn.q.weight', { type: 8, shape: [2, 64], bytes: new Uint8Array(136).map((_, i) => i) }],
      ['blocks.0.norm3.weight', { type: 1, shape: [9], bytes: new Uint8Array(18).map((_, i) => i) }],
      ['patch_embedding.weight', { type: 0, shape: [2, 1, 1, 2, 2], bytes: new Uint8Array(32).map((_, i) => i) }],
    ]),
  ),
  safetensors: safetensors(
    new Map([
      ['a.weight', { shape: [3, 5], values: new Uint8Array(15).map((_, i) => i), dtype: 'F8_E4M3' }],
      ['a.scale_weight', { shape: [], values: Float32Array.of(0.5) }],
      ['b', { shape: [7], values: new Uint16Array(7).map((_, i) => i) }],
    ]),
  ),
};

/** A number for every tensor: its storage, shape and values. */
async function contents(bytes: Uint8Array): Promise<Map<string, string>> {
  const { tensors } = await open(bytes);
  const all = new Map<string, string>();
  for (const [name, { shape, storage, readFloats }] of tensors) {
    all.set(name, `${storage} [${shape}] ${readFloats ? [...(await readFloats(0, product(shape)))] : ''}`);
  }
  return all;
}

describe.each(Object.entries(FILES))('a damaged %s file', (format, file) => {
  it('cut at any byte is refused', async () => {
    // GGUF's padding behind the last tensor may be missing.
    const needed = format === 'GGUF' ? file.length - 31 : file.length;
    for (let length = 0; length < needed; length++) {
      await expect(open(file.slice(0, length)), `${length} bytes`).rejects.toMatchObject({ code: 'bad-checkpoint' });
    }
  });

  it('with a flipped bit in its header is refused or gives no tensor another content', async () => {
    const whole = await contents(file);
    const { tensors } = await open(file);
    const dataBytes = [...tensors.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const headerBytes = file.length - dataBytes - (format === 'GGUF' ? 96 : 0);
    let refused = 0;
    for (let bit = 0; bit < 8 * headerBytes; bit++) {
      const damaged = file.slice();
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      const outcome = await contents(damaged).catch((error) => error);
      if (outcome instanceof Error) {
        refused++;
        expect(outcome).toBeInstanceOf(ZoetropeError);
        expect((outcome as ZoetropeError).code).toBe('bad-checkpoint');
        continue;
      }
      // Names and shapes may change, which the model's list of tensors finds; what keeps both must keep its content. A
      // scale that has lost its name leaves plain fp8, under which the scale's new name belongs to no model.
      for (const [name, content] of outcome as Map<string, string>) {
        const known = whole.get(name);
        const shape = (text: string) => /\[[\d,]*\]/.exec(text)![0];
        if (known === undefined || known === content || shape(known) !== shape(content)) continue;
        expect(name === 'a.weight' && !content.includes('scaled'), `bit ${bit}: ${name}`).toBe(true);
      }
    }
    expect(refused).toBeGreaterThan(4 * headerBytes * 0.5);
  });

  it('of random bytes behind its first ones is refused quickly', { timeout: 30_000 }, async () => {
    const uniform = seededUniform(5);
    for (let round = 0; round < 1000; round++) {
      const damaged = file.slice(0, 16 + Math.floor(uniform() * file.length));
      const from = Math.floor(uniform() * damaged.length);
      const until = Math.min(damaged.length, from + 1 + Math.floor(uniform() * 24));
      for (let i = from; i < until; i++) damaged[i] = Math.floor(uniform() * 256);
      const outcome = await contents(damaged).catch((error) => error);
      if (outcome instanceof Error) expect(outcome).toBeInstanceOf(ZoetropeError);
    }
  });
});
