import { beforeAll, describe, expect, it } from 'vitest';
import { importCheckpoint } from '../../src/checkpoint/import';
import { HUGGING_FACE_UMT5 } from '../../src/checkpoint/names';
import { parseUmt5Config, umt5Shapes } from '../../src/config';
import {
  type Acceleration,
  hashPiece,
  MAX_PIECE_BYTES,
  type MagnitudeRatios,
  type Manifest,
  type ManifestFile,
  tensorBytes,
} from '../../src/manifest';
import { parseManifest } from '../../src/store/manifest-reader';
import { openModel, type VerifiedModel } from '../../src/store/verified';
import {
  checkpointFiles,
  checkpointTensors,
  componentTensors,
  replaceJson,
  SEEDS,
  TEXT_ENCODER,
} from '../harness/checkpoint';
import { type MemoryFolder, memoryFolder } from '../harness/memory-folder';

/** Odd and small, so that tensors cross the borders of pieces. */
const PIECE_BYTES = 100_003;

/** Some tests hash tens of megabytes. */
const SLOW = { timeout: 30_000 };

let model: MemoryFolder;
let manifest: Manifest;

beforeAll(async () => {
  model = memoryFolder();
  manifest = await importCheckpoint({
    folder: memoryFolder(checkpointFiles()),
    sink: model,
    quantization: 'q4',
    name: 't',
  });
});

/** A copy of the model with some files replaced. */
function copyWith(...files: [path: string, bytes: Uint8Array][]): MemoryFolder {
  return memoryFolder([...model.files, ...files]);
}

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

/** Reads everything that a model holds. */
async function readAll(opened: VerifiedModel): Promise<Uint8Array[]> {
  const parts: Uint8Array[] = [];
  for (const name of ['tokenizer', 'text_encoder', 'high', 'low', 'vae'] as const) {
    const component = opened.component(name);
    for (const tensor of component.entries.keys()) parts.push(await component.read(tensor));
    if (name === 'tokenizer') parts.push(await component.readFile('tokenizer.json'));
    component.release();
  }
  return parts;
}

/** The same file cut into pieces of at most `sizeBytes`. */
async function repiece(file: ManifestFile, bytes: Uint8Array, sizeBytes: number): Promise<ManifestFile> {
  const pieces = [];
  for (let begin = 0; begin < bytes.length; begin += sizeBytes) {
    const piece = bytes.subarray(begin, begin + sizeBytes);
    pieces.push({ sizeBytes: piece.length, sha256: await hashPiece(piece) });
  }
  return { ...file, pieces };
}

/** The model with small, odd pieces, so that tensors cross their borders. */
async function withSmallPieces(): Promise<MemoryFolder> {
  const cut = structuredClone(manifest);
  for (const files of Object.values(cut.components)) {
    for (const [i, file] of files.entries()) files[i] = await repiece(file, model.files.get(file.path)!, PIECE_BYTES);
  }
  return copyWith(['zoetrope.json', json(cut)]);
}

describe('reading', () => {
  it('gives the bytes of the files, across pieces and in part', async () => {
    const opened = await openModel(await withSmallPieces());
    for (const name of ['text_encoder', 'high', 'vae'] as const) {
      const component = opened.component(name);
      const file = model.files.get(`${name}.safetensors`)!;
      for (const [tensor, { range }] of Object.entries(manifest.components[name]![0]!.tensors!)) {
        expect(await component.read(tensor)).toEqual(file.slice(...range));
        const half = (range[1] - range[0]) >> 1;
        expect(await component.readRange(tensor, half, half + 2)).toEqual(
          file.slice(range[0] + half, range[0] + half + 2),
        );
      }
    }
  });

  it('hands tensors on in slices that need not be held', SLOW, async () => {
    const vocab = 2 ** 16 + 1; // 4 MiB and a little
    const shapes = umt5Shapes(parseUmt5Config({ ...TEXT_ENCODER, vocab_size: vocab }, 'test'));
    const tensors = checkpointTensors();
    tensors.text_encoder = componentTensors(SEEDS.text_encoder, shapes, HUGGING_FACE_UMT5);
    const files = checkpointFiles(tensors);
    replaceJson(files, 'text_encoder/config.json', { vocab_size: vocab });
    const large = memoryFolder();
    await importCheckpoint({ folder: memoryFolder(files), sink: large, quantization: 'q4', name: 't' });
    const component = (await openModel(large)).component('text_encoder');
    let largest = 0;
    for (const [name, entry] of component.entries) {
      const bytes = await component.read(name);
      const [begin, end] = [bytes.length > 64 ? 16 : 0, tensorBytes(entry)];
      const scanned = new Uint8Array(end - begin);
      await component.scan!(name, begin, end, (offset, part) => {
        scanned.set(part, offset);
        largest = Math.max(largest, part.length);
        part.fill(1); // Good until it returns, and nobody else's.
      });
      expect(Buffer.compare(scanned, bytes.subarray(begin, end)), name).toBe(0);
    }
    expect(largest).toBe(2 ** 20);
    await expect(component.scan!('shared.weight', 0, 2 ** 40, () => undefined)).rejects.toThrow('asked for');
  });

  it('tells the size of the model and the progress of a component', async () => {
    const seen: number[] = [];
    const opened = await openModel(await withSmallPieces());
    expect(opened.sizeBytes).toBe(
      [...model.files].reduce((sum, [path, file]) => sum + (path === 'zoetrope.json' ? 0 : file.length), 0),
    );
    const high = opened.component('high', { onProgress: ({ doneBytes }) => seen.push(doneBytes) });
    for (const name of high.entries.keys()) await high.read(name);
    for (const name of high.entries.keys()) await high.read(name);
    // The header's piece is not read unless a tensor shares it, which it does here.
    expect(seen.at(-1)).toBe(model.files.get('high.safetensors')!.length);
    expect(new Set(seen).size).toBe(seen.length);
  });

  it('fetches each piece once, also for readers at the same time, until it is released', async () => {
    const folder = copyWith();
    const high = (await openModel(folder)).component('high');
    const names = [...high.entries.keys()];
    await Promise.all(names.map((name) => high.read(name)));
    const fetches = () => folder.reads.filter(({ path }) => path === 'high.safetensors').length;
    expect(fetches()).toBe(1);
    high.release();
    await high.read(names[0]!);
    expect(fetches()).toBe(2);
  });

  it('hands out copies, so that a caller cannot spoil what the next one gets', async () => {
    const vae = (await openModel(copyWith())).component('vae');
    const first = await vae.read('conv2.bias');
    first.fill(255);
    expect(await vae.read('conv2.bias')).not.toEqual(first);
  });

  it('refuses ranges outside a tensor and tensors that are not there', async () => {
    const vae = (await openModel(copyWith())).component('vae');
    await expect(vae.readRange('conv2.bias', 0, 65)).rejects.toThrow('it has 64');
    await expect(vae.readRange('conv2.bias', -1, 4)).rejects.toMatchObject({ code: 'internal' });
    await expect(vae.read('conv2')).rejects.toThrow('"conv2"');
  });

  it('names a component that the model lacks', async () => {
    const single = { ...manifest, boundary: null, components: { ...manifest.components } };
    delete single.components.low;
    const opened = await openModel(copyWith(['zoetrope.json', json(single)]));
    expect(() => opened.component('low')).toThrow('no component "low"');
  });

  it('stops at the signal', async () => {
    const controller = new AbortController();
    const high = (await openModel(copyWith())).component('high', { signal: controller.signal });
    controller.abort();
    await expect(high.read('head.head.bias')).rejects.toMatchObject({ code: 'aborted' });
    await expect(openModel(copyWith(), { signal: controller.signal })).rejects.toMatchObject({ code: 'aborted' });
  });

  it('keeps no more than three pieces', SLOW, async () => {
    const bytes = new Uint8Array(6 * MAX_PIECE_BYTES).map((_, i) => i >> 12);
    const file = await repiece(manifest.components.tokenizer![0]!, bytes, MAX_PIECE_BYTES);
    const big = {
      ...manifest,
      components: { ...manifest.components, tokenizer: [{ ...file, sizeBytes: bytes.length }] },
    };
    const folder = copyWith(['zoetrope.json', json(big)], ['tokenizer.json', bytes]);
    const tokenizer = (await openModel(folder)).component('tokenizer');
    expect(await hashPiece(await tokenizer.readFile('tokenizer.json'))).toBe(await hashPiece(bytes));
    expect(folder.reads.filter(({ path }) => path === 'tokenizer.json')).toHaveLength(6);
    // The last three are still there, the first three are not.
    await tokenizer.readFile('tokenizer.json');
    expect(folder.reads.filter(({ path }) => path === 'tokenizer.json').length).toBeGreaterThan(6);
  });
});

describe('broken bytes', () => {
  it('are refused in each piece of each file, naming both, and nothing of the piece is handed on', SLOW, async () => {
    const small = await withSmallPieces();
    const cut = parseManifest(small.files.get('zoetrope.json')!);
    for (const [component, files] of Object.entries(cut.components) as ['high', ManifestFile[]][]) {
      for (const { path, pieces, tensors } of files) {
        const original = small.files.get(path)!;
        for (const [index, piece] of pieces.entries()) {
          const flipped = original.slice();
          const at = index * PIECE_BYTES + ((index * 7919) % piece.sizeBytes);
          flipped[at]! ^= 1 << (index % 8);
          small.files.set(path, flipped);
          const opened = (await openModel(small)).component(component);
          const bad = [index * PIECE_BYTES, index * PIECE_BYTES + piece.sizeBytes] as const;
          const expected = {
            code: 'corrupt-data',
            message: expect.stringContaining(`${path}: piece ${index + 1} of ${pieces.length}`),
          };
          if (!tensors) await expect(opened.readFile(path)).rejects.toMatchObject(expected);
          for (const [name, { range }] of Object.entries(tensors ?? {})) {
            const reading = opened.read(name);
            const touches = range[0] < bad[1] && range[1] > bad[0];
            if (touches) await expect(reading).rejects.toMatchObject(expected);
            else expect(await reading).toEqual(original.slice(...range));
          }
        }
        small.files.set(path, original);
      }
    }
  });

  it.each([-1, -5000, 1])('are refused when a file is %i bytes too long', async (difference) => {
    for (const path of ['tokenizer.json', 'text_encoder.safetensors', 'high.safetensors', 'vae.safetensors']) {
      const original = model.files.get(path)!;
      const changed = new Uint8Array(Math.max(0, original.length + difference));
      changed.set(original.subarray(0, changed.length));
      const reading = openModel(copyWith([path, changed])).then(readAll);
      await expect(reading).rejects.toMatchObject({ code: 'corrupt-data' });
      await expect(reading).rejects.toThrow(`${path} has ${changed.length} bytes`);
      await expect(reading).rejects.toThrow('piece 1 of 1');
    }
  });

  it('are asked for again after a failure', async () => {
    const folder = copyWith();
    const original = folder.files.get('vae.safetensors')!;
    const flipped = original.slice();
    flipped[flipped.length - 1]! ^= 1;
    folder.files.set('vae.safetensors', flipped);
    const opened = await openModel(folder);
    await expect(opened.component('vae').read('conv2.bias')).rejects.toMatchObject({ code: 'corrupt-data' });
    folder.files.set('vae.safetensors', original);
    const vae = opened.component('vae');
    expect(await vae.read('conv2.bias')).toHaveLength(64);
  });

  it('of a source that gives fewer than asked for are refused', async () => {
    const folder = copyWith();
    const short = {
      open: async (path: string) => {
        const source = await folder.open(path);
        if (path !== 'vae.safetensors') return source;
        return { ...source, read: async (begin: number, end: number) => (await source.read(begin, end)).subarray(1) };
      },
    };
    const reading = openModel(short).then((opened) => opened.component('vae').read('conv2.bias'));
    await expect(reading).rejects.toThrow(/vae\.safetensors: piece 1 of 1 .* has \d+ bytes/);
  });
});

describe('a manifest', () => {
  type Change = (changed: Manifest) => void;
  const high = (changed: Manifest) => changed.components.high![0]!;
  const ratios = (change: Partial<Acceleration>, ofHigh: Partial<MagnitudeRatios> = {}): Acceleration => {
    const expert = { sigmas: [0.9, 0.8], conditional: [1, 0.99], unconditional: [1, 0.99] };
    return { threshold: 0.06, maxSkips: 2, retention: 0.2, high: { ...expert, ...ofHigh }, low: expert, ...change };
  };

  it.each<[string, Change, string]>([
    ['escapes its folder', (m) => (high(m).path = '../high.safetensors'), 'stays inside its folder'],
    ['names an absolute path', (m) => (high(m).path = '/etc/passwd'), 'stays inside its folder'],
    ['names a URL', (m) => (high(m).path = 'https://x.test/a'), 'stays inside its folder'],
    ['names a Windows path', (m) => (high(m).path = '..\\a'), 'stays inside its folder'],
    ['hides an escape', (m) => (high(m).path = 'a/%2e%2e/b'), 'stays inside its folder'],
    ['begins with a dot', (m) => (high(m).path = '.git/config'), 'stays inside its folder'],
    ['lists a file twice', (m) => (high(m).path = 'LOW.safetensors'), 'listed twice'],
    ['lists itself', (m) => (high(m).path = 'zoetrope.json'), 'listed twice'],
    ['has pieces that do not add up', (m) => (high(m).pieces[0]!.sizeBytes -= 1), 'its pieces'],
    [
      'has a piece beyond 16 MiB',
      (m) => (high(m).pieces[0]!.sizeBytes = MAX_PIECE_BYTES + 1),
      'components.high.0.pieces.0',
    ],
    [
      'has an empty piece',
      (m) => high(m).pieces.push({ sizeBytes: 0, sha256: '0'.repeat(64) }),
      'components.high.0.pieces.1',
    ],
    ['has a hash that is none', (m) => (high(m).pieces[0]!.sha256 = 'A'.repeat(64)), 'hexadecimal'],
    ['lacks a tensor', (m) => delete high(m).tensors!['head.head.bias'], '"head.head.bias" [64] is missing'],
    ['lacks scales', (m) => delete high(m).tensors!['head.head.weight.scales'], '"head.head.weight"'],
    [
      'has a wrong shape',
      (m) => (high(m).tensors!['head.head.bias']!.shape = [32, 2]),
      '"head.head.bias" has shape [32,2]',
    ],
    [
      'has an unknown tensor',
      (m) => (high(m).tensors!.extra = { dtype: 'U8', shape: [0], range: [0, 0] }),
      '"extra" does not belong',
    ],
    [
      'has a range that does not fit the shape',
      (m) => (high(m).tensors!['head.head.bias']!.range[1] += 4),
      '"head.head.bias" of F32',
    ],
    [
      'has a range outside the file',
      (m) => (high(m).tensors!['head.head.bias']!.range = [1e9, 1e9 + 256]),
      '"head.head.bias" of F32',
    ],
    [
      'has overlapping tensors',
      (m) =>
        (high(m).tensors!['head.modulation']!.range = high(m).tensors!['head.modulation']!.range.map(
          (at) => at - 4,
        ) as [number, number]),
      'overlaps',
    ],
    [
      'has scales in another type',
      (m) => Object.assign(high(m).tensors!['head.head.weight.scales']!, { dtype: 'BF16' }),
      'does not fit',
    ],
    [
      'has a dtype that is never written',
      (m) => (high(m).tensors!['head.head.bias']!.dtype = 'I32'),
      'tensors.head.head.bias.dtype',
    ],
    ['is of an image-to-video model', (m) => (m.dit.inChannels = 36), 'image-to-video'],
    ['has a hostile depth', (m) => (m.dit.numLayers = 1e9), 'dit.numLayers'],
    ['has a hostile width', (m) => (m.umt5.dFf = 1e12), 'umt5.dFf'],
    ['has heads that do not fit', (m) => (m.dit.numHeads = 2), 'heads'],
    ['has text of another width', (m) => (m.umt5.dModel = 64), 'text_dim'],
    ['has a short preview', (m) => m.preview.weights.pop(), 'preview'],
    ['has a size that is no multiple of 16', (m) => (m.sizes['480p']['1:1'] = [64, 72]), 'sizes.480p.1:1.1'],
    ['lacks a size', (m) => Reflect.deleteProperty(m.sizes['720p'], '9:16'), 'sizes.720p.9:16'],
    ['has two experts and no boundary', (m) => (m.boundary = null), 'boundary'],
    ['lacks a component', (m) => delete m.components.vae, 'components.vae'],
    ['has ratios of one expert of two', (m) => (m.acceleration = ratios({ low: undefined })), 'same experts'],
    ['has levels that rise', (m) => (m.acceleration = ratios({}, { sigmas: [0.9, 0.9] })), 'must fall'],
    ['has fewer ratios than levels', (m) => (m.acceleration = ratios({}, { sigmas: [0.9, 0.8, 0.7] })), '3 levels'],
    ['has a ratio of zero', (m) => (m.acceleration = ratios({}, { conditional: [1, 0] })), 'conditional.1'],
    ['has a level above 1', (m) => (m.acceleration = ratios({}, { sigmas: [1.1, 0.9] })), 'sigmas.0'],
    ['has a single level', (m) => (m.acceleration = ratios({}, { sigmas: [0.9] })), 'sigmas'],
    ['has a hostile threshold', (m) => (m.acceleration = ratios({ threshold: 1e9 })), 'acceleration.threshold'],
    ['skips nothing in a row', (m) => (m.acceleration = ratios({ maxSkips: 0 })), 'acceleration.maxSkips'],
    ['retains more than all', (m) => (m.acceleration = ratios({ retention: 1.5 })), 'acceleration.retention'],
    ['is of a later format', (m) => Object.assign(m, { format: 2 }), 'format'],
  ])('that %s is refused', async (_, change, message) => {
    const changed: Manifest = JSON.parse(JSON.stringify(manifest));
    change(changed);
    const folder = copyWith(['zoetrope.json', json(changed)]);
    const opening = openModel(folder);
    await expect(opening).rejects.toMatchObject({ code: 'bad-checkpoint' });
    await expect(opening).rejects.toThrow(message);
    expect(folder.reads.every(({ path }) => path === 'zoetrope.json')).toBe(true);
  });

  it('that two shards of a component contradict is refused', async () => {
    const changed = structuredClone(manifest);
    changed.components.high!.push({ ...high(changed), path: 'high-2.safetensors' });
    await expect(openModel(copyWith(['zoetrope.json', json(changed)]))).rejects.toThrow('both hold');
  });

  it.each([
    ['an empty file', '', 'not JSON'],
    ['a page', '<!doctype html>', 'not JSON'],
    ['null', 'null', 'the top level'],
    ['deep nesting', '['.repeat(100_000), 'not JSON'],
    ['closed deep nesting', '['.repeat(100_000) + ']'.repeat(100_000), 'the top level'],
    ['half a manifest', '{"format":1}', 'name'],
    ['a prototype', '{"__proto__":{"format":1}}', 'format'],
  ])('that is %s is refused', async (_, text, message) => {
    const opening = openModel(memoryFolder([['zoetrope.json', new TextEncoder().encode(text)]]));
    await expect(opening).rejects.toMatchObject({ code: 'bad-checkpoint' });
    await expect(opening).rejects.toThrow(message);
  });

  it('beyond 16 MiB is refused unread', async () => {
    const folder = { open: async () => ({ sizeBytes: 2 ** 24 + 1, read: () => Promise.reject(new Error('read')) }) };
    await expect(openModel(folder)).rejects.toThrow('16777217 bytes');
  });

  it('that is not there is an unreadable source', async () => {
    await expect(openModel(memoryFolder())).rejects.toMatchObject({ code: 'unreadable-source' });
  });
});
