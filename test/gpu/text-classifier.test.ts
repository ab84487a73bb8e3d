import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ZoetropeError } from '../../src/errors';
import type { Folder } from '../../src/manifest';
import { activate, classifierAt, judgeScores, openTextClassifier } from '../../src/safety/classifier';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { CLASSIFIER_TOKENIZER, classifierModel, CLASSIFIER as options } from '../harness/text-classifier';

function folder(model = classifierModel()): Folder {
  const json = new TextEncoder().encode(JSON.stringify(CLASSIFIER_TOKENIZER));
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

  it('lets nothing pass by scores that are no numbers', async () => {
    const checker = await openTextClassifier(folder(classifierModel(Number.NaN)), gpu.ort, options);
    await expect(checker.check('a bad')).rejects.toMatchObject({ code: 'bad-checkpoint' });
    await checker.release();
  });

  it('ends with its signal, while it is read and between the pieces', async () => {
    const controller = new AbortController();
    const broken: Folder = {
      open() {
        controller.abort();
        throw new ZoetropeError('unreadable-source', 'It broke off.');
      },
    };
    const { signal } = controller;
    await expect(classifierAt(broken, gpu.ort, options).check('a', signal)).rejects.toMatchObject({ code: 'aborted' });
    await expect(classifierAt(folder(), gpu.ort, options).check('a', signal)).rejects.toMatchObject({
      code: 'aborted',
    });
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
