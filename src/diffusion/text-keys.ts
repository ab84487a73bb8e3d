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
  const rows = collapsedRows(text.rows, config.textLen);
  using scope = new Scope();
  // Buffers start as zeros, so the row behind the real ones is the padding row.
  const context = scope.own(gpu.memory.tensor('context', 'float32', [rows.keys, config.textDim]));
  gpu.memory.write(context, text.values);
  const c = scope.own(gpu.memory.tensor('projected text', 'float32', [rows.keys, config.dim]));
  const projection = await sessions.outer('text', weights, rows.keys);
  await projection.session.run(weights.feeds(projection.graph.inputs, '', { context }), { c });
  return await textKeys(gpu, sessions, weights, c, rows, type, signal); // `scope` must outlive it
}

/** Keys and values from text that has been projected to the model's width: c [keys, C]. */
export async function textKeys(
  gpu: Gpu,
  sessions: DitSessions,
  weights: Weights,
  c: GpuTensor,
  { keys, lastKeyBias }: { keys: number; lastKeyBias: number },
  type: 'f16' | 'f32',
  signal?: AbortSignal,
): Promise<TextKeys> {
  const { dim, numHeads, numLayers, eps } = sessions.config;
  const made = new Scope();
  using scratch = new Scope();
  try {
    const k = scratch.own(gpu.memory.tensor('text keys', 'float32', [keys, dim]));
    const v = scratch.own(gpu.memory.tensor('text values', 'float32', [keys, dim]));
    const blocks: TextKeys['blocks'] = [];
    for (let block = 0; block < numLayers; block++) {
      throwIfAborted(signal);
      const compiled = await sessions.block('crossKv', weights, block, keys);
      await compiled.session.run(weights.feeds(compiled.graph.inputs, `blocks.${block}.`, { c }), { k, v });
      const stored = (label: string) =>
        made.own(
          gpu.memory.tensor(`${label} ${block}`, type === 'f16' ? 'float16' : 'float32', [numHeads, keys, HEAD_DIM]),
        );
      const pair = { keys: stored('text keys'), values: stored('text values') };
      const store = {
        type,
        tokens: keys,
        dim,
        heads: numHeads,
        headOffset: 0,
        rope: false,
        outTokens: keys,
        storeOffset: 0,
        ropeOffset: 0,
        grid: [1, 1, keys] as const,
        eps,
      };
      const weight = weights.tensor(`blocks.${block}.cross_attn.norm_k.weight`);
      await qkNormRope.run(gpu, { ...store, norm: true }, { x: k, weight, rope: weight, out: pair.keys });
      await qkNormRope.run(gpu, { ...store, norm: false }, { x: v, weight, rope: weight, out: pair.values });
      blocks.push(pair);
    }
    return { keys, lastKeyBias, blocks, [Symbol.dispose]: () => made[Symbol.dispose]() };
  } catch (error) {
    made[Symbol.dispose]();
    throw error;
  }
}
