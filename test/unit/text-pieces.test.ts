import { describe, expect, it } from 'vitest';
import { createCut } from '../../src/safety/text-pieces';

/** Vocabularies small enough that ids follow by hand from the published rules of each kind. */

const LARGE = 512;

const VOCAB = ['[UNK]', '[CLS]', '[SEP]', 'un', '##aff', '##able', 'cafe', '!', ',', '猫', 'the', "'", 's'];

const idsOf = (tokens: readonly string[]) => Object.fromEntries(tokens.map((token, id) => [token, id]));

/** A post-processor that puts one token before a text and one behind it, ids 1 and 2. */
const between = (first: string, last: string) => ({
  type: 'TemplateProcessing',
  single: [
    { SpecialToken: { id: first, type_id: 0 } },
    { Sequence: { id: 'A', type_id: 0 } },
    { SpecialToken: { id: last, type_id: 0 } },
  ],
  pair: [],
  special_tokens: {
    [first]: { id: first, ids: [1], tokens: [first] },
    [last]: { id: last, ids: [2], tokens: [last] },
  },
});

/** BERT's kind. */
const wordPiece = (
  normalizer: object = { type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true, lowercase: true },
) => ({
  normalizer,
  pre_tokenizer: { type: 'BertPreTokenizer' },
  post_processor: between('[CLS]', '[SEP]'),
  decoder: null,
  added_tokens: [],
  model: {
    type: 'WordPiece',
    vocab: idsOf(VOCAB),
    unk_token: '[UNK]',
    continuing_subword_prefix: '##',
    max_input_chars_per_word: 12,
  },
});

describe('WordPiece', () => {
  it.each([
    ['', [1, 2]],
    ['unaffable', [1, 3, 4, 5, 2]],
    ['  The\tCAFÉ! ', [1, 10, 6, 7, 2]],
    ["the cafe's,", [1, 10, 6, 11, 12, 8, 2]],
    ['猫猫', [1, 9, 9, 2]],
    ['unaffablex', [1, 0, 2]], // no piece for the rest: the whole word is unknown
    ['unaffableable', [1, 0, 2]], // longer than a word may be
    ['the\u0000 \u200bcafe', [1, 10, 6, 2]],
  ])('%j', (text, ids) => {
    expect(createCut(wordPiece(), LARGE)(text)).toEqual([ids]);
  });

  it('keeps case where the tokenizer does', () => {
    const cut = createCut(wordPiece({ type: 'BertNormalizer', lowercase: false }), LARGE);
    expect(cut('the The')).toEqual([[1, 10, 0, 2]]);
  });
});

/** RoBERTa's kind: bytes, joined by ranked merges; Ġ stands for a space. */
const bytePairs = {
  normalizer: null,
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
  post_processor: between('<s>', '</s>'),
  decoder: null,
  added_tokens: [],
  model: {
    type: 'BPE',
    vocab: idsOf(['<unk>', '<s>', '</s>', 'b', 'a', 'd', 'Ġ', 'ba', 'bad', 'Ġb', 'Ġba', 'Ġbad', 'Ã', '©']),
    merges: ['b a', 'ba d', 'Ġ b', 'Ġ ba', 'Ġ bad'],
    unk_token: '<unk>',
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
  },
};

describe('BPE', () => {
  it.each([
    ['bad', [1, 8, 2]],
    ['bad bad', [1, 8, 11, 2]],
    ['dab', [1, 5, 4, 3, 2]], // no merge begins with d or joins a to b
    ['é', [1, 12, 13, 2]], // its two bytes
    ['', [1, 2]],
  ])('%j', (text, ids) => {
    expect(createCut(bytePairs, LARGE)(text)).toEqual([ids]);
  });
});

/** DeBERTa's kind: the most probable pieces; ▁ begins a word. */
const unigram = {
  normalizer: { type: 'NFKC' },
  pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' },
  post_processor: between('[CLS]', '[SEP]'),
  decoder: null,
  added_tokens: [],
  model: {
    type: 'Unigram',
    unk_id: 0,
    vocab: [
      ['[UNK]', 0],
      ['[CLS]', 0],
      ['[SEP]', 0],
      ['▁a', -1],
      ['▁ab', -3],
      ['b', -1.5],
      ['bc', -2],
      ['c', -2],
      ['fi', -1],
      ['▁', -1],
    ],
  },
};

describe('Unigram', () => {
  it.each([
    ['abc', [1, 3, 6, 2]], // -1 - 2 beats -3 - 2 and -1 - 1.5 - 2
    ['ab', [1, 3, 5, 2]],
    ['ﬁ', [1, 9, 8, 2]], // the ligature, taken apart by NFKC
    ['a ﬁ', [1, 3, 9, 8, 2]],
  ])('%j', (text, ids) => {
    expect(createCut(unigram, LARGE)(text)).toEqual([ids]);
  });
});

describe('pieces', () => {
  it('have the special tokens round each, and all of the text in order', () => {
    const text = 'bad bad bad bad bad';
    expect(createCut(bytePairs, 4)(text)).toEqual([
      [1, 8, 11, 2],
      [1, 11, 11, 2],
      [1, 11, 2],
    ]);
    expect(createCut(bytePairs, 7)(text)).toEqual([[1, 8, 11, 11, 11, 11, 2]]);
    expect(createCut(bytePairs, 6)(text)).toHaveLength(2); // one token more than fits
    expect(createCut({ ...bytePairs, post_processor: null }, 3)(text)).toEqual([
      [8, 11, 11],
      [11, 11],
    ]);
  });

  it('are refused where nothing fits between, and files that are no tokenizers', () => {
    const refusal = { code: 'bad-checkpoint', message: expect.stringContaining('tokenizer.json') };
    expect(() => createCut(bytePairs, 2)('bad')).toThrow(expect.objectContaining(refusal));
    for (const other of [
      undefined,
      null,
      {},
      [],
      'x',
      { model: { type: 'None' } },
      { ...unigram, model: { type: 'BPE' } },
    ]) {
      expect(() => createCut(other, LARGE)('bad')).toThrow(expect.objectContaining(refusal));
    }
  });
});
