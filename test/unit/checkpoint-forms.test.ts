import { describe, expect, it } from 'vitest';
import { byteValues } from '../../src/checkpoint/fp8';
import { importCheckpoint, writeModel } from '../../src/checkpoint/import';
import {
  DIFFUSERS_DIT,
  diffusersVae,
  HUGGING_FACE_UMT5,
  LLAMA_UMT5,
  type NameScheme,
  ORIGINAL_DIT,
  ORIGINAL_UMT5,
  ORIGINAL_VAE,
} from '../../src/checkpoint/names';
import { openCheckpoint } from '../../src/checkpoint/open';
import type { ImportSource } from '../../src/checkpoint/sources';
import { parseVaeConfig, type Shapes } from '../../src/config';
import { decodeF16, encodeF16, floatBytes } from '../../src/floats';
import { hashPiece, type Manifest, type Quantization } from '../../src/manifest';
import { openModel } from '../../src/store/verified';
import {
  checkpointFiles,
  checkpointTensors,
  SEEDS,
  SHAPES,
  safetensors,
  type TestTensor,
  tensorValues,
  VAE,
} from '../harness/checkpoint';
import { fromQ4, fromQ8, type GgufTestTensor, ggufFile, toQ4, toQ8 } from '../harness/gguf';
import { memoryFolder } from '../harness/memory-folder';
import { shardFile } from '../harness/shards';

/** The same weights saved by different programs must become the same model. */

type Component = keyof typeof SEEDS;
/** How a test stores a tensor, and the values that this means. */
interface Stored {
  values: Float32Array;
  tensors: [name: string, tensor: TestTensor][];
}
type Store = (name: string, values: Float32Array, shape: number[]) => Stored;

const shapesOf = (component: Component): Shapes =>
  SHAPES[component === 'transformer_2' ? 'transformer' : component] as Shapes;

const asF16: Store = (name, values, shape) => {
  const words = encodeF16(values);
  return { values: decodeF16(words), tensors: [[name, { shape, values: words }]] };
};
const isMatrix = (name: string, shape: number[]) =>
  shape.length === 2 && shape[1]! % 32 === 0 && name.startsWith('blocks.');

/** fp8_scaled: matrices of the blocks as fp8 with a scale, the rest F16. */
function fp8(dtype: 'F8_E4M3' | 'F8_E5M2', suffix: string, perRow: boolean): Store {
  const table = byteValues(dtype);
  const usable = [...table.keys()].filter((byte) => Number.isFinite(table[byte]!));
  return (name, values, shape) => {
    if (!isMatrix(name, shape)) return asF16(name, values, shape);
    const [rows, columns] = shape as [number, number];
    const scales = Float32Array.from({ length: perRow ? rows : 1 }, (_, row) => 0.001 * (1 + (row % 7)));
    const bytes = new Uint8Array(values.length);
    const rounded = new Float32Array(values.length);
    for (let i = 0; i < values.length; i++) {
      const scale = scales[perRow ? Math.floor(i / columns) : 0]!;
      // Any byte will do, as long as it depends on the value.
      bytes[i] = usable[Math.abs(Math.round(values[i]! * 1000)) % usable.length]!;
      rounded[i] = table[bytes[i]!]! * scale;
    }
    const owner = name.slice(0, -'.weight'.length);
    return {
      values: rounded,
      tensors: [
        [name, { shape, values: bytes, dtype }],
        [owner + suffix, { shape: perRow ? [rows, 1] : [], values: scales }],
        [`${owner}.scale_input`, { shape: [], values: Float32Array.of(1) }],
      ],
    };
  };
}

/** A component's tensors under a scheme's names, in a store's form, and the values that this means by internal name. */
function stored(component: Component, scheme: NameScheme, store: Store, prefix = '') {
  const values = new Map<string, Float32Array>();
  const tensors = new Map<string, TestTensor>();
  for (const [internal, shape] of shapesOf(component)) {
    const name = scheme.candidates(internal)[0]!;
    const made = store(name, tensorValues(SEEDS[component], internal, shape), shape);
    values.set(internal, made.values);
    for (const [own, tensor] of made.tensors) tensors.set(prefix + own, tensor);
  }
  return { values, tensors };
}

/** The same as GGUF: matrices of the blocks in a block type, everything else F16. */
function storedGguf(component: Component, scheme: NameScheme, type: 2 | 8 | 1) {
  const values = new Map<string, Float32Array>();
  const tensors = new Map<string, GgufTestTensor>();
  for (const [internal, shape] of shapesOf(component)) {
    const name = scheme.candidates(internal)[0]!;
    const wanted = tensorValues(SEEDS[component], internal, shape);
    const blocks = type !== 1 && shape.length === 2 && shape[1]! % 32 === 0 && /^(blocks|enc\.blk)\./.test(name);
    // ggml keeps no leading axes of length 1.
    const written = shape[0] === 1 ? shape.slice(1) : shape;
    if (blocks && type === 8) {
      const bytes = toQ8(wanted);
      values.set(internal, fromQ8(bytes));
      tensors.set(name, { type: 8, shape: written, bytes });
    } else if (blocks) {
      const bytes = toQ4(wanted);
      values.set(internal, fromQ4(bytes));
      tensors.set(name, { type: 2, shape: written, bytes });
    } else {
      const words = encodeF16(wanted);
      values.set(internal, decodeF16(words));
      tensors.set(name, { type: 1, shape: written, bytes: floatBytes(words) });
    }
  }
  return { values, tensors };
}

const vaeConfig = parseVaeConfig(VAE, 'test');
const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const TOKENIZER = checkpointFiles().get('tokenizer/tokenizer.json')!;

async function sources(files: Record<string, Uint8Array>): Promise<ImportSource[]> {
  const folder = memoryFolder(Object.entries(files));
  return Promise.all(Object.keys(files).map(async (path) => ({ path, file: await folder.open(path) })));
}

async function importFrom(files: Record<string, Uint8Array>, quantization: Quantization) {
  const sink = memoryFolder();
  const manifest = await writeModel({ sink, quantization, name: 'test' }, await openCheckpoint(await sources(files)));
  await openModel(sink);
  return { sink, manifest };
}

/** The diffusers checkpoint of these values, F32 in every tensor. */
async function importValues(values: Record<Component, Map<string, Float32Array>>, quantization: Quantization) {
  const all = checkpointTensors();
  const schemes = {
    text_encoder: HUGGING_FACE_UMT5,
    transformer: DIFFUSERS_DIT,
    transformer_2: DIFFUSERS_DIT,
    vae: diffusersVae(vaeConfig),
  };
  for (const component of Object.keys(all) as Component[]) {
    for (const [internal, shape] of shapesOf(component)) {
      const name = schemes[component].candidates(internal)[0]!;
      all[component].set(name, { shape, values: values[component].get(internal)! });
    }
  }
  const sink = memoryFolder();
  const folder = memoryFolder(checkpointFiles(all));
  const manifest = await importCheckpoint({ folder, sink, quantization, name: 'test' });
  return { sink, manifest };
}

async function expectSame(
  a: { sink: { files: Map<string, Uint8Array> }; manifest: Manifest },
  b: { sink: { files: Map<string, Uint8Array> }; manifest: Manifest },
) {
  const hashes = async ({ sink }: typeof a) =>
    Object.fromEntries(
      await Promise.all([...sink.files].map(async ([path, bytes]) => [path, await hashPiece(bytes)] as const)),
    );
  expect(b.manifest).toEqual(a.manifest);
  expect(await hashes(b)).toEqual(await hashes(a));
}

/** Components that come in shards when they are large. */
const SHARDED = [
  ['transformer', 'diffusion_pytorch_model'],
  ['transformer_2', 'diffusion_pytorch_model'],
  ['text_encoder', 'model'],
] as const;

describe.each(['q8', 'q4', 'f16'] as const)('in %s, identical shards come from diffusers and', (quantization) => {
  const vae = stored('vae', ORIGINAL_VAE, asF16);
  const text = stored('text_encoder', ORIGINAL_UMT5, asF16);

  it('original names, prefixed, with the encoder half of the VAE', async () => {
    const high = stored('transformer', ORIGINAL_DIT, asF16, 'model.diffusion_model.');
    const low = stored('transformer_2', ORIGINAL_DIT, asF16);
    vae.tensors.set('encoder.conv1.bias', { shape: [4], values: new Uint16Array(4) });
    const made = await importFrom(
      {
        'wan_high_noise.safetensors': safetensors(high.tensors),
        'wan_low_noise.safetensors': safetensors(low.tensors),
        'umt5.safetensors': safetensors(text.tensors),
        'vae.safetensors': safetensors(vae.tensors),
        'config.json': json({ _class_name: 'AutoencoderKLWan', ...VAE }),
        'tokenizer.json': TOKENIZER,
      },
      quantization,
    );
    const values = { text_encoder: text.values, transformer: high.values, transformer_2: low.values, vae: vae.values };
    await expectSame(made, await importValues(values, quantization));
  });

  it('diffusers in shards', async () => {
    const files = checkpointFiles();
    const whole = memoryFolder();
    const manifest = await importCheckpoint({ folder: memoryFolder(files), sink: whole, quantization, name: 'test' });
    for (const [folder, stem] of SHARDED) {
      const path = `${folder}/${stem}.safetensors`;
      for (const [name, bytes] of shardFile(files.get(path)!, stem, 3)) files.set(`${folder}/${name}`, bytes);
      files.delete(path);
    }
    const sink = memoryFolder();
    const sharded = await importCheckpoint({ folder: memoryFolder(files), sink, quantization, name: 'test' });
    await expectSame({ sink, manifest: sharded }, { sink: whole, manifest });
  });

  it.each([
    ['E4M3 with a scale a matrix', fp8('F8_E4M3', '.scale_weight', false)],
    ['E5M2 with a scale a row', fp8('F8_E5M2', '.weight_scale', true)],
  ] as const)('fp8, %s', async (_, store) => {
    const high = stored('transformer', ORIGINAL_DIT, store);
    const low = stored('transformer_2', ORIGINAL_DIT, store);
    high.tensors.set('scaled_fp8', { shape: [0], values: new Uint8Array(0), dtype: 'F8_E4M3' });
    const made = await importFrom(
      {
        'high.safetensors': safetensors(high.tensors),
        'low.safetensors': safetensors(low.tensors),
        'umt5.safetensors': safetensors(text.tensors),
        'vae.safetensors': safetensors(vae.tensors),
        'config.json': json({ _class_name: 'AutoencoderKLWan', ...VAE }),
        'tokenizer.json': TOKENIZER,
      },
      quantization,
    );
    const values = { text_encoder: text.values, transformer: high.values, transformer_2: low.values, vae: vae.values };
    await expectSame(made, await importValues(values, quantization));
  });

  it.each([
    ['F16', 1],
    ['Q8_0', 8],
    ['Q4_0', 2],
  ] as const)('GGUF of %s', async (_, type) => {
    const high = storedGguf('transformer', ORIGINAL_DIT, type);
    const low = storedGguf('transformer_2', ORIGINAL_DIT, type);
    const encoder = storedGguf('text_encoder', LLAMA_UMT5, type);
    const wan = { 'general.architecture': { type: 8, value: 'wan' } } as const;
    const made = await importFrom(
      {
        'A14B-HighNoise-Q.gguf': ggufFile(wan, high.tensors),
        'A14B-LowNoise-Q.gguf': ggufFile({}, low.tensors),
        'umt5.gguf': ggufFile({ 'general.architecture': { type: 8, value: 't5encoder' } }, encoder.tensors),
        'vae.safetensors': safetensors(vae.tensors),
        'config.json': json({ _class_name: 'AutoencoderKLWan', ...VAE }),
        'tokenizer.json': TOKENIZER,
      },
      quantization,
    );
    const values = {
      text_encoder: encoder.values,
      transformer: high.values,
      transformer_2: low.values,
      vae: vae.values,
    };
    const same = await importValues(values, quantization);
    if (type === 2 && quantization === 'q8') {
      // Q4_0 keeps its scales in 8 bits; quantising its values would choose others. The values themselves are the same.
      await expectSameValues(made, same, fromQ4Scales(high.tensors));
    } else await expectSame(made, same);
  });
});

/** Scales of the Q4_0 matrices by name. */
function fromQ4Scales(tensors: ReadonlyMap<string, GgufTestTensor>): Map<string, Uint8Array> {
  const scales = new Map<string, Uint8Array>();
  for (const [name, { type, bytes }] of tensors) {
    if (type !== 2) continue;
    const own = new Uint8Array((bytes.length / 18) * 2);
    for (let block = 0; block < bytes.length / 18; block++)
      own.set(bytes.subarray(18 * block, 18 * block + 2), 2 * block);
    scales.set(name, own);
  }
  return scales;
}

async function expectSameValues(
  made: { sink: ReturnType<typeof memoryFolder> },
  same: { sink: ReturnType<typeof memoryFolder> },
  scales: Map<string, Uint8Array>,
) {
  const [a, b] = [(await openModel(made.sink)).component('high'), (await openModel(same.sink)).component('high')];
  expect(scales.size).toBeGreaterThan(10);
  for (const [name, own] of scales) {
    expect(await a.read(`${name}.scales`)).toEqual(own);
    const packed = [await a.read(name), await b.read(name)] as const;
    const theirs = decodeF16(new Uint16Array((await b.read(`${name}.scales`)).slice().buffer));
    const ours = decodeF16(new Uint16Array(own.slice().buffer));
    for (let i = 0; i < packed[0].length; i += 97) {
      const value = (packed[0][i]! - 128) * ours[i >> 5]!;
      const other = (packed[1][i]! - 128) * theirs[i >> 5]!;
      expect(Math.abs(value - other)).toBeLessThan(0.005);
      expect(packed[0][i]).toBeGreaterThanOrEqual(120);
      expect(packed[0][i]).toBeLessThan(136);
    }
  }
}
