import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { HUGGING_FACE_UMT5, LLAMA_UMT5 } from '../../src/checkpoint/names';
import { tokenizerFromGguf, tokenizerFromSentencePiece } from '../../src/checkpoint/sentencepiece';
import { ZoetropeError } from '../../src/errors';
import { createTokenizer } from '../../src/text/tokenizer';
import { componentTensors, SEEDS, SHAPES } from '../harness/checkpoint';
import { filesOf, openFiles, TOKENIZER, tensorsOf } from '../harness/checkpoint-sources';
import { type GgufTestTensor, ggufFile } from '../harness/gguf';
import { seededUniform } from '../harness/near';

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
    const { tokenizer } = await openFiles(files);
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
    const given = await openFiles(files);
    expect(await given.tokenizer.read(0, given.tokenizer.sizeBytes)).toEqual(TOKENIZER);
    files.delete('tokenizer.json');
    const { tokenizer } = await openFiles(files);
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
    // The published scores are the model's f32 values written with 16 digits, which moves some by the last bit of a
    // double.
    const text = (vocab: [string, number][]) =>
      vocab.map(([piece, score]) => `${piece} ${Math.fround(score)}`).join('\n');
    expect(text(made.model.vocab) === text(published.model.vocab)).toBe(true);
    expect(made.model.unk_id).toBe(published.model.unk_id);
    expect(made.added_tokens).toEqual(published.added_tokens);
    expect(made.post_processor).toEqual(published.post_processor);
    expect(made.normalizer).toEqual(published.normalizer);
  });
});
