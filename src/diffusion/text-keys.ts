import { qkNormRope } from '../../kernels/qk-norm-rope';
import { HEAD_DIM } from '../config';
import { throwIfAborted } from '../errors';
import type { Gpu } from '../gpu/device';
import { type GpuTensor, Scope } from '../gpu/memory';
import type { BlockWeights, WeightView } from '../gpu/weights';
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

/** A prompt as one block sees it. */
export interface BlockText {
  /** Keys to attend to. */
  rows: number;
  lastKeyBias: number;
  /** [heads, rows, 128] each. */
  keys: GpuTensor;
  values: GpuTensor;
}

/** What block `block` attends to. */
export function blockText({ keys, lastKeyBias, blocks }: TextKeys, block: number): BlockText {
  return { rows: keys, lastKeyBias, ...blocks[block]! };
}

/** Rows to encode and the bias of the last one, for n real rows of `textLen`. */
export function collapsedRows(real: number, textLen: number): { keys: number; lastKeyBias: number } {
  return real >= textLen
    ? { keys: textLen, lastKeyBias: 0 }
    : { keys: real + 1, lastKeyBias: Math.log(textLen - real) };
}

/** Makes the keys and values of every prompt for one expert, in one sweep over its blocks. */
export async function encodeTextKeys(
  gpu: Gpu,
  sessions: DitSessions,
  expert: BlockWeights,
  texts: readonly TextEmbedding[],
  type: 'f16' | 'f32',
  signal?: AbortSignal,
): Promise<TextKeys[]> {
  const { config } = sessions;
  using scope = new Scope();
  const projected: ProjectedText[] = [];
  for (const text of texts) {
    const rows = collapsedRows(text.rows, config.textLen);
    // Buffers start as zeros, so the row behind the real ones is the padding row.
    const context = scope.own(gpu.memory.tensor('context', 'float32', [rows.keys, config.textDim]));
    gpu.memory.write(context, text.values);
    const c = scope.own(gpu.memory.tensor('projected text', 'float32', [rows.keys, config.dim]));
    const projection = await sessions.outer('text', expert.outer, rows.keys);
    await projection.session.run(expert.outer.feeds(projection.graph.inputs, { context }), { c });
    projected.push({ ...rows, c });
  }
  return await textKeys(gpu, sessions, expert, projected, type, signal); // `scope` must outlive it
}

/** Text that has been projected to the model's width. */
export interface ProjectedText {
  keys: number;
  lastKeyBias: number;
  /** [keys, C]. */
  c: GpuTensor;
}

/** Keys and values from projected text. */
export async function textKeys(
  gpu: Gpu,
  sessions: DitSessions,
  expert: BlockWeights,
  texts: readonly ProjectedText[],
  type: 'f16' | 'f32',
  signal?: AbortSignal,
): Promise<TextKeys[]> {
  const { config } = sessions;
  const made = texts.map(({ keys, lastKeyBias }) => {
    const scope = new Scope();
    const blocks: TextKeys['blocks'] = [];
    return { scope, keys, lastKeyBias, blocks, [Symbol.dispose]: () => scope[Symbol.dispose]() };
  });
  try {
    for (let block = 0; block < config.numLayers; block++) {
      throwIfAborted(signal);
      const weights = await expert.block(block);
      for (const [index, text] of texts.entries()) {
        const { scope, blocks } = made[index]!;
        blocks.push(await blockKeys(gpu, sessions, weights, text, type, `${index}.${block}`, scope));
      }
    }
    return made;
  } catch (error) {
    for (const keys of made) keys[Symbol.dispose]();
    throw error;
  }
}

/** Keys and values of one prompt in one block. */
async function blockKeys(
  gpu: Gpu,
  sessions: DitSessions,
  weights: WeightView,
  { keys, c }: ProjectedText,
  type: 'f16' | 'f32',
  label: string,
  scope: Scope,
): Promise<TextKeys['blocks'][number]> {
  const { dim, numHeads, eps } = sessions.config;
  using k = gpu.memory.tensor('projected text keys', 'float32', [keys, dim]);
  using v = gpu.memory.tensor('projected text values', 'float32', [keys, dim]);
  const compiled = await sessions.block('crossKv', weights, keys);
  await compiled.session.run(weights.feeds(compiled.graph.inputs, { c }), { k, v });
  const stored = (part: string) =>
    scope.own(
      gpu.memory.tensor(`text ${part} ${label}`, type === 'f16' ? 'float16' : 'float32', [numHeads, keys, HEAD_DIM]),
    );
  const pair = { keys: stored('keys'), values: stored('values') };
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
  const weight = weights.tensor('cross_attn.norm_k.weight');
  await qkNormRope.run(gpu, { ...store, norm: true }, { x: k, weight, rope: weight, out: pair.keys });
  await qkNormRope.run(gpu, { ...store, norm: false }, { x: v, weight, rope: weight, out: pair.values });
  return pair;
}
