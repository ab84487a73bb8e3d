import { expect, it } from 'vitest';
import { createWordPiece } from '../../src/safety/wordpiece';

const VOCAB = ['[UNK]', '[CLS]', '[SEP]', 'un', '##aff', '##able', 'cafe', '!', ',', '猫', 'the', "'", 's'];

const json = (normalizer: object = { type: 'BertNormalizer', lowercase: true, strip_accents: null }) => ({
  model: {
    type: 'WordPiece',
    vocab: Object.fromEntries(VOCAB.map((token, id) => [token, id])),
    unk_token: '[UNK]',
    continuing_subword_prefix: '##',
    max_input_chars_per_word: 12,
  },
  normalizer,
});

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
  expect(createWordPiece(json())(text)).toEqual(ids);
});

it('keeps case and accents where the tokenizer does', () => {
  const encode = createWordPiece(json({ type: 'BertNormalizer', lowercase: false }));
  expect(encode('the The café')).toEqual([1, 10, 0, 0, 2]);
});

it('refuses tokenizers of another kind', () => {
  for (const other of [undefined, {}, { ...json(), normalizer: null }, { model: { type: 'BPE' } }]) {
    expect(() => createWordPiece(other)).toThrow("BERT's family");
  }
});
