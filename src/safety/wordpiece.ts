import { ZoetropeError } from '../errors';

/** The WordPiece tokenizer of BERT's family (BERT, DistilBERT, MiniLM), as `tokenizers` 0.22 runs its tokenizer.json. Pure. */

/** Turns a text into ids with the special tokens of its model round them. */
export type Encode = (text: string) => readonly number[];

interface WordPieceJson {
  model: {
    type: string;
    vocab: Record<string, number>;
    unk_token: string;
    continuing_subword_prefix: string;
    max_input_chars_per_word: number;
  };
  normalizer: { type: string; lowercase?: boolean; strip_accents?: boolean | null } | null;
}

/** Ideographs that BERT takes one by one: `_is_chinese_char` of google-research/bert `tokenization.py`. */
const IDEOGRAPHS =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;

/** ASCII that is neither letter nor digit counts as punctuation, `_is_punctuation` there. */
const PUNCTUATION = /[\p{P}!-/:-@[-`{-~]/gu;

/**
 * @returns a function that gives ids with `[CLS]` first and `[SEP]` last.
 * Throws `bad-checkpoint` for tokenizers of another kind.
 */
export function createWordPiece(tokenizerJson: unknown): Encode {
  const { model, normalizer } = (tokenizerJson ?? {}) as WordPieceJson;
  if (model?.type !== 'WordPiece' || normalizer?.type !== 'BertNormalizer') {
    throw new ZoetropeError(
      'bad-checkpoint',
      `The text classifier's tokenizer is ${model?.type} with ${normalizer?.type}; WordPiece with BertNormalizer is read. Use a model of BERT's family.`,
    );
  }
  const vocab = new Map(Object.entries(model.vocab));
  const idOf = (token: string) => {
    const id = vocab.get(token);
    if (id === undefined)
      throw new ZoetropeError('bad-checkpoint', `The text classifier's vocabulary has no ${token}.`);
    return id;
  };
  const [first, last, unknown] = [idOf('[CLS]'), idOf('[SEP]'), idOf(model.unk_token)];
  const lower = normalizer.lowercase ?? true;
  const strip = normalizer.strip_accents ?? lower;

  /** The longest pieces of a word from the left; one unknown token where there are none. */
  const pieces = (word: string): number[] => {
    const chars = Array.from(word);
    if (chars.length > model.max_input_chars_per_word) return [unknown];
    const ids: number[] = [];
    for (let begin = 0; begin < chars.length; ) {
      let end = chars.length;
      let id: number | undefined;
      for (; end > begin; end--) {
        id = vocab.get((begin > 0 ? model.continuing_subword_prefix : '') + chars.slice(begin, end).join(''));
        if (id !== undefined) break;
      }
      if (id === undefined) return [unknown];
      ids.push(id);
      begin = end;
    }
    return ids;
  };

  return (text) => {
    let clean = text.replace(/[\0\ufffd]|(?![\t\n\r])\p{C}/gu, '').replace(IDEOGRAPHS, ' $& ');
    if (strip) clean = clean.normalize('NFD').replace(/\p{Mn}/gu, '');
    if (lower) clean = clean.toLowerCase();
    const words = clean
      .replace(PUNCTUATION, ' $& ')
      .split(/\s+/u)
      .filter((word) => word !== '');
    return [first, ...words.flatMap(pieces), last];
  };
}
