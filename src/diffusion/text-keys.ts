import { qkNormRope } from '../../kernels/qk-norm-rope';
import { HEAD_DIM } from '../config';
import { throwIfAborted } from '../errors';
import type { Gpu } from '../gpu/device';
import { type GpuTensor, Scope } from '../gpu/memory';
import type { BlockWeights, WeightView } from '../gpu/weights';
import type { DitPlan } from './activations';
import type { DitSessions } from './block-graphs';

/** A prompt as the text encoder gives it: n real rows, without padding. */
export interface TextEmbedding {
  /** n, 1 to 512. */
  rows: number;
  /** [n, textDim]. */
  values: Float32Array;
}

/**
 * Keys and values of a prompt in the blocks of one expert. They depend neither on the step nor on the latents, so
 * making them anew gives what was kept. The rows n..511 of the padded text are all equal; their 512 - n keys are one
 * key here, whose logit the attention kernel raises by ln(512 - n): the same softmax, exactly.
 */
export interface TextKeys extends Disposable {
  /** Keys to attend to: n + 1, or 512 when no row is padding. */
  readonly rows: number;
  /** What block `index` attends to, good until the next block is asked for. @param weights of that block. */
  block(index: number, weights: WeightView): Promise<BlockText>;
}

/** A prompt as one block sees it. */
export interface BlockText {
  /** Keys to attend to, as {@link TextKeys.rows}. */
  rows: number;
  /** ln(512 - n), or 0. */
  lastKeyBias: number;
  /** [heads, rows, 128] each. */
  keys: GpuTensor;
  values: GpuTensor;
}

/** What of the plan concerns text keys. */
type TextPlan = Pick<DitPlan, 'type' | 'textKeys'>;

/** Rows to encode and the bias of the last one, for n real rows of `textLen`. */
export function collapsedRows(real: number, textLen: number): { keys: number; lastKeyBias: number } {
  return real >= textLen
    ? { keys: textLen, lastKeyBias: 0 }
    : { keys: real + 1, lastKeyBias: Math.log(textLen - real) };
}

/** Makes the keys and values of every prompt for one expert, in one sweep over its blocks if they are to be kept. */
export async function encodeTextKeys(
  gpu: Gpu,
  sessions: DitSessions,
  expert: BlockWeights,
  texts: readonly TextEmbedding[],
  plan: TextPlan,
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
  return await textKeys(gpu, sessions, expert, projected, plan, signal); // `scope` must outlive it
}

/** Text that has been projected to the model's width. */
export interface ProjectedText {
  keys: number;
  lastKeyBias: number;
  /** [keys, C]. Copied where it is needed later. */
  c: GpuTensor;
}

/** Keys and values from projected text. */
export async function textKeys(
  gpu: Gpu,
  sessions: DitSessions,
  expert: BlockWeights,
  texts: readonly ProjectedText[],
  plan: TextPlan,
  signal?: AbortSignal,
): Promise<TextKeys[]> {
  using made = new Scope();
  const prompts = texts.map((text, index) => made.own(new PromptKeys(gpu, sessions, plan, text, `${index}`)));
  if (plan.textKeys === 'kept') {
    for (let block = 0; block < sessions.config.numLayers; block++) {
      throwIfAborted(signal);
      const weights = await expert.block(block);
      for (const prompt of prompts) await prompt.block(block, weights);
    }
  }
  for (const prompt of prompts) prompt.finish();
  made.release();
  return prompts;
}

/**
 * Keys and values of one prompt, made when first asked for; one pair of buffers for each block, or one for all of them.
 */
class PromptKeys implements TextKeys {
  private readonly scope = new Scope();
  private readonly pairs = new Map<number, { keys: GpuTensor; values: GpuTensor }>();

  constructor(
    private readonly gpu: Gpu,
    private readonly sessions: DitSessions,
    private readonly plan: TextPlan,
    private text: ProjectedText,
    private readonly label: string,
  ) {}

  get rows(): number {
    return this.text.keys;
  }

  async block(index: number, weights: WeightView): Promise<BlockText> {
    const kept = this.plan.textKeys === 'kept';
    const known = this.pairs.get(kept ? index : 0);
    const pair = known ?? this.makePair(kept ? index : 0);
    if (!known || !kept) await this.fill(pair, weights);
    return { rows: this.rows, lastKeyBias: this.text.lastKeyBias, ...pair };
  }

  /** The projected text goes with its owner; what is still needed of it is kept here. */
  finish(): void {
    if (this.plan.textKeys === 'kept') return;
    const c = this.scope.own(this.gpu.memory.tensor(`projected text ${this.label}`, 'float32', this.text.c.shape));
    this.gpu.memory.copy(this.text.c, 0, c, 0, c.sizeBytes);
    this.text = { ...this.text, c };
  }

  private makePair(index: number) {
    const { numHeads } = this.sessions.config;
    const type = this.plan.type === 'f16' ? 'float16' : 'float32';
    const make = (part: string) => {
      const label = `text ${part} ${this.label}.${index}`;
      return this.scope.own(this.gpu.memory.tensor(label, type, [numHeads, this.text.keys, HEAD_DIM]));
    };
    const pair = { keys: make('keys'), values: make('values') };
    this.pairs.set(index, pair);
    return pair;
  }

  private async fill(pair: { keys: GpuTensor; values: GpuTensor }, weights: WeightView): Promise<void> {
    const { gpu, sessions, plan } = this;
    const { keys, c } = this.text;
    const { dim, numHeads, eps } = sessions.config;
    using k = gpu.memory.tensor('projected text keys', 'float32', [keys, dim]);
    using v = gpu.memory.tensor('projected text values', 'float32', [keys, dim]);
    const compiled = await sessions.block('crossKv', weights, keys);
    await compiled.session.run(weights.feeds(compiled.graph.inputs, { c }), { k, v });
    const store = {
      type: plan.type,
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
  }

  [Symbol.dispose](): void {
    this.scope[Symbol.dispose]();
  }
}
