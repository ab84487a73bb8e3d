import { shown, ZoetropeError } from '../errors';

/**
 * The Unigram tokenizer of UMT5 as the `tokenizers` library (0.23.2) runs its tokenizer.json.
 *
 * Own code and not `@huggingface/tokenizers` 0.2.0, measured on the 16.8 MB file of google/umt5-xxl, Node 20, 2 cores.
 * Both give every golden id, and both load fast (570 ms there, 75 ms here, after 105 ms of JSON.parse). But that
 * package's trie holds 144 MiB of heap where this map holds 16, more than the 128 MiB that loading a model may take at
 * all, and its Metaspace does not cut words at a literal "▁", so that runs of them become other ids than the
 * reference's.
 */

/** Most ids of a prompt, the final `</s>` included: `text_len` of Wan2.2 `wan/configs/shared_config.py`. */
export const MAX_TOKENS = 512;

/** Stands for a space and begins every word: U+2581, SentencePiece's choice. */
const WORD_START = '▁';
/** Below the lowest score of the vocabulary: `kUnkPenalty` of SentencePiece and of tokenizers' unigram model. */
const UNKNOWN_PENALTY = 10;
/**
 * Longest piece, UTF-16 code units, and most added tokens that are read; UMT5's have 16 and 304. The search over a word
 * takes its length times the longest piece, and the added tokens become one pattern.
 */
const MAX_PIECE_LENGTH = 256;
const MAX_ADDED = 4096;

/** Turns cleaned text into ids. */
export interface Tokenizer {
  /** Every id is below this; the text encoder's embedding table needs at least so many rows. */
  readonly idCount: number;
  /**
   * Ids of a text with the end token `</s>` last. The text is taken as it is: clean it first with `cleanPrompt`.
   *
   * @returns from 1 (empty text) to `MAX_TOKENS` ids; what a longer text has beyond the first 511 is dropped
   */
  encode(text: string): Int32Array<ArrayBuffer>;
}

/** What tokenizer.json says, checked. */
interface Vocabulary {
  /** Id of each piece. */
  pieces: ReadonlyMap<string, number>;
  /** Logarithm of the probability of each piece, by id. */
  scores: Float64Array;
  /** Length of the longest piece in UTF-16 code units, so no piece has more code points. */
  longest: number;
  unknownId: number;
  unknownScore: number;
  /** Texts that are cut out before all else, with their ids. */
  added: ReadonlyMap<string, number>;
  endId: number;
}

/**
 * @param tokenizerJson parsed content of a Hugging Face tokenizer.json
 * @throws ZoetropeError `bad-checkpoint` when it is malformed, has no `</s>`, or is not a Unigram tokenizer with the
 * normalizer (double spaces), pre-tokenizer (Metaspace) and post-processor (`</s>` at the end) of UMT5
 */
export function createTokenizer(tokenizerJson: unknown): Tokenizer {
  const vocabulary = parse(tokenizerJson);
  const { added, endId } = vocabulary;
  const longestFirst = [...added.keys()].sort((a, b) => b.length - a.length);
  const addedPattern = new RegExp(`(${longestFirst.map(escapeRegExp).join('|')})`);
  let idCount = vocabulary.scores.length;
  for (const id of added.values()) idCount = Math.max(idCount, id + 1);
  return {
    idCount,
    encode(text) {
      const ids: number[] = [];
      for (const part of text.split(addedPattern)) {
        const addedId = added.get(part);
        if (addedId !== undefined) ids.push(addedId);
        else appendIds(ids, part, vocabulary);
        if (ids.length >= MAX_TOKENS) break;
      }
      return Int32Array.from([...ids.slice(0, MAX_TOKENS - 1), endId]);
    },
  };
}

/** Appends the ids of text without added tokens; stops after the word that fills the limit. */
function appendIds(ids: number[], text: string, vocabulary: Vocabulary): void {
  for (const word of splitWords(text)) {
    for (const id of segment(word, vocabulary)) ids.push(id);
    if (ids.length >= MAX_TOKENS) return;
  }
}

/** Normalizer and pre-tokenizer: words that each begin with one "▁". A "▁" of the text acts like a space. */
function splitWords(text: string): string[] {
  if (text === '') return [];
  const marked = text.replace(/ +/g, WORD_START);
  return (marked.startsWith(WORD_START) ? marked : WORD_START + marked).match(/▁[^▁]*/g)!;
}

/**
 * Viterbi search for the pieces of a word with the highest sum of scores; of equal sums the first found wins, as in the
 * reference. A code point that is no piece is unknown, and unknown neighbours become one id.
 */
function segment(word: string, { pieces, scores, longest, unknownId, unknownScore }: Vocabulary): number[] {
  const offsets = [0]; // of code points, in UTF-16 code units
  for (const character of word) offsets.push(offsets.at(-1)! + character.length);
  const count = offsets.length - 1;
  const best = new Float64Array(count + 1).fill(-Infinity); // score of the best path to each position
  const last = new Int32Array(count + 1); // id of the last piece of that path
  const from = new Int32Array(count + 1); // where that piece begins
  best[0] = 0;
  const offer = (begin: number, end: number, id: number, score: number) => {
    const sum = best[begin]! + score;
    if (sum > best[end]!) {
      best[end] = sum;
      last[end] = id;
      from[end] = begin;
    }
  };
  for (let begin = 0; begin < count; begin++) {
    for (let end = begin + 1; end <= Math.min(count, begin + longest); end++) {
      const id = pieces.get(word.slice(offsets[begin], offsets[end]));
      if (id !== undefined) offer(begin, end, id, scores[id]!);
    }
    offer(begin, begin + 1, unknownId, unknownScore); // loses to a piece of this code point: no score is as low
  }
  const ids: number[] = [];
  for (let end = count; end > 0; end = from[end]!) {
    if (last[end] !== unknownId || ids.at(-1) !== unknownId) ids.push(last[end]!);
  }
  return ids.reverse();
}

type Json = Record<string, unknown>;

function refuse(problem: string): never {
  throw new ZoetropeError(
    'bad-checkpoint',
    `tokenizer.json: ${problem} Take the tokenizer.json that belongs to the UMT5 text encoder (google/umt5-xxl).`,
  );
}

function object(value: unknown, name: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    refuse(`${name} must be an object, got ${shown(value)}.`);
  }
  return value as Json;
}

function array(value: unknown, name: string): unknown[] {
  if (!Array.isArray(value)) refuse(`${name} must be an array, got ${shown(value)}.`);
  return value;
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}

function parse(tokenizerJson: unknown): Vocabulary {
  const json = object(tokenizerJson, 'the content');
  const model = object(json.model, '"model"');
  if (model.type !== 'Unigram') refuse(`"model.type" must be "Unigram", got ${shown(model.type)}.`);
  if (model.byte_fallback) refuse('"model.byte_fallback" must be false, got true.');

  const vocab = array(model.vocab, '"model.vocab"');
  if (vocab.length === 0) refuse('"model.vocab" must hold pieces, got none.');
  const pieces = new Map<string, number>();
  const scores = new Float64Array(vocab.length);
  let longest = 0;
  for (const [id, entry] of vocab.entries()) {
    const [piece, score] = array(entry, `"model.vocab[${id}]"`);
    if (typeof piece !== 'string' || typeof score !== 'number' || !Number.isFinite(score)) {
      refuse(`"model.vocab[${id}]" must be a piece and its score, got ${shown(entry)}.`);
    }
    if (pieces.has(piece)) refuse(`"model.vocab" must not repeat a piece, got ${shown(piece)} twice.`);
    pieces.set(piece, id);
    scores[id] = score;
    longest = Math.max(longest, piece.length);
    if (longest > MAX_PIECE_LENGTH) refuse(`a piece has at most ${MAX_PIECE_LENGTH} characters, got ${longest}.`);
  }
  const unknownId = model.unk_id;
  if (!isId(unknownId) || unknownId >= vocab.length) {
    refuse(`"model.unk_id" must be an id of the ${vocab.length} pieces, got ${shown(unknownId)}.`);
  }
  const added = parseAdded(json.added_tokens);
  const endId = added.get('</s>');
  if (endId === undefined) refuse('"added_tokens" must hold the end token "</s>", and it does not.');
  checkSteps(json, endId);
  const unknownScore = scores.reduce((low, score) => Math.min(low, score), Infinity) - UNKNOWN_PENALTY;
  return { pieces, scores, longest, unknownId, unknownScore, added, endId };
}

/** Added tokens are found literally in the raw text, which is what all their flags being false means. */
function parseAdded(value: unknown): Map<string, number> {
  const added = new Map<string, number>();
  const list = array(value, '"added_tokens"');
  if (list.length > MAX_ADDED) refuse(`"added_tokens" must be at most ${MAX_ADDED}, got ${list.length}.`);
  for (const [index, entry] of list.entries()) {
    const token = object(entry, `"added_tokens[${index}]"`);
    const { content, id } = token;
    if (typeof content !== 'string' || content === '' || content.length > MAX_PIECE_LENGTH || !isId(id)) {
      refuse(`"added_tokens[${index}]" must have a content and an id, got ${shown(entry)}.`);
    }
    for (const flag of ['single_word', 'lstrip', 'rstrip', 'normalized']) {
      if (token[flag]) refuse(`"${flag}" of the added token ${shown(content)} must be false, got true.`);
    }
    added.set(content, id);
  }
  return added;
}

function isId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 31;
}

function isOnly(list: unknown, id: number): boolean {
  return Array.isArray(list) && list.length === 1 && list[0] === id;
}

/** The steps round the model must be those that `encode` takes: any other would give other ids without a word. */
function checkSteps(json: Json, endId: number): void {
  const { normalizer, pre_tokenizer: preTokenizer, post_processor: postProcessor } = json;
  const normalizers = object(normalizer, '"normalizer"');
  const rules = normalizers.type === 'Sequence' ? array(normalizers.normalizers, '"normalizers"') : [normalizer];
  const rule = object(rules[0], 'the first of "normalizers"');
  const regex = (rule.pattern as Json | undefined)?.Regex;
  if (rules.length !== 1 || rule.type !== 'Replace' || regex !== ' {2,}' || rule.content !== ' ') {
    refuse(`"normalizer" must only replace " {2,}" by one space, got ${shown(normalizer)}.`);
  }
  const metaspace = object(preTokenizer, '"pre_tokenizer"');
  const prefixed = 'prepend_scheme' in metaspace ? metaspace.prepend_scheme === 'always' : metaspace.add_prefix_space;
  const split = metaspace.split ?? true;
  if (metaspace.type !== 'Metaspace' || metaspace.replacement !== WORD_START || prefixed !== true || split !== true) {
    refuse(`"pre_tokenizer" must be a Metaspace of "▁" that always prepends and splits, got ${shown(preTokenizer)}.`);
  }
  const template = object(postProcessor, '"post_processor"');
  const parts = template.type === 'TemplateProcessing' ? array(template.single, '"post_processor.single"') : [];
  const [sequence, end] = parts as [Json?, Json?];
  const endToken = (end?.SpecialToken as Json | undefined)?.id;
  const { ids } = ((template.special_tokens as Json | undefined)?.['</s>'] ?? {}) as Json;
  if (parts.length !== 2 || !sequence?.Sequence || endToken !== '</s>' || !isOnly(ids, endId)) {
    refuse(`"post_processor" must append "</s>" (${endId}) and nothing else, got ${shown(postProcessor)}.`);
  }
}
