import { describe, expect, it } from 'vitest';
import { openDiffusers } from '../../src/checkpoint/diffusers';
import { byteValues } from '../../src/checkpoint/fp8';
import { Journal } from '../../src/checkpoint/journal';
import { parseObject } from '../../src/checkpoint/json';
import { parseNcnnParam } from '../../src/checkpoint/ncnn';
import { tokenizerFromGguf } from '../../src/checkpoint/sentencepiece';
import { ditShapes, parseDitConfig, parseUmt5Config, parseVaeConfig } from '../../src/config';
import { shown, ZoetropeError } from '../../src/errors';
import { hashPiece } from '../../src/manifest';
import { createCut } from '../../src/safety/text-pieces';
import { createTokenizer } from '../../src/text/tokenizer';
import { checkpointFiles, replaceJson, TEXT_ENCODER, TRANSFORMER, VAE } from '../harness/checkpoint';
import { memoryFolder } from '../harness/memory-folder';

/** What the fuzz targets, or a look at the code for them, found once: each stays found. */

function thrownBy(action: () => unknown): ZoetropeError {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(ZoetropeError);
    return error as ZoetropeError;
  }
  throw new Error('Nothing was thrown.');
}

describe('a configuration', () => {
  it.each([
    ['num_layers', 1e9],
    ['num_layers', 513],
    ['ffn_dim', 2 ** 24 + 1],
    ['num_attention_heads', 1e300],
  ])('of the transformer with %s %d is refused before a list of its tensors is made', (key, value) => {
    expect(thrownBy(() => parseDitConfig({ ...TRANSFORMER, [key]: value }, 'x')).message).toContain(key);
  });

  it('of the text encoder or the VAE is bounded too', () => {
    expect(thrownBy(() => parseUmt5Config({ ...TEXT_ENCODER, num_layers: 1e9 }, 'x')).message).toContain('num_layers');
    expect(thrownBy(() => parseVaeConfig({ ...VAE, num_res_blocks: 65 }, 'x')).message).toContain('num_res_blocks');
    expect(thrownBy(() => parseVaeConfig({ ...VAE, dim_mult: [1, 0.5] }, 'x')).message).toContain('dim_mult');
    expect(thrownBy(() => parseVaeConfig({ ...VAE, dim_mult: [] }, 'x')).message).toContain('dim_mult');
  });

  it('holds no infinite numbers, which JSON writes as 1e999', () => {
    const latents = JSON.parse(`[${Array(16).fill('1e999')}]`);
    expect(thrownBy(() => parseVaeConfig({ ...VAE, latents_mean: latents }, 'x')).message).toContain('latents_mean');
  });

  it.each([
    ['transformer/config.json', { num_layers: 500 }, 'transformer'],
    ['text_encoder/config.json', { num_layers: 500 }, 'text_encoder'],
    ['vae/config.json', { num_res_blocks: 64 }, 'vae'],
  ])('%s of more layers than its file has tensors is refused by the counts', async (path, members, part) => {
    const files = checkpointFiles();
    replaceJson(files, path, members);
    if (part === 'transformer') replaceJson(files, 'transformer_2/config.json', members);
    const error = await openDiffusers(memoryFolder(files)).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: 'bad-checkpoint' });
    expect(error.message).toMatch(/^(transformer|text_encoder|vae): the configuration asks for at least \d+ tensors/);
  });

  it('asks for as many tensors as are counted', () => {
    const config = parseDitConfig({ ...TRANSFORMER, num_layers: 3 }, 'x');
    expect(ditShapes(config).size).toBe(15 + 27 * 3);
  });
});

describe('a value in a message', () => {
  it('is JSON when it is short', () => {
    const value = { a: [1, 'b', null, true], c: {} };
    expect(shown(value)).toBe(JSON.stringify(value));
    expect(shown(undefined)).toBe('undefined');
  });

  it('is cut when it is long, however it is nested', () => {
    let nested: unknown = 0;
    for (let i = 0; i < 5000; i++) nested = i % 2 ? [nested] : { a: nested };
    const long = [new Array(1e6).fill(1e20), 'x'.repeat(1e6), { ['k'.repeat(1e6)]: 0 }, nested, '\u0001'.repeat(100)];
    for (const value of long) expect(shown(value)).toHaveLength(81);
  });
});

it('an ncnn number of 500,000 digits and a letter is refused at once', { timeout: 2_000 }, () => {
  const graph = `7767517\n1 1\nInput i 0 1 o 0=${'1'.repeat(500_000)}x\n`;
  expect(thrownBy(() => parseNcnnParam(graph, 'net')).message).toContain('is no number');
});

it('the table of an fp8 dtype is made once', () => {
  expect(byteValues('F8_E4M3')).toBe(byteValues('F8_E4M3'));
  expect(byteValues('F8_E5M2')).not.toBe(byteValues('F8_E4M3'));
});

it('a name given twice is cut in the message', () => {
  const name = 'n'.repeat(100_000);
  const text = new TextEncoder().encode(`{"${name}":0,"${name}":0}`);
  expect(thrownBy(() => parseObject(text, 'x')).message.length).toBeLessThan(300);
});

it('a vocabulary of more special pieces than UMT5 has is refused', () => {
  const texts = ['</s>', '<unk>', ...Array.from({ length: 1000 }, (_, i) => `<extra_id_${i}>`)];
  const list = <T>(values: T[]) => ({ count: values.length, values: () => values as (string | number)[] });
  const keys = new Map<string, never>([
    ['tokenizer.ggml.model', 't5' as never],
    ['tokenizer.ggml.tokens', list(texts) as never],
    ['tokenizer.ggml.scores', list(texts.map(() => 0)) as never],
    ['tokenizer.ggml.token_type', list(texts.map(() => 1)) as never],
  ]);
  expect(thrownBy(() => tokenizerFromGguf(keys, 'x')).message).toContain('1002 special pieces');
});

describe('a tokenizer', () => {
  const model = { type: 'Unigram', unk_id: 0 };

  it('of pieces without end is refused', () => {
    const json = { model: { ...model, vocab: [['a'.repeat(257), 0]] } };
    expect(thrownBy(() => createTokenizer(json)).message).toContain('at most 256 characters');
  });

  it('of added tokens without end is refused, because they become one pattern', () => {
    const added = Array.from({ length: 4097 }, (_, id) => ({ id, content: `t${id}` }));
    const json = { model: { ...model, vocab: [['a', 0]] }, added_tokens: added };
    expect(thrownBy(() => createTokenizer(json)).message).toContain('"added_tokens" must be at most 4096');
  });

  it.each([
    ['ids that are no numbers', { '[CLS]': 'x', '[SEP]': {}, '[UNK]': null }],
    ['no vocabulary', null],
    ['a list', [0]],
  ])('of a classifier with %s is refused when a text is cut at the latest', (_, vocab) => {
    const json = {
      normalizer: { type: 'BertNormalizer' },
      pre_tokenizer: { type: 'BertPreTokenizer' },
      model: { type: 'WordPiece', vocab, unk_token: '[UNK]', continuing_subword_prefix: '##' },
    };
    expect(thrownBy(() => createCut(json, 16)('a text')).code).toBe('bad-checkpoint');
  });
});

it.each([
  '{"version":1,',
  'null',
  '[]',
  '{"version":1,"fingerprint":"print","turn":1,"done":null,"open":null}',
  '{"version":1,"fingerprint":"print","turn":1,"done":{"high":[{"path":"f","sizeBytes":1,"pieces":[{"sizeBytes":-1,"sha256":""}]}]},"open":null}',
  '{"version":1,"fingerprint":"print","turn":1,"done":{},"open":{"path":"f","pieces":[null,null],"waiting":null,"tail":{}}}',
])('a journal of another form counts as none, though its hash is right: %s', async (text) => {
  const bytes = new TextEncoder().encode(text);
  const note = new TextEncoder().encode(`${await hashPiece(bytes)}\n${text}`);
  const { found } = await Journal.open(memoryFolder([['import-journal-0.json', note]]), 'print');
  expect(found).toEqual({ done: {}, open: null });
});
