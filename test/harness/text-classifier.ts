import { Graph } from '../../src/onnx/graph';
import { add, gather, matmul, reduceSum, reshape } from '../../src/onnx/ops';
import type { TextClassifier } from '../../src/protocol';

/** A text classifier of four ids: it counts the words "bad" and "good". */

/** Tokens of a piece of text, the two round it included. */
const TOKENS = 4;

/** What the engine is told of it. */
export const CLASSIFIER: TextClassifier = {
  url: '',
  name: 'tiny',
  labels: ['bad', 'good'],
  thresholds: { bad: 0.5 },
  activation: 'sigmoid',
  maxTokens: TOKENS,
};

/** Its `model.onnx`: label `bad` counts id 2, label `good` id 3, each above a bias. */
export function classifierModel(bias = -2): Uint8Array {
  const graph = new Graph('tiny');
  const ids = graph.input('input_ids', 'int64', [1, TOKENS]);
  const table = graph.floats([0, 0, 0, 0, 1, 0, 0, 1], [4, 2]);
  const sum = reshape(reduceSum(gather(table, ids), 1), [1, 2]);
  graph.output('logits', add(matmul(sum, graph.floats([4, 0, 0, 4], [2, 2])), graph.floats([bias, bias])));
  return graph.toModel();
}

/** Its `tokenizer.json`. */
export const CLASSIFIER_TOKENIZER = {
  normalizer: { type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true, lowercase: true },
  pre_tokenizer: { type: 'BertPreTokenizer' },
  post_processor: {
    type: 'TemplateProcessing',
    single: [
      { SpecialToken: { id: '[CLS]', type_id: 0 } },
      { Sequence: { id: 'A', type_id: 0 } },
      { SpecialToken: { id: '[SEP]', type_id: 0 } },
    ],
    pair: [],
    special_tokens: {
      '[CLS]': { id: '[CLS]', ids: [0], tokens: ['[CLS]'] },
      '[SEP]': { id: '[SEP]', ids: [0], tokens: ['[SEP]'] },
    },
  },
  decoder: null,
  added_tokens: [],
  model: {
    type: 'WordPiece',
    vocab: { '[CLS]': 0, '[SEP]': 0, '[UNK]': 0, a: 1, bad: 2, good: 3 },
    unk_token: '[UNK]',
    continuing_subword_prefix: '##',
    max_input_chars_per_word: 100,
  },
};
