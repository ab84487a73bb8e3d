import { MessageWriter } from '../../src/onnx/wire';

/**
 * A causal language model that knows one answer, as files that transformers.js reads: every token has one that follows
 * it. A graph of ours has fixed shapes, so this one, which takes texts of any length, is written out.
 */

/** What it answers, whatever it is asked. */
export const ANSWER =
  'daylight , wide shot . a red circle with one thin edge glides slowly to the right on black ground while its size stays equal';

/** Its text as the tokenizer's decoder joins it. */
export const DECODED = ANSWER.replace(/ ([.,])/g, '$1');

const SPECIAL = ['[UNK]', '<go>', '</s>'];

/** No word comes twice: it would have two followers. */
const WORDS = ANSWER.split(' ');
const TOKENS = [...SPECIAL, ...WORDS];

/** The files below the model's URL. */
export function languageModelFiles(): Map<string, Uint8Array> {
  const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
  const special = SPECIAL.map((content, id) => ({
    id,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  }));
  return new Map([
    ['onnx/model.onnx', model()],
    [
      'config.json',
      json({
        model_type: 'gpt2',
        architectures: ['GPT2LMHeadModel'],
        n_layer: 0,
        n_head: 1,
        n_embd: 1,
        eos_token_id: 2,
      }),
    ],
    ['generation_config.json', json({ eos_token_id: 2, bos_token_id: 1, pad_token_id: 2 })],
    [
      'tokenizer_config.json',
      json({
        tokenizer_class: 'PreTrainedTokenizerFast',
        eos_token: '</s>',
        pad_token: '</s>',
        unk_token: '[UNK]',
        chat_template: '{% for message in messages %}{{ message.content }} {% endfor %}<go>',
      }),
    ],
    [
      'tokenizer.json',
      json({
        version: '1.0',
        added_tokens: special,
        normalizer: null,
        pre_tokenizer: { type: 'WhitespaceSplit' },
        post_processor: null,
        decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
        model: {
          type: 'WordPiece',
          unk_token: '[UNK]',
          continuing_subword_prefix: '##',
          max_input_chars_per_word: 100,
          vocab: Object.fromEntries(TOKENS.map((token, id) => [token, id])),
        },
      }),
    ],
  ]);
}

/** `logits` [1, n, tokens] = a table of what follows what, at `input_ids` [1, n]. */
function model(): Uint8Array {
  const count = TOKENS.length;
  const table = new Float32Array(count * count);
  for (let id = 1; id < count; id++) {
    const next = id === 1 ? SPECIAL.length : id === 2 || id === count - 1 ? 2 : id + 1;
    table[id * count + next] = 10;
  }
  const node = new MessageWriter().string(1, 'table').string(1, 'input_ids').string(2, 'logits').string(4, 'Gather');
  const weights = new MessageWriter()
    .integers(1, [count, count])
    .integer(2, 1)
    .string(8, 'table')
    .bytes(9, new Uint8Array(table.buffer));
  const value = (name: string, type: number, dims: readonly (number | string)[]) => {
    const shape = new MessageWriter();
    for (const dim of dims) {
      const size = new MessageWriter();
      shape.message(1, typeof dim === 'string' ? size.string(2, dim) : size.integer(1, dim));
    }
    const tensor = new MessageWriter().integer(1, type).message(2, shape);
    return new MessageWriter().string(1, name).message(2, new MessageWriter().message(1, tensor));
  };
  const graph = new MessageWriter()
    .message(1, node)
    .string(2, 'one answer')
    .message(5, weights)
    .message(11, value('input_ids', 7, [1, 'length']))
    .message(12, value('logits', 1, [1, 'length', count]));
  return new MessageWriter()
    .integer(1, 8)
    .message(7, graph)
    .message(8, new MessageWriter().string(1, '').integer(2, 19))
    .finish();
}
