import { shown, ZoetropeError } from '../errors';
import type { GgufArray, GgufHeader } from './gguf';

/**
 * The vocabulary of UMT5 as text encoder files carry it along — a SentencePiece model in ComfyUI's, keys in GGUF's —
 * turned into the `tokenizer.json` that Hugging Face publishes for it. That text is more than twice as long (4.5 MB
 * become 10 MB), so it is handed out in parts: no buffer is longer because a file says so.
 */

/** A piece of the vocabulary; its place in the list is its id. */
interface Piece {
  text: string;
  score: number;
  type: number;
}

/** `ModelProto.SentencePiece.Type` of sentencepiece_model.proto, which GGUF keeps. */
const UNUSED = 5;
/** `TrainerSpec.ModelType.UNIGRAM`. */
const UNIGRAM = 1;
/** More pieces than any known model has; bounds the work for a hostile file. */
const MAX_PIECES = 1_000_000;
/** Pieces of google/umt5-xxl's model, and the sentinels that its tokenizer puts behind them, in falling order. */
const UMT5_PIECES = 256_000;
const UMT5_SENTINELS = 300;
/** Pieces that its tokenizer.json finds literally in the text before all else, beside the sentinels. */
const ADDED = new Set(['<pad>', '</s>', '<s>', '<unk>']);

/** Characters of a part of the text, at most three bytes each in UTF-8. */
const PART_CHARACTERS = 1024;

type Refuse = (why: string) => never;

function refuser(what: string): Refuse {
  return (why) => {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what}: ${why}. Give the tokenizer.json of google/umt5-xxl as a further source.`,
    );
  };
}

/** Reads one protobuf message: field numbers with varints as numbers and everything else as bytes. */
class Message {
  #at = 0;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly refuse: Refuse,
  ) {}

  *fields(): Generator<[field: number, value: number | Uint8Array]> {
    while (this.#at < this.bytes.length) {
      const tag = this.#varint();
      const field = Math.floor(tag / 8);
      const wire = tag % 8;
      if (field === 0) this.refuse('the SentencePiece model has a field without a number');
      if (wire === 0) yield [field, this.#varint()];
      else if (wire === 1) yield [field, this.#take(8)];
      else if (wire === 2) yield [field, this.#take(this.#varint())];
      else if (wire === 5) yield [field, this.#take(4)];
      else this.refuse(`the SentencePiece model has a field of the unknown wire type ${wire}`);
    }
  }

  #varint(): number {
    let value = 0;
    for (let i = 0; i < 10; i++) {
      const byte = this.#take(1)[0]!;
      value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte < 0x80) return value;
    }
    return this.refuse('the SentencePiece model has a number that does not end');
  }

  #take(count: number): Uint8Array {
    if (count > this.bytes.length - this.#at) this.refuse('the SentencePiece model ends inside a field');
    this.#at += count;
    return this.bytes.subarray(this.#at - count, this.#at);
  }
}

const asBytes = (value: number | Uint8Array, refuse: Refuse): Uint8Array =>
  typeof value === 'number' ? refuse('the SentencePiece model has a number where a text must be') : value;

function parsePiece(bytes: Uint8Array, utf8: TextDecoder, refuse: Refuse): Piece {
  const piece: Piece = { text: '', score: 0, type: 1 };
  for (const [field, value] of new Message(bytes, refuse).fields()) {
    if (field === 1) {
      try {
        piece.text = utf8.decode(asBytes(value, refuse));
      } catch {
        refuse('the SentencePiece model has a piece that is not UTF-8');
      }
    } else if (field === 2) {
      const score = asBytes(value, refuse);
      if (score.length !== 4) refuse('the SentencePiece model has a score that is no float');
      piece.score = new DataView(score.buffer, score.byteOffset, 4).getFloat32(0, true);
    } else if (field === 3 && typeof value === 'number') piece.type = value;
  }
  return piece;
}

/** The number in a field of a message; undefined when it is absent. */
function numberIn(bytes: Uint8Array, wanted: number, refuse: Refuse): number | undefined {
  let found: number | undefined;
  for (const [field, value] of new Message(bytes, refuse).fields()) {
    if (field === wanted && typeof value === 'number') found = value;
  }
  return found;
}

/** Text normalisation of the model must be none but spaces: `tokenizer.json` says no more. */
function checkNormalizer(bytes: Uint8Array, refuse: Refuse): void {
  for (const [field, value] of new Message(bytes, refuse).fields()) {
    if (field === 2 && asBytes(value, refuse).length > 0) {
      refuse('the SentencePiece model has a table of character replacements, which UMT5 has not');
    }
  }
}

/**
 * `tokenizer.json`, in parts of at most 3 KiB, from the bytes of a SentencePiece model (`spiece.model`, ComfyUI's
 * tensor `spiece_model`). Throws `bad-checkpoint`, before any part is made, when it is damaged, not a Unigram model, or
 * not UMT5's kind.
 */
export function tokenizerFromSentencePiece(bytes: Uint8Array, what: string): Iterable<Uint8Array> {
  const refuse = refuser(what);
  const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const pieces: Piece[] = [];
  for (const [field, value] of new Message(bytes, refuse).fields()) {
    if (field === 1) {
      if (pieces.length === MAX_PIECES) refuse(`the SentencePiece model has more than ${MAX_PIECES} pieces`);
      pieces.push(parsePiece(asBytes(value, refuse), utf8, refuse));
    } else if (field === 2) {
      const type = numberIn(asBytes(value, refuse), 3, refuse) ?? UNIGRAM;
      if (type !== UNIGRAM) refuse(`the SentencePiece model is of type ${type}; UMT5's is Unigram (1)`);
    } else if (field === 3) checkNormalizer(asBytes(value, refuse), refuse);
  }
  return tokenizerJson(pieces, refuse);
}

function list(keys: GgufHeader['keys'], name: string): GgufArray | undefined {
  const value = keys.get(name);
  return typeof value === 'object' ? value : undefined;
}

/** Whether a GGUF file carries a vocabulary. */
export function hasVocabulary(keys: GgufHeader['keys']): boolean {
  return list(keys, 'tokenizer.ggml.tokens') !== undefined;
}

/** The same from the keys of a GGUF file (`tokenizer.ggml.*` as llama.cpp writes them for T5). */
export function tokenizerFromGguf(keys: GgufHeader['keys'], what: string): Iterable<Uint8Array> {
  const refuse = refuser(what);
  const model = keys.get('tokenizer.ggml.model');
  if (model !== 't5') refuse(`tokenizer.ggml.model must be "t5", got ${shown(model)}`);
  const charsmap = list(keys, 'tokenizer.ggml.precompiled_charsmap');
  if (charsmap && charsmap.count > 0) refuse('it has a table of character replacements, which UMT5 has not');
  const tokens = list(keys, 'tokenizer.ggml.tokens');
  const scores = list(keys, 'tokenizer.ggml.scores');
  const types = list(keys, 'tokenizer.ggml.token_type');
  if (!tokens || !scores || !types || scores.count !== tokens.count || types.count !== tokens.count) {
    return refuse('tokens, scores and types of its vocabulary are not of one length');
  }
  if (tokens.count > MAX_PIECES) refuse(`its vocabulary has ${tokens.count} pieces; at most ${MAX_PIECES}`);
  const score = scores.values();
  const type = types.values();
  const pieces = tokens.values().map((text, id): Piece => {
    if (typeof text !== 'string') return refuse('its vocabulary holds something that is no text');
    return { text, score: Number(score[id]), type: Number(type[id]) };
  });
  // llama.cpp fills the table up to the rows of the embedding with unused pieces.
  while (pieces.length > 0 && pieces[pieces.length - 1]!.type === UNUSED) pieces.pop();
  return tokenizerJson(pieces, refuse);
}

/** UTF-8 of texts in their order, in parts. */
function* encodeParts(texts: Iterable<string>): Generator<Uint8Array> {
  const utf8 = new TextEncoder();
  let waiting = '';
  for (const text of texts) {
    waiting += text;
    let at = 0;
    while (waiting.length - at >= PART_CHARACTERS) {
      let end = at + PART_CHARACTERS;
      // The halves of a surrogate pair stay together.
      if ((waiting.charCodeAt(end - 1) & 0xfc00) === 0xd800) end--;
      yield utf8.encode(waiting.slice(at, end));
      at = end;
    }
    waiting = waiting.slice(at);
  }
  if (waiting !== '') yield utf8.encode(waiting);
}

/** The text of `document` with `model` as its last member; the vocabulary is written entry by entry. */
function* jsonTexts(document: object, unknown: number, vocab: Iterable<[string, number]>): Generator<string> {
  yield `${JSON.stringify(document).slice(0, -1)},"model":{"type":"Unigram","unk_id":${unknown},"vocab":[`;
  let separator = '';
  for (const entry of vocab) {
    yield separator + JSON.stringify(entry);
    separator = ',';
  }
  yield '],"byte_fallback":false}}';
}

function tokenizerJson(pieces: readonly Piece[], refuse: Refuse): Iterable<Uint8Array> {
  const ids = new Map<string, number>();
  for (const [id, { text, score }] of pieces.entries()) {
    if (!Number.isFinite(score)) refuse(`its piece ${id} has the score ${score}`);
    if (ids.has(text)) refuse(`its vocabulary has the piece ${JSON.stringify(text.slice(0, 40))} twice`);
    ids.set(text, id);
  }
  const end = ids.get('</s>');
  const unknown = ids.get('<unk>');
  if (end === undefined || unknown === undefined) return refuse('its vocabulary has no "</s>" or no "<unk>"');
  const vocab: [string, number][] = pieces.map(({ text, score }) => [text, score]);
  if (pieces.length === UMT5_PIECES && !ids.has('<extra_id_0>')) {
    for (let i = UMT5_SENTINELS - 1; i >= 0; i--) vocab.push([`<extra_id_${i}>`, 0]);
  }
  const special = [...vocab.entries()].filter(([, [text]]) => ADDED.has(text) || /^<extra_id_\d+>$/.test(text));
  // Each is written with its flags, ten times as long as it is.
  if (special.length > ADDED.size + UMT5_SENTINELS) {
    refuse(`its vocabulary has ${special.length} special pieces; UMT5's has ${ADDED.size + UMT5_SENTINELS} at most`);
  }
  const added = special.map(([id, [content]]) => {
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
    return { id, content, ...flags };
  });
  const metaspace = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true };
  const sequence = { Sequence: { id: 'A', type_id: 0 } };
  const last = { SpecialToken: { id: '</s>', type_id: 0 } };
  const document = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: {
      type: 'Sequence',
      normalizers: [{ type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' }],
    },
    pre_tokenizer: metaspace,
    post_processor: {
      type: 'TemplateProcessing',
      single: [sequence, last],
      pair: [sequence, last, { Sequence: { id: 'B', type_id: 0 } }, last],
      special_tokens: { '</s>': { id: '</s>', ids: [end], tokens: ['</s>'] } },
    },
    decoder: metaspace,
  };
  return encodeParts(jsonTexts(document, unknown, vocab));
}
