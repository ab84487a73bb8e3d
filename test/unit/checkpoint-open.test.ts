import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { blobSource } from '../../src/checkpoint/blob';
import { HUGGING_FACE_UMT5, LLAMA_UMT5, ORIGINAL_DIT, ORIGINAL_UMT5, ORIGINAL_VAE } from '../../src/checkpoint/names';
import { assignExperts, openCheckpoint } from '../../src/checkpoint/open';
import { tokenizerFromGguf, tokenizerFromSentencePiece } from '../../src/checkpoint/sentencepiece';
import { type ImportSource, roleOf } from '../../src/checkpoint/sources';
import { ZoetropeError } from '../../src/errors';
import { createTokenizer } from '../../src/text/tokenizer';
import {
  checkpointFiles,
  componentTensors,
  SEEDS,
  SHAPES,
  safetensors,
  type TestTensor,
  VAE,
} from '../harness/checkpoint';
import { type GgufTestTensor, ggufFile } from '../harness/gguf';
import { memoryFolder } from '../harness/memory-folder';
import { seededUniform } from '../harness/near';

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const TOKENIZER = checkpointFiles().get('tokenizer/tokenizer.json')!;

/** A complete set of files in original names; change it to make a bad one. */
function tensorsOf() {
  return {
    high: componentTensors(SEEDS.transformer, SHAPES.transformer, ORIGINAL_DIT),
    low: componentTensors(SEEDS.transformer_2, SHAPES.transformer, ORIGINAL_DIT),
    text: componentTensors(SEEDS.text_encoder, SHAPES.text_encoder, ORIGINAL_UMT5),
    vae: componentTensors(SEEDS.vae, SHAPES.vae, ORIGINAL_VAE),
  };
}
type Files = Map<string, Uint8Array>;
function filesOf(tensors = tensorsOf()): Files {
  return new Map([
    ['t2v_high_noise.safetensors', safetensors(tensors.high)],
    ['t2v_low_noise.safetensors', safetensors(tensors.low)],
    ['umt5.safetensors', safetensors(tensors.text)],
    ['vae.safetensors', safetensors(tensors.vae)],
    ['config.json', json({ _class_name: 'AutoencoderKLWan', ...VAE })],
    ['tokenizer.json', TOKENIZER],
  ]);
}

async function open(files: Files, roles: Record<string, 'high' | 'low'> = {}) {
  const folder = memoryFolder(files);
  const sources = [...files.keys()].map(async (path): Promise<ImportSource> => {
    return { path, file: await folder.open(path), role: roles[path] };
  });
  return openCheckpoint(await Promise.all(sources));
}

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
    const checkpoint = await open(filesOf());
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
    await expect(open(files)).rejects.toThrow('--high and --low');
    const told = await open(files, { 'a.safetensors': 'high', 'b.safetensors': 'low' });
    const bias = async ({ weights }: typeof told) => [...(await weights.high!.readFloats('head.head.bias', 0, 64))];
    expect(await bias(told)).toEqual(await bias(checkpoint));
    const exchanged = await open(files, { 'b.safetensors': 'high', 'a.safetensors': 'low' });
    expect(await bias(exchanged)).not.toEqual(await bias(checkpoint));
  });

  it('opens with one expert, and with parts from a folder beside a file', async () => {
    const files = filesOf();
    files.delete('t2v_low_noise.safetensors');
    expect(await open(files)).toMatchObject({ boundary: null });
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
    const outcome = open(filesOf(tensors));
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
    await expect(open(files)).rejects.toThrow(message);
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
    const outcome = open(files);
    await expect(outcome).rejects.toMatchObject({ code: 'bad-checkpoint' });
    await expect(outcome).rejects.toThrow(message);
  });

  it('is refused when the marker says that every fp8 weight has a scale and one has not', async () => {
    const tensors = tensorsOf();
    const values = new Uint8Array(128 * 128);
    tensors.low.set('blocks.0.self_attn.q.weight', { shape: [128, 128], values, dtype: 'F8_E4M3' });
    await open(filesOf(tensors)); // a plain cast
    tensors.low.set('scaled_fp8', { shape: [2], values: new Uint8Array(2), dtype: 'F8_E4M3' });
    await expect(open(filesOf(tensors))).rejects.toThrow('no scale beside it');
    tensors.low.set('blocks.0.self_attn.q.scale_weight', { shape: [3, 1], values: new Float32Array(3) });
    await expect(open(filesOf(tensors))).rejects.toThrow('one float or one for each of 128 rows');
    tensors.low.set('blocks.0.self_attn.q.scale_weight', { shape: [], values: new Float32Array(1) });
    await open(filesOf(tensors));
    const format = json({ format: 'nvfp4' });
    tensors.low.set('blocks.0.self_attn.q.comfy_quant', { shape: [format.length], values: format, dtype: 'U8' });
    await expect(open(filesOf(tensors))).rejects.toThrow('nvfp4');
  });
});

describe('files chosen in a browser', () => {
  it('open like any other', async () => {
    const sources = [...filesOf()].map(([path, bytes]): ImportSource => {
      return { path, file: blobSource(new Blob([bytes as Uint8Array<ArrayBuffer>]), path) };
    });
    const checkpoint = await openCheckpoint(sources);
    const same = await open(filesOf());
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

/** A protobuf field of bytes. */
function field(number: number, bytes: Uint8Array): number[] {
  const length: number[] = [];
  let rest = bytes.length;
  for (; rest > 127; rest = Math.floor(rest / 128)) length.push((rest % 128) | 128);
  return [number * 8 + 2, ...length, rest, ...bytes];
}
function sentencePiece(pieces: [text: string, score: number, type?: number][], model = 1, charsmap = ''): Uint8Array {
  const utf8 = new TextEncoder();
  const out: number[] = [];
  for (const [text, score, type = 1] of pieces) {
    const number = new Uint8Array(Float32Array.of(score).buffer);
    const piece = [...field(1, utf8.encode(text)), 2 * 8 + 5, ...number, 3 * 8, type];
    out.push(...field(1, Uint8Array.from(piece)));
  }
  out.push(...field(2, Uint8Array.of(3 * 8, model)));
  out.push(...field(3, Uint8Array.from([...field(1, utf8.encode('identity')), ...field(2, utf8.encode(charsmap))])));
  return Uint8Array.from(out);
}
const PIECES: [string, number, number?][] = [
  ['<pad>', 0, 3],
  ['</s>', 0, 3],
  ['<s>', 0, 3],
  ['<unk>', 0, 2],
  ['▁', -3.5],
  ['a', -4],
  ['▁ab', -2.25],
  ['ü', -5],
];
const parse = (bytes: Uint8Array) => JSON.parse(new TextDecoder().decode(bytes));
const joined = (parts: Iterable<Uint8Array>) => Uint8Array.from([...parts].flatMap((part) => [...part]));

describe('the vocabulary that a text encoder carries along', () => {
  it('of SentencePiece becomes a tokenizer', () => {
    const tokenizer = createTokenizer(parse(joined(tokenizerFromSentencePiece(sentencePiece(PIECES), 'x'))));
    expect([...tokenizer.encode('ab aü</s>?')]).toEqual([6, 4, 5, 7, 1, 4, 3, 1]);
  });

  it('of GGUF becomes the same, without the unused pieces at its end', async () => {
    const all: typeof PIECES = [...PIECES, ['[PAD8]', -1000, 5], ['[PAD9]', -1000, 5]];
    const keys = {
      'general.architecture': { type: 8, value: 't5encoder' },
      'tokenizer.ggml.model': { type: 8, value: 't5' },
      'tokenizer.ggml.tokens': { type: 9, of: 8, value: all.map(([text]) => text) },
      'tokenizer.ggml.scores': { type: 9, of: 6, value: all.map(([, score]) => score) },
      'tokenizer.ggml.token_type': { type: 9, of: 5, value: all.map(([, , type = 1]) => type) },
    } as const;
    const tensors = new Map<string, GgufTestTensor>();
    for (const [name, { shape, values }] of componentTensors(1, SHAPES.text_encoder, LLAMA_UMT5)) {
      tensors.set(name, { type: 1, shape, bytes: new Uint8Array(values.buffer) });
    }
    const files = filesOf();
    files.delete('tokenizer.json');
    files.delete('umt5.safetensors');
    files.set('umt5.gguf', ggufFile(keys, tensors));
    const { tokenizer } = await open(files);
    const bytes = await tokenizer.read(0, tokenizer.sizeBytes);
    expect(bytes).toEqual(joined(tokenizerFromSentencePiece(sentencePiece(PIECES), 'x')));
    expect(() => tokenizerFromGguf(new Map([['tokenizer.ggml.model', 'gpt2']]), 'x')).toThrow('"gpt2"');
  });

  it('of ComfyUI’s file is taken when there is no other', async () => {
    const tensors = tensorsOf();
    tensors.text = componentTensors(SEEDS.text_encoder, SHAPES.text_encoder, HUGGING_FACE_UMT5);
    const model = sentencePiece(PIECES);
    tensors.text.set('spiece_model', { shape: [model.length], values: model, dtype: 'U8' });
    const files = filesOf(tensors);
    const given = await open(files);
    expect(await given.tokenizer.read(0, given.tokenizer.sizeBytes)).toEqual(TOKENIZER);
    files.delete('tokenizer.json');
    const { tokenizer } = await open(files);
    expect(parse(await tokenizer.read(0, tokenizer.sizeBytes)).model.vocab[6]).toEqual(['▁ab', -2.25]);
  });

  it('comes in parts that no piece makes longer, and no character is cut in two', () => {
    const long: typeof PIECES = [
      [`a${'🐱'.repeat(1500)}`, -1],
      ['\u0001'.repeat(2000), -2],
      ['猫'.repeat(1023), -3.125],
    ];
    const parts = [...tokenizerFromSentencePiece(sentencePiece([...PIECES, ...long]), 'x')];
    expect(Math.max(...parts.map(({ length }) => length))).toBeLessThanOrEqual(3 * 1024);
    expect(parse(joined(parts)).model.vocab.slice(PIECES.length)).toEqual(long);
  });

  it.each([
    ['of another type', sentencePiece(PIECES, 2), 'of type 2'],
    ['with character replacements', sentencePiece(PIECES, 1, 'x'), 'character replacements'],
    ['with a piece twice', sentencePiece([...PIECES, ['a', -1]]), '"a" twice'],
    ['without an end', sentencePiece(PIECES.slice(2)), '"</s>"'],
    ['that is none', Uint8Array.of(0, 1, 2), 'without a number'],
    ['that is empty', new Uint8Array(0), '"</s>"'],
  ])('is refused %s', (_, bytes, message) => {
    expect(() => tokenizerFromSentencePiece(bytes, 'x')).toThrow(message);
  });

  it('is refused with our error or read, however it is damaged', () => {
    const model = sentencePiece(PIECES);
    const uniform = seededUniform(3);
    for (let round = 0; round < 3000; round++) {
      const damaged = model.slice(0, round % 3 === 0 ? Math.floor(uniform() * model.length) : model.length);
      damaged[Math.floor(uniform() * damaged.length)] = Math.floor(uniform() * 256);
      try {
        tokenizerFromSentencePiece(damaged, 'x');
      } catch (error) {
        expect(error).toBeInstanceOf(ZoetropeError);
      }
    }
  });

  const XXL = new URL('../../../shared/data/umt5-tokenizer/tokenizer.json', import.meta.url);
  it.skipIf(!existsSync(XXL))('of UMT5-XXL becomes google’s tokenizer.json', { timeout: 60_000 }, () => {
    const published = JSON.parse(readFileSync(XXL, 'utf8'));
    const pieces = (published.model.vocab as [string, number][]).slice(0, 256_000);
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < pieces.length; at += 1000) {
      // The last 9 + 2 bytes of each part are its trainer's and normaliser's, which may be repeated.
      chunks.push(sentencePiece(pieces.slice(at, at + 1000)));
    }
    const model = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const chunk of chunks) {
      model.set(chunk, at);
      at += chunk.length;
    }
    const made = parse(Buffer.concat([...tokenizerFromSentencePiece(model, 'x')]));
    // The published scores are the model's f32 values written with 16 digits, which moves some by the last bit of a double.
    const text = (vocab: [string, number][]) =>
      vocab.map(([piece, score]) => `${piece} ${Math.fround(score)}`).join('\n');
    expect(text(made.model.vocab) === text(published.model.vocab)).toBe(true);
    expect(made.model.unk_id).toBe(published.model.unk_id);
    expect(made.added_tokens).toEqual(published.added_tokens);
    expect(made.post_processor).toEqual(published.post_processor);
    expect(made.normalizer).toEqual(published.normalizer);
  });
});
