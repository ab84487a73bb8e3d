import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Folder } from '../../src/manifest';
import { Graph } from '../../src/onnx/graph';
import { add, gather, matmul, reduceSum, reshape } from '../../src/onnx/ops';
import type { TextClassifier } from '../../src/protocol';
import { activate, judgeScores, openTextClassifier } from '../../src/safety/classifier';
import { openTestGpu, type TestGpu } from '../harness/dawn';

/** Tokens of a piece of text, the two round it included. */
const TOKENS = 4;

/** A classifier of four ids: label `bad` counts id 2, label `good` id 3, each above a bias. */
function tinyModel(): Uint8Array {
  const graph = new Graph('tiny');
  const ids = graph.input('input_ids', 'int64', [1, TOKENS]);
  const table = graph.floats([0, 0, 0, 0, 1, 0, 0, 1], [4, 2]);
  const sum = reshape(reduceSum(gather(table, ids), 1), [1, 2]);
  graph.output('logits', add(matmul(sum, graph.floats([4, 0, 0, 4], [2, 2])), graph.floats([-2, -2])));
  return graph.toModel();
}

const options: TextClassifier = {
  url: '',
  name: 'tiny',
  labels: ['bad', 'good'],
  thresholds: { bad: 0.5 },
  activation: 'sigmoid',
  maxTokens: TOKENS,
};

function folder(model = tinyModel()): Folder {
  const vocab = { '[CLS]': 0, '[SEP]': 0, '[UNK]': 0, a: 1, bad: 2, good: 3 };
  const wordPiece = {
    type: 'WordPiece',
    vocab,
    unk_token: '[UNK]',
    continuing_subword_prefix: '##',
    max_input_chars_per_word: 100,
  };
  const json = new TextEncoder().encode(JSON.stringify({ model: wordPiece, normalizer: { type: 'BertNormalizer' } }));
  return {
    async open(path) {
      const bytes = path === 'model.onnx' ? model : json;
      return { sizeBytes: bytes.length, read: async (begin, end) => bytes.slice(begin, end) };
    },
  };
}

describe('a text classifier', () => {
  let gpu: TestGpu;

  beforeAll(async () => {
    gpu = await openTestGpu({}, 'null'); // it runs on the CPU
  });

  afterAll(() => gpu?.close());

  it('judges by its model, every piece of a long text', async () => {
    const checker = await openTextClassifier(folder(), gpu.ort, options);
    try {
      expect(await checker.check('a good')).toMatchObject({ checker: 'tiny', flagged: false });
      const { flagged, categories } = await checker.check('a bad');
      expect([flagged, Object.keys(categories)]).toEqual([true, ['bad']]);
      expect(categories.bad).toBeCloseTo(1 / (1 + Math.exp(-2)), 5);
      expect(await checker.check('a a a a a a bad a')).toMatchObject({ flagged: true });
    } finally {
      await checker.release();
    }
  });

  it('refuses thresholds without a label, and models of another shape', async () => {
    const wrong = { ...options, thresholds: { worse: 0.5 } };
    await expect(openTextClassifier(folder(), gpu.ort, wrong)).rejects.toThrow('no label "worse"');
    const three = { ...options, labels: ['bad', 'good', 'odd'] };
    const checker = await openTextClassifier(folder(), gpu.ort, three);
    await expect(checker.check('a a')).rejects.toMatchObject({ code: 'bad-checkpoint' });
    await checker.release();
    await expect(openTextClassifier(folder(new Uint8Array([1, 2, 3])), gpu.ort, options)).rejects.toThrow('tiny');
  });
});

describe('scores', () => {
  it('follow from logits', () => {
    expect(activate([0, Math.log(3)], 'softmax').map((score) => Number(score.toFixed(6)))).toEqual([0.25, 0.75]);
    expect(activate([0, 1000], 'softmax')).toEqual([0, 1]);
    expect(activate([0, -1000], 'sigmoid')).toEqual([0.5, 0]);
  });

  it('refuse from their threshold on, and only where there is one', () => {
    expect(judgeScores([0.5, 0.99], options).flagged).toBe(true);
    expect(judgeScores([0.49, 0.99], options)).toEqual({ checker: 'tiny', flagged: false, categories: { bad: 0.49 } });
  });
});
