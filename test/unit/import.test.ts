import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { importCheckpoint } from '../../src/checkpoint/import';
import { HUGGING_FACE_UMT5 } from '../../src/checkpoint/names';
import { packZeroPoints4, quantizeRows } from '../../src/checkpoint/quantize';
import { encodeHeader, readHeader } from '../../src/checkpoint/safetensors';
import { PieceWriter } from '../../src/checkpoint/shard';
import { planShards, storageOf } from '../../src/checkpoint/storage';
import { parseUmt5Config, umt5Shapes } from '../../src/config';
import { decodeF16, encodeF16, floatBytes } from '../../src/floats';
import { componentShapes, hashPiece, MAX_PIECE_BYTES, type Quantization } from '../../src/manifest';
import { parseManifest } from '../../src/store/manifest-reader';
import { openModel } from '../../src/store/verified';
import {
  checkpointFiles,
  checkpointTensors,
  componentTensors,
  replaceJson,
  SEEDS,
  SHAPES,
  TEXT_ENCODER,
  tensorValues,
} from '../harness/checkpoint';
import { hashes, memoryFolder } from '../harness/memory-folder';
import { dequantize, readFloat64 } from '../reference/dequantize';

function importFiles(files: Map<string, Uint8Array>, quantization: Quantization = 'q8', more = {}) {
  const sink = memoryFolder();
  const run = importCheckpoint({ folder: memoryFolder(files), sink, quantization, name: 'test', ...more });
  return { sink, run };
}

const hashOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

describe('the written model', () => {
  it.each(['q8', 'q4', 'f16'] as const)(
    'holds every value in its place, within what %s loses',
    async (quantization) => {
      const { sink, run } = importFiles(checkpointFiles(), quantization);
      const manifest = await run;
      const model = await openModel(sink);
      // Errors relative to the tensor: f16 rounds twice (source and storage are the same here), blocks lose what the
      // quantiser's tests allow.
      const limit = { q8: 0.007, q4: 0.11, f16: 2 ** -11 }[quantization];
      for (const [component, seed, shapes] of [
        ['text_encoder', SEEDS.text_encoder, SHAPES.text_encoder],
        ['high', SEEDS.transformer, SHAPES.transformer],
        ['low', SEEDS.transformer_2, SHAPES.transformer],
        ['vae', SEEDS.vae, SHAPES.vae],
      ] as const) {
        const source = model.component(component);
        expect(shapes).toEqual(componentShapes(manifest, component));
        for (const [name, shape] of shapes) {
          const expected = tensorValues(seed, name, shape);
          const entry = source.entries.get(name)!;
          const bytes = await source.read(name);
          let values: Float64Array;
          if (entry.dtype === 'U8') {
            const [rows, columns] = shape as [number, number];
            const scalesName = `${name}.scales`;
            const scales = readFloat64(source.entries.get(scalesName)!, await source.read(scalesName));
            const zerosName = `${name}.zero_points`;
            const zeros = source.entries.has(zerosName) ? await source.read(zerosName) : undefined;
            values = dequantize(rows, columns, (entry.shape[2]! * 8) / 32, bytes, scales, zeros);
          } else {
            values = readFloat64(entry, bytes);
          }
          expect(values).toHaveLength(expected.length);
          const error = Math.hypot(...values.map((value, i) => value - expected[i]!)) / Math.hypot(...expected);
          expect(error, `${component} ${name} of ${entry.dtype}`).toBeLessThan(limit);
        }
      }
    },
  );

  it('is the same when a matrix is too large to convert at once', { timeout: 30_000 }, async () => {
    // 70,016 x 32 and 32 x 70,016: more than the 2 Mi values of a slice, and not a multiple of it.
    const shapes = umt5Shapes(parseUmt5Config({ ...TEXT_ENCODER, d_ff: 70_016 }, 'test'));
    const tensors = checkpointTensors();
    tensors.text_encoder = componentTensors(SEEDS.text_encoder, shapes, HUGGING_FACE_UMT5);
    const files = checkpointFiles(tensors);
    replaceJson(files, 'text_encoder/config.json', { d_ff: 70_016 });
    const { sink, run } = importFiles(files, 'q4');
    await run;
    const source = (await openModel(sink)).component('text_encoder');
    for (const name of ['wi_0', 'wo'].map((part) => `encoder.block.0.layer.1.DenseReluDense.${part}.weight`)) {
      const [rows, columns] = shapes.get(name) as [number, number];
      const whole = quantizeRows(decodeF16(encodeF16(tensorValues(SEEDS.text_encoder, name, [rows, columns]))), 4);
      expect(hashOf(await source.read(name))).toBe(hashOf(whole.packed));
      expect(hashOf(await source.read(`${name}.scales`))).toBe(hashOf(floatBytes(encodeF16(whole.scales))));
      expect(hashOf(await source.read(`${name}.zero_points`))).toBe(hashOf(packZeroPoints4(whole.zeroPoints, rows)!));
    }
  });

  it('stores products quantised, vectors as F32 and the rest as F16, in the order of use', async () => {
    const { sink, run } = importFiles(checkpointFiles());
    const { components } = await run;
    const dtypes = Object.fromEntries(
      Object.entries(components.high![0]!.tensors!).map(([name, { dtype }]) => [name, dtype]),
    );
    expect(dtypes).toMatchObject({
      'patch_embedding.weight': 'F16',
      'text_embedding.0.weight': 'U8',
      'blocks.0.modulation': 'F32',
      'blocks.0.self_attn.q.weight': 'U8',
      'blocks.0.self_attn.q.weight.scales': 'F16',
      'blocks.0.self_attn.norm_q.weight': 'F32',
      'blocks.0.ffn.0.weight': 'U8',
      'blocks.0.ffn.2.weight': 'F16', // 80 columns are not whole blocks
      'head.head.weight': 'U8',
      'head.head.bias': 'F32',
    });
    const order = Object.keys(dtypes).filter((name) => !name.endsWith('.scales'));
    expect(order).toEqual([...SHAPES.transformer.keys()]);
    expect(sink.created).toEqual([
      'tokenizer.json',
      'text_encoder.safetensors',
      'high.safetensors',
      'low.safetensors',
      'vae.safetensors',
      'zoetrope.json',
    ]);
  });

  it('consists of safetensors files whose headers say what the manifest says', async () => {
    const { sink, run } = importFiles(checkpointFiles(), 'q4');
    const { components } = await run;
    for (const [file] of [components.text_encoder!, components.high!, components.low!, components.vae!]) {
      const header = await readHeader(await sink.open(file!.path), file!.path);
      expect(Object.fromEntries(header.tensors)).toEqual(file!.tensors);
      expect([...header.tensors.values()][0]!.range[0] % 64).toBe(0);
    }
  });

  it('is the same, byte for byte, when made twice', async () => {
    const first = importFiles(checkpointFiles(), 'q4');
    const second = importFiles(checkpointFiles(), 'q4');
    await Promise.all([first.run, second.run]);
    expect(await hashes(second.sink.files)).toEqual(await hashes(first.sink.files));
  });

  it('describes itself', async () => {
    const { sink, run } = importFiles(checkpointFiles(), 'q8', { license: 'Apache-2.0' });
    const manifest = await run;
    expect(parseManifest(sink.files.get('zoetrope.json')!)).toEqual(manifest);
    expect(manifest).toMatchObject({
      name: 'test',
      license: 'Apache-2.0',
      variant: 'custom',
      boundary: 0.875,
      recommended: { num_inference_steps: 8, shift: 5, guidance_scale: 3.5, guidance_scale_2: 4, aspect_ratio: '1:1' },
    });
    expect(manifest.sizes['720p']['16:9']).toEqual([112, 64]);
  });

  it('has one expert and no boundary when the pipeline has one transformer', async () => {
    const files = checkpointFiles();
    replaceJson(files, 'model_index.json', { transformer_2: [null, null], boundary_ratio: null });
    for (const path of files.keys()) if (path.startsWith('transformer_2/')) files.delete(path);
    const { sink, run } = importFiles(files);
    const manifest = await run;
    expect(manifest.boundary).toBeNull();
    expect(manifest.components.low).toBeUndefined();
    expect(manifest.recommended.guidance_scale_2).toBeUndefined();
    expect((await openModel(sink)).manifest).toEqual(manifest);
  });
});

describe('refused before anything is written', () => {
  type Change = (files: Map<string, Uint8Array>) => void;
  const config =
    (path: string, members: Record<string, unknown>): Change =>
    (files) =>
      replaceJson(files, path, members);
  const tensors =
    (change: (tensors: ReturnType<typeof checkpointTensors>) => void): Change =>
    (files) => {
      const changed = checkpointTensors();
      change(changed);
      for (const [path, bytes] of checkpointFiles(changed)) files.set(path, bytes);
    };
  const shortenBy =
    (path: string, bytes: number): Change =>
    (files) =>
      files.set(path, files.get(path)!.slice(0, -bytes));
  const EXPERT = 'transformer_2/diffusion_pytorch_model.safetensors';

  it.each<[string, Change, string, string]>([
    [
      '36 channels in the configuration',
      config('transformer_2/config.json', { in_channels: 36 }),
      'bad-checkpoint',
      'image-to-video',
    ],
    [
      '36 channels in the weights',
      tensors(({ transformer }) =>
        transformer.set('patch_embedding.weight', { shape: [128, 36, 1, 2, 2], values: new Uint16Array(128 * 144) }),
      ),
      'bad-checkpoint',
      'image-to-video',
    ],
    [
      'image embedder',
      tensors(({ transformer }) =>
        transformer.set('condition_embedder.image_embedder.norm1.weight', { shape: [4], values: new Uint16Array(4) }),
      ),
      'bad-checkpoint',
      'image-to-video',
    ],
    [
      'image pipeline',
      config('model_index.json', { _class_name: 'WanImageToVideoPipeline' }),
      'bad-checkpoint',
      'image-to-video',
    ],
    ['TI2V-5B', config('model_index.json', { expand_timesteps: true }), 'bad-checkpoint', 'TI2V-5B'],
    [
      'two experts without a boundary',
      config('model_index.json', { boundary_ratio: null }),
      'bad-checkpoint',
      'boundary_ratio',
    ],
    [
      'another prediction type',
      config('scheduler/scheduler_config.json', { prediction_type: 'epsilon' }),
      'bad-checkpoint',
      'prediction_type',
    ],
    [
      'experts of different sizes',
      config('transformer_2/config.json', { ffn_dim: 96 }),
      'bad-checkpoint',
      'same sizes',
    ],
    [
      'parts of different releases',
      config('text_encoder/config.json', { d_model: 64 }),
      'bad-checkpoint',
      'do not fit together',
    ],
    ['another tokenizer', config('tokenizer/tokenizer.json', { model: { type: 'BPE' } }), 'bad-checkpoint', 'Unigram'],
    [
      'a missing tensor',
      tensors(({ transformer_2 }) => transformer_2.delete('blocks.1.norm2.bias')),
      'bad-checkpoint',
      'transformer_2: "blocks.1.norm2.bias" [128] is missing',
    ],
    [
      'a missing tensor of the VAE',
      tensors(({ vae }) => vae.delete('decoder.up_blocks.0.upsamplers.0.time_conv.weight')),
      'bad-checkpoint',
      'time_conv.weight',
    ],
    [
      'a wrong shape',
      tensors(({ text_encoder }) =>
        text_encoder.set('encoder.final_layer_norm.weight', { shape: [33], values: new Uint16Array(33) }),
      ),
      'bad-checkpoint',
      '"encoder.final_layer_norm.weight" has shape [33] of F16, expected [32]',
    ],
    [
      'an unknown tensor',
      tensors(({ transformer }) => transformer.set('blocks.0.extra', { shape: [1], values: new Uint16Array(1) })),
      'bad-checkpoint',
      '"blocks.0.extra" does not belong',
    ],
    [
      'the same expert twice',
      tensors((all) => {
        all.transformer_2 = all.transformer;
      }),
      'bad-checkpoint',
      'the same weights',
    ],
    [
      'a truncated shard',
      shortenBy(EXPERT, 1),
      'bad-checkpoint',
      `${EXPERT} is not a valid safetensors file: it ends after`,
    ],
    ['a shard cut in its header', shortenBy(EXPERT, 1e6), 'bad-checkpoint', EXPERT],
    ['a missing shard', (files) => files.delete(EXPERT), 'unreadable-source', EXPERT],
    ['a missing configuration', (files) => files.delete('vae/config.json'), 'unreadable-source', 'vae/config.json'],
    ['no checkpoint', (files) => files.clear(), 'unreadable-source', 'model_index.json'],
  ])('%s', async (_, change, code, message) => {
    const files = checkpointFiles();
    change(files);
    const { sink, run } = importFiles(files);
    await expect(run).rejects.toMatchObject({ code });
    await expect(run).rejects.toThrow(message);
    expect(sink.created).toEqual([]);
  });
});

describe('an import that ends early', () => {
  it('leaves no manifest, not even the one that was there', async () => {
    const tensors = checkpointTensors();
    const name = 'decoder.conv_out.bias';
    tensors.vae.set(name, { shape: [3], values: Float32Array.of(0, NaN, 0) });
    const { sink, run } = importFiles(checkpointFiles(tensors));
    sink.files.set('zoetrope.json', new Uint8Array(1));
    await expect(run).rejects.toThrow(`"${name}" holds NaN at element 1`);
    expect(sink.files.has('zoetrope.json')).toBe(false);
  });

  it('refuses values that 16-bit floats cannot hold', async () => {
    const tensors = checkpointTensors();
    tensors.text_encoder.set('shared.weight', { shape: [40, 32], values: new Float32Array(1280).fill(65520, 77, 78) });
    await expect(importFiles(checkpointFiles(tensors)).run).rejects.toThrow('"shared.weight" holds values beyond');
  });

  it('stops at the signal', async () => {
    const controller = new AbortController();
    const onProgress = ({ component }: { component: string }) => {
      if (component === 'low') controller.abort();
    };
    const { sink, run } = importFiles(checkpointFiles(), 'q8', { onProgress, signal: controller.signal });
    await expect(run).rejects.toMatchObject({ code: 'aborted' });
    expect(sink.created.at(-1)).toBe('low.safetensors');
  });
});

it('reports progress up to the last byte', async () => {
  const seen: number[] = [];
  let total = 0;
  const onProgress = ({ doneBytes, totalBytes }: { doneBytes: number; totalBytes: number }) => {
    seen.push(doneBytes);
    total = totalBytes;
  };
  await importFiles(checkpointFiles(), 'q8', { onProgress }).run;
  expect(seen.at(-1)).toBe(total);
  expect(seen.every((bytes, i) => i === 0 || bytes > seen[i - 1]!)).toBe(true);
});

describe('planning', () => {
  it('cuts shards between tensors at the limit, whatever the values will be', () => {
    const shapes = new Map([
      ['a.weight', [64, 64]],
      ['b.weight', [64, 64]],
      ['c.weight', [64, 64]],
    ]);
    // q4 at its largest: 2048 packed bytes, 512 of F32 scales, 64 of zero points.
    const paths = (limit: number) =>
      planShards('high', shapes, 'q4', limit).map(({ path, tensors }) => [path, tensors.length]);
    expect(paths(3 * 2624)).toEqual([['high.safetensors', 3]]);
    expect(paths(3 * 2624 - 1)).toEqual([
      ['high.safetensors', 2],
      ['high-2.safetensors', 1],
    ]);
    expect(paths(1)).toHaveLength(3);
  });

  it.each([
    ['head.modulation', [1, 2, 256], 'F32'],
    ['decoder.conv1.weight', [64, 16, 3, 3, 3], 'F16'],
    ['decoder.head.0.gamma', [16, 1, 1, 1], 'F32'],
    ['shared.weight', [1280, 128], 'F16'],
    ['encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight', [32, 64], 'F32'],
    ['encoder.block.0.layer.1.DenseReluDense.wo.weight', [128, 256], 'q4'],
    ['time_projection.1.weight', [1536, 256], 'q4'],
    ['time_projection.1.weight', [1536, 250], 'F16'],
  ] as const)('stores %s %j as %s', (name, shape, storage) => {
    expect(storageOf(name, shape, 'q4')).toBe(storage);
  });
});

describe('files of several pieces', () => {
  it.each([0, 128])(
    'are hashed piece by piece, with a head of %i bytes written last',
    { timeout: 30_000 },
    async (headBytes) => {
      const folder = memoryFolder();
      const body = new Uint8Array(2 * MAX_PIECE_BYTES + 5).map((_, i) => i * 7);
      const head = new Uint8Array(headBytes).fill(9);
      const writer = await PieceWriter.create(folder, 'f', headBytes);
      await writer.append(body.subarray(0, 1000));
      await writer.append(body.subarray(1000));
      const file = await writer.finish(head);
      const bytes = folder.files.get('f')!;
      expect(bytes.length).toBe(headBytes + body.length);
      expect(await hashPiece(bytes.subarray(headBytes))).toBe(await hashPiece(body));
      expect(await hashPiece(bytes.subarray(0, headBytes))).toBe(await hashPiece(head));
      expect(file.pieces.map(({ sizeBytes }) => sizeBytes)).toEqual([MAX_PIECE_BYTES, MAX_PIECE_BYTES, headBytes + 5]);
      for (const [index, { sha256, sizeBytes }] of file.pieces.entries()) {
        const begin = index * MAX_PIECE_BYTES;
        expect(await hashPiece(bytes.subarray(begin, begin + sizeBytes))).toBe(sha256);
      }
    },
  );

  it('refuse a header that outgrew its room', () => {
    const tensors = new Map([['a', { dtype: 'U8' as const, shape: [1], range: [64, 65] as [number, number] }]]);
    expect(() => encodeHeader(tensors, 16)).toThrow('does not fit');
  });
});
