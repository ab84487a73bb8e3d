import { parseObject } from '../checkpoint/json';
import { throwIfAborted, ZoetropeError } from '../errors';
import type { HostModel, HostValue, Ort } from '../gpu/ort';
import type { Folder } from '../manifest';
import type { TextClassifier } from '../protocol';
import type { TextChecker, Verdict } from './checker';
import { createCut } from './text-pieces';

/**
 * A text classifier of the caller's: an ONNX sequence classifier (BERT, DeBERTa, RoBERTa and the like) with its
 * tokenizer, on the CPU.
 */

/** Largest file that is read whole. */
const MAX_BYTES = 1024 * 1024 * 1024;

async function readWhole(folder: Folder, path: string): Promise<Uint8Array> {
  const file = await folder.open(path);
  if (file.sizeBytes > MAX_BYTES) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${path} of the text classifier has ${file.sizeBytes} bytes; at most 1 GiB is read.`,
    );
  }
  return file.read(0, file.sizeBytes);
}

/**
 * Opens `tokenizer.json` and `model.onnx` of a folder as a checker. Sessions run in the engine's queue.
 * Throws `unreadable-source`, `bad-checkpoint`, and `bad-request` for thresholds of labels that are not there.
 */
export async function openTextClassifier(
  folder: Folder,
  ort: Ort,
  options: TextClassifier,
): Promise<TextChecker & { release(): Promise<void> }> {
  const { name, labels, thresholds, maxTokens } = options;
  const unknown = Object.keys(thresholds).find((label) => !labels.includes(label));
  if (unknown !== undefined) {
    throw new ZoetropeError(
      'bad-request',
      `The text classifier has no label "${unknown}"; its labels are ${labels.join(', ')}.`,
    );
  }
  const tokenizer = parseObject(await readWhole(folder, 'tokenizer.json'), 'tokenizer.json of the text classifier');
  const cut = createCut(tokenizer, maxTokens);
  const model = await ort.openOnHost(name, await readWhole(folder, 'model.onnx'));
  return {
    name,
    async check(text, signal) {
      const scores = labels.map(() => 0);
      for (const ids of cut(text)) {
        throwIfAborted(signal);
        activate(await logits(model, ids, options), options.activation).forEach((score, i) => {
          scores[i] = Math.max(scores[i]!, score);
        });
      }
      return judgeScores(scores, options);
    },
    release: () => model.release(),
  };
}

async function logits(
  model: HostModel,
  ids: readonly number[],
  { name, labels }: TextClassifier,
): Promise<Float32Array> {
  const row = (value: (id: number) => number): HostValue => ({
    type: 'int64',
    data: BigInt64Array.from(ids, (id) => BigInt(value(id))),
    dims: [1, ids.length],
  });
  // The names of BERT's family; each model has those that it needs.
  const known: Record<string, () => HostValue> = {
    input_ids: () => row((id) => id),
    attention_mask: () => row(() => 1),
    token_type_ids: () => row(() => 0),
  };
  const feeds = model.inputNames.map((input) => {
    const make = known[input];
    if (!make)
      throw new ZoetropeError(
        'bad-checkpoint',
        `The text classifier "${name}" wants "${input}", which is not known here.`,
      );
    return [input, make()] as const;
  });
  const outputs = await model.run(Object.fromEntries(feeds));
  const values = outputs.logits ?? Object.values(outputs)[0];
  if (values?.length !== labels.length) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `The text classifier "${name}" gives ${values?.length} scores for ${labels.length} labels.`,
    );
  }
  // No threshold holds for it, so every text would pass.
  if (values.some(Number.isNaN)) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `The text classifier "${name}" gives NaN. Export it in a type that holds its values.`,
    );
  }
  return values;
}

/**
 * A checker that opens a classifier for each check and frees it before anything else needs the memory.
 * @param folder whose reads end with the signal of the check.
 */
export function classifierAt(folder: Folder, ort: Ort, options: TextClassifier): TextChecker {
  return {
    name: options.name,
    async check(text, signal) {
      // A read that the signal breaks off fails by the server's name.
      const checker = await openTextClassifier(folder, ort, options).catch((error: unknown) => {
        throwIfAborted(signal);
        throw error;
      });
      try {
        return await checker.check(text, signal);
      } finally {
        await checker.release();
      }
    },
  };
}

/** Logits to scores, 0 to 1. */
export function activate(values: ArrayLike<number>, activation: 'sigmoid' | 'softmax'): number[] {
  const list = Array.from(values);
  if (activation === 'sigmoid') return list.map((value) => 1 / (1 + Math.exp(-value)));
  const highest = Math.max(...list);
  const powers = list.map((value) => Math.exp(value - highest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/** Scores against their thresholds. The verdict's categories are the labels that have one. */
export function judgeScores(
  scores: readonly number[],
  { name, labels, thresholds }: Pick<TextClassifier, 'name' | 'labels' | 'thresholds'>,
): Verdict {
  const judged = labels.map((label, i) => [label, scores[i]!, thresholds[label]] as const);
  const flagged = judged.some(([, score, threshold]) => threshold !== undefined && score >= threshold);
  const categories = judged
    .filter(([, , threshold]) => threshold !== undefined)
    .map(([label, score]) => [label, score] as const);
  return { checker: name, flagged, categories: Object.fromEntries(categories) };
}
