import { describe, expect, it } from 'vitest';
import { blobSource } from '../../src/checkpoint/blob';
import { assignExperts, openCheckpoint } from '../../src/checkpoint/open';
import { type ImportSource, roleOf } from '../../src/checkpoint/sources';
import { checkpointFiles, safetensors, type TestTensor, VAE } from '../harness/checkpoint';
import { filesOf, openFiles, tensorsOf } from '../harness/checkpoint-sources';
import { ggufFile } from '../harness/gguf';
import { memoryFolder } from '../harness/memory-folder';

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

describe('which expert a name tells', () => {
  it.each([
    ['wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors', 'high'],
    ['HighNoise/Wan2.2-T2V-A14B-Q4_K_M.gguf', 'high'],
    ['Wan2.2-T2V-A14B-LowNoise-Q8_0.gguf', 'low'],
    ['/models/high/wan_low_noise.safetensors', 'low'],
    ['high_noise_model', 'high'],
    ['wan/transformer_2', 'low'],
    ['wan/transformer', 'high'],
    ['flow_slow_yellow.safetensors', undefined],
    ['high_low_merge.safetensors', undefined],
    ['a/low/high_low_merge.safetensors', 'low'],
    ['C:\\wan\\LOW\\model.gguf', 'low'],
    ['highest.safetensors', undefined],
  ] as const)('%s: %s', (path, role) => {
    expect(roleOf(path)).toBe(role);
  });

  it('is asked for when it is not clear', () => {
    const part = (path: string, role?: 'high' | 'low') => ({ path, role });
    expect(assignExperts([part('b', 'low'), part('a', 'high')])).toEqual({
      high: part('a', 'high'),
      low: part('b', 'low'),
    });
    expect(assignExperts([part('a')])).toEqual({ high: part('a') });
    for (const parts of [
      [part('a'), part('b')],
      [part('a', 'high'), part('b')],
      [part('a', 'low'), part('b', 'low')],
    ]) {
      expect(() => assignExperts(parts)).toThrow('--high and --low');
    }
    expect(() => assignExperts([part('a', 'low')])).toThrow('alone');
    expect(() => assignExperts([part('a'), part('b'), part('c')])).toThrow('one or two');
    expect(() => assignExperts([])).toThrow('No source');
  });
});

describe('a set of files', () => {
  it('opens, with the roles of names or of the person', async () => {
    const checkpoint = await openFiles(filesOf());
    expect(checkpoint).toMatchObject({
      boundary: 0.875,
      shift: 5,
      dit: { dim: 128, numLayers: 2 },
      umt5: { vocabSize: 40 },
    });
    const files = filesOf();
    files.set('a.safetensors', files.get('t2v_high_noise.safetensors')!);
    files.set('b.safetensors', files.get('t2v_low_noise.safetensors')!);
    for (const path of ['t2v_high_noise.safetensors', 't2v_low_noise.safetensors']) files.delete(path);
    await expect(openFiles(files)).rejects.toThrow('--high and --low');
    const told = await openFiles(files, { 'a.safetensors': 'high', 'b.safetensors': 'low' });
    const bias = async ({ weights }: typeof told) => [...(await weights.high!.readFloats('head.head.bias', 0, 64))];
    expect(await bias(told)).toEqual(await bias(checkpoint));
    const exchanged = await openFiles(files, { 'b.safetensors': 'high', 'a.safetensors': 'low' });
    expect(await bias(exchanged)).not.toEqual(await bias(checkpoint));
  });

  it('opens with one expert, and with parts from a folder beside a file', async () => {
    const files = filesOf();
    files.delete('t2v_low_noise.safetensors');
    expect(await openFiles(files)).toMatchObject({ boundary: null });
    const pipeline = checkpointFiles();
    pipeline.delete('model_index.json');
    const folder = memoryFolder(pipeline);
    const file = await memoryFolder([['high.gguf', files.get('t2v_high_noise.safetensors')!]]).open('high.gguf');
    const checkpoint = await openCheckpoint([
      { path: 'wan', folder },
      { path: 't2v.safetensors', file },
    ]);
    // The expert that was named goes before those in the folder.
    expect(checkpoint.boundary).toBeNull();
    expect(checkpoint.vae.latentsStd).toEqual(VAE.latents_std);
  });

  const tensor = (shape: number[]): TestTensor => ({
    shape,
    values: new Uint16Array(shape.reduce((all, size) => all * size, 1)),
  });
  type Change = (tensors: ReturnType<typeof tensorsOf>) => void;
  it.each<[string, Change, string]>([
    [
      'image-to-video by its channels',
      ({ high }) => high.set('patch_embedding.weight', tensor([128, 36, 1, 2, 2])),
      'image-to-video',
    ],
    ['image-to-video by its names', ({ high }) => high.set('img_emb.proj.0.bias', tensor([4])), 'image-to-video'],
    ['image keys', ({ high }) => high.set('blocks.0.cross_attn.k_img.bias', tensor([4])), 'image-to-video'],
    ['TI2V-5B', ({ high }) => high.set('patch_embedding.weight', tensor([128, 48, 1, 2, 2])), 'TI2V-5B'],
    ['VACE', ({ high }) => high.set('vace_blocks.0.norm3.bias', tensor([4])), 'VACE'],
    ['a LoRA', ({ high }) => high.set('blocks.0.ffn.0.lora_A.weight', tensor([4, 4])), 'a LoRA'],
    ['quanto', ({ high }) => high.set('blocks.0.ffn.0.weight._data', tensor([4, 4])), 'quanto'],
    ['the VAE of TI2V-5B', ({ vae }) => vae.set('conv2.weight', tensor([48, 48, 1, 1, 1])), 'TI2V-5B'],
    [
      'T5',
      ({ text }) => {
        text.set('blocks.1.norm1.weight', tensor([32]));
      },
      'T5 encoder',
    ],
    [
      'an unknown tensor',
      ({ low }) => low.set('blocks.0.extra.weight', tensor([4])),
      '"blocks.0.extra.weight" does not belong',
    ],
    ['a missing tensor', ({ text }) => text.delete('norm.weight'), '"norm.weight" [32] is missing'],
    [
      'a matrix of integers',
      ({ low }) =>
        low.set('blocks.0.ffn.0.weight', { shape: [80, 128], values: new Uint8Array(80 * 128), dtype: 'U8' }),
      'U8, which holds no floats',
    ],
    [
      'int8 without a scale',
      ({ low }) =>
        low.set('blocks.0.ffn.0.weight', { shape: [80, 128], values: new Uint8Array(80 * 128), dtype: 'I8' }),
      'no scale beside it',
    ],
    [
      'the same expert twice',
      (all) => {
        all.low = all.high;
      },
      'the same weights',
    ],
    [
      'another depth',
      ({ low }) => {
        for (const name of [...low.keys()]) if (name.startsWith('blocks.1.')) low.delete(name);
      },
      'other sizes',
    ],
    ['a block of a wild number', ({ high }) => high.set('blocks.99999999999.norm3.bias', tensor([4])), 'one of block'],
    [
      'a width of nothing',
      ({ high }) => high.set('patch_embedding.weight', tensor([0, 16, 1, 2, 2])),
      'shapes give dim 0',
    ],
  ])('is refused: %s', async (_, change, message) => {
    const tensors = tensorsOf();
    change(tensors);
    const outcome = openFiles(filesOf(tensors));
    await expect(outcome).rejects.toMatchObject({ code: 'bad-checkpoint' });
    await expect(outcome).rejects.toThrow(message);
  });

  it.each([
    ['no text encoder', ['umt5.safetensors'], 'No source holds a text encoder'],
    ['no VAE', ['vae.safetensors'], 'No source holds a VAE'],
    ['no tokenizer', ['tokenizer.json'], 'No source holds a tokenizer'],
    ['no expert', ['t2v_high_noise.safetensors', 't2v_low_noise.safetensors'], 'No source holds a diffusion model'],
    ['no statistics', ['config.json'], 'statistics'],
  ])('is refused with %s', async (_, missing, message) => {
    const files = filesOf();
    for (const path of missing) files.delete(path);
    await expect(openFiles(files)).rejects.toThrow(message);
  });

  it.each([
    ['two VAEs', 'vae2.safetensors', filesOf().get('vae.safetensors')!, 'Both'],
    ['a pickle', 'Wan2.1_VAE.pth', Uint8Array.of(0x50, 0x4b, 3, 4, 0, 0, 0, 0, 0), 'PyTorch file'],
    [
      'another GGUF',
      'llama.gguf',
      ggufFile({ 'general.architecture': { type: 8, value: 'llama' } }, new Map()),
      '"llama"',
    ],
    [
      'something else',
      'x.safetensors',
      safetensors(new Map([['x', tensor([1])]])),
      'none of Wan’s models'.replace('’', "'"),
    ],
    ['another JSON', 'index.json', json({ weight_map: {} }), 'neither a tokenizer.json'],
  ])('is refused with %s', async (_, path, bytes, message) => {
    const files = filesOf();
    files.set(path, bytes);
    const outcome = openFiles(files);
    await expect(outcome).rejects.toMatchObject({ code: 'bad-checkpoint' });
    await expect(outcome).rejects.toThrow(message);
  });

  it('opens as a plain cast of everything to fp8', async () => {
    const tensors = tensorsOf();
    for (const [name, { shape, values }] of tensors.low) {
      tensors.low.set(name, {
        shape,
        values: new Uint8Array(values.length).fill(0x38 + (name.length % 8)),
        dtype: 'F8_E4M3',
      });
    }
    const { weights } = await openFiles(filesOf(tensors));
    // 0x38 is 1 in E4M3, and each further step an eighth.
    const name = 'blocks.0.self_attn.q.bias';
    expect(await weights.low!.readFloats(name, 2, 4)).toEqual(new Float32Array(2).fill(1 + (name.length % 8) / 8));
  });

  it('is refused when the marker says that every fp8 weight has a scale and one has not', async () => {
    const tensors = tensorsOf();
    const values = new Uint8Array(128 * 128);
    tensors.low.set('blocks.0.self_attn.q.weight', { shape: [128, 128], values, dtype: 'F8_E4M3' });
    await openFiles(filesOf(tensors)); // a plain cast
    tensors.low.set('scaled_fp8', { shape: [2], values: new Uint8Array(2), dtype: 'F8_E4M3' });
    await expect(openFiles(filesOf(tensors))).rejects.toThrow('no scale beside it');
    tensors.low.set('blocks.0.self_attn.q.scale_weight', { shape: [3, 1], values: new Float32Array(3) });
    await expect(openFiles(filesOf(tensors))).rejects.toThrow('one float or one for each of 128 rows');
    tensors.low.set('blocks.0.self_attn.q.scale_weight', { shape: [], values: new Float32Array(1) });
    await openFiles(filesOf(tensors));
    const format = json({ format: 'nvfp4' });
    tensors.low.set('blocks.0.self_attn.q.comfy_quant', { shape: [format.length], values: format, dtype: 'U8' });
    await expect(openFiles(filesOf(tensors))).rejects.toThrow('nvfp4');
  });
});

describe('files chosen in a browser', () => {
  it('open like any other', async () => {
    const sources = [...filesOf()].map(([path, bytes]): ImportSource => {
      return { path, file: blobSource(new Blob([bytes as Uint8Array<ArrayBuffer>]), path) };
    });
    const checkpoint = await openCheckpoint(sources);
    const same = await openFiles(filesOf());
    expect(await checkpoint.weights.vae!.readFloats('conv2.bias', 0, 16)).toEqual(
      await same.weights.vae!.readFloats('conv2.bias', 0, 16),
    );
  });

  it('are refused beyond their end and when they have gone', async () => {
    const file = blobSource(new Blob([new Uint8Array(4)]), 'a');
    expect(await file.read(1, 4)).toEqual(new Uint8Array(3));
    await expect(file.read(2, 5)).rejects.toMatchObject({ code: 'unreadable-source' });
    const gone = { size: 4, slice: () => ({ arrayBuffer: () => Promise.reject(new DOMException('gone')) }) };
    await expect(blobSource(gone as unknown as Blob, 'a').read(0, 1)).rejects.toThrow('a cannot be read: gone');
  });
});
