import { qkNormRope } from '../../kernels/qk-norm-rope';
import { HEAD_DIM } from '../config';
import { throwIfAborted } from '../errors';
import type { Gpu } from '../gpu/device';
import { type GpuTensor, Scope } from '../gpu/memory';
import type { Weights } from '../gpu/weights';
import type { DitSessions } from './block-graphs';

/** A prompt as the text encoder gives it: n real rows, without padding. */
export interface TextEmbedding {
  /** n, 1 to 512. */
  rows: number;
  /** [n, textDim]. */
  values: Float32Array;
}

/**
 * Keys and values of a prompt in every block of one expert. They depend neither on the step nor on the latents, so they are
 * made once. The rows n..511 of the padded text are all equal; their 512 - n keys are one key here, whose logit the
 * attention kernel raises by ln(512 - n): the same softmax, exactly.
 */
export interface TextKeys extends Disposable {
  /** Keys to attend to: n + 1, or 512 when no row is padding. */
  keys: number;
  /** ln(512 - n), or 0. */
  lastKeyBias: number;
  /** [heads, keys, 128] each. */
  blocks: { keys: GpuTensor; values: GpuTensor }[];
}

/** Rows to encode and the bias of the last one, for n real rows of `textLen`. */
export function collapsedRows(real: number, textLen: number): { keys: number; lastKeyBias: number } {
  return real >= textLen
    ? { keys: textLen, lastKeyBias: 0 }
    : { keys: real + 1, lastKeyBias: Math.log(textLen - real) };
}

/** Makes the keys and values of one prompt for one expert. */
export async function encodeTextKeys(
  gpu: Gpu,
  sessions: DitSessions,
  weights: Weights,
  text: TextEmbedding,
  type: 'f16' | 'f32',
  signal?: AbortSignal,
): Promise<TextKeys> {
  const { config } = sessions;
  const { keys, lastKeyBias } = collapsedRows(text.rows, config.textLen);
  const made = new Scope();
  using scratch = new Scope();
  const make = (scope: Scope, label: string, shape: number[], half = false) =>
    scope.own(gpu.memory.tensor(label, half ? 'float16' : 'float32', shape));
  try {
    // Buffers start as zeros, so the row behind the real ones is the padding row.
    const context = make(scratch, 'context', [keys, config.textDim]);
    gpu.memory.write(context, text.values);
    const c = make(scratch, 'projected text', [keys, config.dim]);
    const projection = await sessions.outer('text', weights, keys);
    await projection.session.run(weights.feeds(projection.graph.inputs, '', { context }), { c });
    const k = make(scratch, 'text keys', [keys, config.dim]);
    const v = make(scratch, 'text values', [keys, config.dim]);
    const blocks: TextKeys['blocks'] = [];
    for (let block = 0; block < config.numLayers; block++) {
      throwIfAborted(signal);
      const compiled = await sessions.block('crossKv', weights, block, keys);
      await compiled.session.run(weights.feeds(compiled.graph.inputs, `blocks.${block}.`, { c }), { k, v });
      const shape = [config.numHeads, keys, HEAD_DIM];
      const stored = {
        keys: make(made, `text keys ${block}`, shape, type === 'f16'),
        values: make(made, `text values ${block}`, shape, type === 'f16'),
      };
      const store = {
        type,
        tokens: keys,
        dim: config.dim,
        heads: config.numHeads,
        headOffset: 0,
        rope: false,
        outTokens: keys,
        storeOffset: 0,
        ropeOffset: 0,
        grid: [1, 1, keys] as const,
        eps: config.eps,
      };
      const weight = weights.tensor(`blocks.${block}.cross_attn.norm_k.weight`);
      await qkNormRope.run(gpu, { ...store, norm: true }, { x: k, weight, rope: weight, out: stored.keys });
      await qkNormRope.run(gpu, { ...store, norm: false }, { x: v, weight, rope: weight, out: stored.values });
      blocks.push(stored);
    }
    return { keys, lastKeyBias, blocks, [Symbol.dispose]: () => made[Symbol.dispose]() };
  } catch (error) {
    made[Symbol.dispose]();
    throw error;
  }
}
