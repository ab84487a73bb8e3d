import { attention, attentionLaunches } from '../../kernels/attention';
import { qkNormRope } from '../../kernels/qk-norm-rope';
import { type DitConfig, HEAD_DIM, patchChannels } from '../config';
import { throwIfAborted, ZoetropeError } from '../errors';
import type { Gpu } from '../gpu/device';
import type { GpuTensor } from '../gpu/memory';
import type { BlockWeights, WeightView } from '../gpu/weights';
import { WorkQueue } from '../gpu/work-queue';
import { type Activations, type Branch, type DitPlan, sweeps } from './activations';
import { type BlockGraph, blockGraphMac, type CompiledGraph, type DitSessions } from './block-graphs';
import type { Evaluation } from './cache';
import type { Residuals } from './residuals';
import { sinusoid } from './rope';
import type { BlockText, TextKeys } from './text-keys';

/** What a pass needs besides weights. */
export interface DitHost {
  gpu: Gpu;
  sessions: DitSessions;
  plan: DitPlan;
  activations: Activations;
  /** Where residuals are kept, for evaluations that keep or skip. */
  residuals?: Residuals | undefined;
  signal?: AbortSignal | undefined;
  /** Bounds what is queued on the device. Default: one for each pass. */
  queue?: WorkQueue | undefined;
  /** Shown the tensors between the stages, by the fixtures' names; finds the first wrong step. */
  tap?: ((name: string, tensor: GpuTensor) => Promise<void>) | undefined;
}

/**
 * One evaluation of an expert: latents [16, T, h, w] and timestep to one velocity for each branch, in the latents'
 * shape. Layer-major: every branch passes block L before any enters block L + 1, so a block's weights are needed once a
 * step. Branch-major: each branch passes all blocks before the next one starts, in the same residual stream. Either
 * gives the same bits.
 * @param texts keys and values of each branch's prompt: conditional first, then unconditional if that branch runs.
 * @param velocities filled; as many as `texts`.
 * @param evaluations what each branch does, as many as `texts`. Where all of them skip, no block's weights are asked
 * for. Default: all compute.
 */
export async function predictVelocity(
  unbounded: DitHost,
  expert: BlockWeights,
  latents: GpuTensor,
  timestep: number,
  texts: readonly TextKeys[],
  velocities: readonly GpuTensor[],
  evaluations: readonly Evaluation[] = texts.map(() => 'compute'),
): Promise<void> {
  const { gpu, plan, activations, signal } = unbounded;
  const host = { ...unbounded, queue: unbounded.queue ?? new WorkQueue(gpu, plan.maxMacPerDispatch, signal) };
  await embedTime(host, expert.outer, timestep);
  await host.tap?.('e', activations.e);
  await host.tap?.('e0', activations.e0);
  const together = activations.branches.length;
  for (let first = 0; first < texts.length; first += together) {
    const entered = activations.branches
      .slice(0, texts.length - first)
      .map((branch, i) => ({ branch, index: first + i, text: texts[first + i]!, does: evaluations[first + i]! }));
    await embed(
      host,
      expert.outer,
      latents,
      entered.map(({ branch }) => branch),
    );
    await host.tap?.('patch_tokens', entered[0]!.branch.x[0]!);
    const running = entered.filter(({ does }) => does !== 'skip');
    if (running.length > 0) await passBlocks(host, expert, running);
    for (const { branch, index, does } of entered) {
      if (does === 'keep') await keepResidual(host, expert.outer, branch, index);
      if (does === 'skip') await applyResidual(host, branch, index);
    }
    for (const { branch, index } of entered) await head(host, expert.outer, branch, velocities[index]!);
  }
}

/** All blocks, for branches whose residual streams are equal on entry. */
async function passBlocks(
  host: DitHost,
  expert: BlockWeights,
  running: readonly { branch: Branch; text: TextKeys }[],
): Promise<void> {
  for (let block = 0; block < host.sessions.config.numLayers; block++) {
    const weights = await expert.block(block);
    await modulate(host, weights);
    // Until the first cross-attention all branches hold the same numbers, so block 0 attends once for all (exact).
    for (const sharing of block === 0 ? [running] : running.map((one) => [one])) {
      const branches = sharing.map(({ branch }) => branch);
      const read: BlockText[] = [];
      for (const { text } of sharing) read.push(await text.block(block, weights));
      await runBlock(host, weights, branches, read);
    }
    await host.tap?.(`block${block}.block_out`, running[0]!.branch.x[0]!);
  }
}

/**
 * Multiply-adds that a pass counts in its queue: products inside blocks, and attention.
 * @param textRows keys of the text that each branch attends to.
 */
export function passMac({ dim, numLayers, ...sizes }: DitConfig, plan: DitPlan, textRows: readonly number[]): number {
  const mac = (name: BlockGraph) => blockGraphMac({ dim, numLayers, ...sizes }, name);
  const attending = 2 * plan.tokens * dim;
  const swept = sweeps(plan).length * (mac('projectKv') + mac('projectQ')) * plan.tokens + attending * plan.tokens;
  const rest = (rows: number) => (mac('afterSelfAttention') + mac('feedForward')) * plan.tokens + attending * rows;
  // Block 0's self-attention serves all branches that pass it together.
  const shared = plan.branchOrder === 'layer-major' ? (textRows.length - 1) * swept : 0;
  return numLayers * textRows.reduce((sum, rows) => sum + swept + rest(rows), 0) - shared;
}

/** Latents to the residual stream, the same for every branch. */
async function embed(
  host: DitHost,
  weights: WeightView,
  latents: GpuTensor,
  branches: readonly Branch[],
): Promise<void> {
  const { gpu, sessions, plan, activations } = host;
  await run(await sessions.patchify(plan.grid), { latents }, { patches: activations.patches });
  for (const chunk of plan.chunks) {
    const x = branches[0]!.x[chunk.index]!;
    await embedChunk(host, weights, chunk, x);
    for (const branch of branches.slice(1)) gpu.memory.copy(x, 0, branch.x[chunk.index]!, 0, x.sizeBytes);
  }
}

/** A chunk of the patches to its patch embedding `x`. */
async function embedChunk(host: DitHost, weights: WeightView, chunk: Chunk, x: GpuTensor): Promise<void> {
  const { gpu, sessions, activations } = host;
  const width = patchChannels(sessions.config);
  const rows = activations.chunkPatches.view([chunk.tokens, width]);
  gpu.memory.copy(activations.patches, chunk.begin * width * 4, rows, 0, chunk.tokens * width * 4);
  const compiled = await sessions.outer('embed', weights, chunk.tokens);
  await run(compiled, weights.feeds(compiled.graph.inputs, { patches: rows }), { x });
}

/**
 * Keeps what the blocks have added. The embedding is made once more, which is one small product, instead of being held
 * all the way.
 */
async function keepResidual(host: DitHost, weights: WeightView, { x }: Branch, branch: number): Promise<void> {
  const { plan, sessions, activations } = host;
  for (const chunk of plan.chunks) {
    const embedded = activations.residual.view([chunk.tokens, sessions.config.dim]);
    await embedChunk(host, weights, chunk, embedded);
    await residualsOf(host).keep(branch, chunk, x[chunk.index]!, embedded);
  }
}

/** Adds to the embedding what the blocks added at an earlier step. */
async function applyResidual(host: DitHost, { x }: Branch, branch: number): Promise<void> {
  for (const chunk of host.plan.chunks) await residualsOf(host).apply(branch, chunk, x[chunk.index]!);
}

function residualsOf({ residuals }: DitHost): Residuals {
  if (residuals) return residuals;
  throw new ZoetropeError('internal', 'An evaluation keeps or reuses a residual, and there is no place for it.');
}

async function embedTime(host: DitHost, weights: WeightView, timestep: number): Promise<void> {
  const { gpu, sessions, activations } = host;
  gpu.memory.write(activations.sinusoid, sinusoid(timestep, sessions.config.freqDim));
  const compiled = await sessions.outer('time', weights, 1);
  const feeds = weights.feeds(compiled.graph.inputs, { sinusoid: activations.sinusoid });
  await run(compiled, feeds, { e: activations.e, e0: activations.e0 });
}

/** The block's six modulation vectors for this step. */
export async function modulate({ sessions, activations }: DitHost, weights: WeightView): Promise<void> {
  const compiled = await sessions.modulation();
  const feeds = weights.feeds(compiled.graph.inputs, { e0: activations.e0 });
  await run(compiled, feeds, activations.modulation);
}

/** One block for branches whose residual streams are equal on entry (block 0), or for a single branch. */
export async function runBlock(
  host: DitHost,
  weights: WeightView,
  branches: readonly Branch[],
  texts: readonly BlockText[],
): Promise<void> {
  const { plan, activations } = host;
  const swept = sweeps(plan);
  for (const [sweep, groups] of swept.entries()) {
    for (const chunk of plan.chunks) {
      throwIfAborted(host.signal);
      await storeKeysAndValues(host, weights, branches[0]!.x[chunk.index]!, chunk, groups);
    }
    for (const chunk of plan.chunks) {
      throwIfAborted(host.signal);
      const attended = activations.attendedOf(chunk);
      await selfAttend(host, weights, branches[0]!.x[chunk.index]!, chunk, groups, attended);
      if (sweep + 1 < swept.length) continue; // heads are missing still
      for (const [index, branch] of branches.entries()) {
        await finishBlock(host, weights, branch.x[chunk.index]!, chunk, attended, texts[index]!);
      }
    }
  }
}

/** A chunk of tokens, as the plan lists them. */
type Chunk = DitPlan['chunks'][number];

/** Runs a block's graph: weights by name, the given activations over them. */
async function runBlockGraph(
  host: DitHost,
  weights: WeightView,
  name: BlockGraph,
  tokens: number,
  inputs: Record<string, GpuTensor>,
  outputs: Record<string, GpuTensor>,
): Promise<void> {
  const compiled = await host.sessions.block(name, weights, tokens);
  const feeds = weights.feeds(compiled.graph.inputs, { ...host.activations.modulation, ...inputs });
  await run(compiled, feeds, outputs);
  await host.queue?.add(tokens * blockGraphMac(host.sessions.config, name));
}

async function storeKeysAndValues(
  host: DitHost,
  weights: WeightView,
  x: GpuTensor,
  chunk: Chunk,
  groups: DitPlan['headGroups'],
): Promise<void> {
  const { gpu, plan, activations, sessions } = host;
  const { dim } = sessions.config;
  const k = activations.projectedK.view([chunk.tokens, dim]);
  const v = activations.projectedV.view([chunk.tokens, dim]);
  await runBlockGraph(host, weights, 'projectKv', chunk.tokens, { x }, { k, v });
  const weight = weights.tensor('self_attn.norm_k.weight');
  for (const group of groups) {
    const { keys, values } = activations.headGroup(group.index);
    const store = { ...storeShape(host, chunk), heads: group.heads, headOffset: group.begin };
    const place = { outTokens: plan.tokens, storeOffset: chunk.begin };
    const tables = { weight, rope: activations.rope };
    await qkNormRope.run(gpu, { ...store, ...place, norm: true, rope: true }, { x: k, ...tables, out: keys });
    await qkNormRope.run(gpu, { ...store, ...place, norm: false, rope: false }, { x: v, ...tables, out: values });
  }
}

/** The fields of a store that every caller shares. */
function storeShape({ plan, sessions }: DitHost, chunk: Chunk) {
  const { dim, eps } = sessions.config;
  return { type: plan.type, tokens: chunk.tokens, dim, ropeOffset: chunk.begin, grid: plan.grid, eps };
}

async function selfAttend(
  host: DitHost,
  weights: WeightView,
  x: GpuTensor,
  chunk: Chunk,
  groups: DitPlan['headGroups'],
  attended: GpuTensor,
): Promise<void> {
  const { activations, plan, sessions } = host;
  const q = activations.projectedK.view([chunk.tokens, sessions.config.dim]);
  await runBlockGraph(host, weights, 'projectQ', chunk.tokens, { x }, { q });
  await storeQueries(host, q, weights.tensor('self_attn.norm_q.weight'), chunk, true);
  for (const group of groups) {
    const { keys, values } = activations.headGroup(group.index);
    const headsOf = { heads: group.heads, headOffset: group.begin };
    await attend(host, chunk, headsOf, keys, values, { keys: plan.tokens, lastKeyBias: 0 }, attended);
  }
}

/** Norm, rotation for self-attention, and head-major storage of a chunk's queries. */
async function storeQueries(
  host: DitHost,
  x: GpuTensor,
  weight: GpuTensor,
  chunk: Chunk,
  rope: boolean,
): Promise<void> {
  const { activations, sessions } = host;
  const place = { heads: sessions.config.numHeads, headOffset: 0, outTokens: chunk.tokens, storeOffset: 0 };
  const shape = { ...storeShape(host, chunk), ...place, norm: true, rope };
  await qkNormRope.run(host.gpu, shape, { x, weight, rope: activations.rope, out: activations.queries });
}

/** Attention of a chunk's queries to one head group, in dispatches of bounded work. */
async function attend(
  host: DitHost,
  chunk: Chunk,
  headsOf: { heads: number; headOffset: number },
  k: GpuTensor,
  v: GpuTensor,
  keysOf: { keys: number; lastKeyBias: number },
  out: GpuTensor,
): Promise<void> {
  const { gpu, plan, activations, sessions } = host;
  const shape = { type: plan.type, queries: chunk.tokens, qHeads: sessions.config.numHeads, ...headsOf, ...keysOf };
  for (const launch of attentionLaunches(shape, plan.maxMacPerDispatch)) {
    throwIfAborted(host.signal);
    await attention.run(gpu, launch, { q: activations.queries, k, v, out });
    await host.queue?.add(launch.queryCount * launch.keys * launch.heads * 2 * HEAD_DIM);
  }
}

/** Residual of self-attention, cross-attention to the prompt, feed-forward network; x is replaced. */
async function finishBlock(
  host: DitHost,
  weights: WeightView,
  x: GpuTensor,
  chunk: Chunk,
  attended: GpuTensor,
  text: BlockText,
): Promise<void> {
  const { activations, sessions } = host;
  const { dim, numHeads } = sessions.config;
  const q = activations.projectedK.view([chunk.tokens, dim]);
  const out = activations.residual.view([chunk.tokens, dim]);
  await runBlockGraph(host, weights, 'afterSelfAttention', chunk.tokens, { x, attended }, { out, q });
  await storeQueries(host, q, weights.tensor('cross_attn.norm_q.weight'), chunk, false);
  const crossed = activations.projectedV.view([chunk.tokens, dim]);
  const { keys, values, rows, lastKeyBias } = text;
  await attend(host, chunk, { heads: numHeads, headOffset: 0 }, keys, values, { keys: rows, lastKeyBias }, crossed);
  await runBlockGraph(host, weights, 'feedForward', chunk.tokens, { x: out, attended: crossed }, { out: x });
}

/** Residual stream to velocity. */
async function head(host: DitHost, weights: WeightView, branch: Branch, velocity: GpuTensor): Promise<void> {
  const { gpu, sessions, plan, activations } = host;
  const width = patchChannels(sessions.config) * 4;
  for (const chunk of plan.chunks) {
    const compiled = await sessions.outer('head', weights, chunk.tokens);
    const patches = activations.chunkPatches.view([chunk.tokens, patchChannels(sessions.config)]);
    const x = branch.x[chunk.index]!;
    await run(compiled, weights.feeds(compiled.graph.inputs, { x, e: activations.e }), { patches });
    gpu.memory.copy(patches, 0, activations.patches, chunk.begin * width, chunk.tokens * width);
  }
  await run(await sessions.unpatchify(plan.grid), { patches: activations.patches }, { latents: velocity });
}

function run(
  { session }: CompiledGraph,
  feeds: Record<string, GpuTensor>,
  outputs: Record<string, GpuTensor>,
): Promise<void> {
  return session.run(feeds, outputs);
}
