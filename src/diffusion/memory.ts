import { type DitConfig, ditShapes, HEAD_DIM } from '../config';
import { type GpuType, tensorBytes } from '../gpu/memory';
import { workspaceBytes } from '../gpu/workspace';
import type { Graph } from '../onnx/graph';
import { mergeSlots } from '../onnx/scratch';
import { activationBytes, type DitPlan } from './activations';
import * as graphs from './graphs';
import type { SolverName } from './schedule';
import { SOLVERS } from './solvers';
import { collapsedRows } from './text-keys';

/**
 * What sampling holds on the GPU beside weights, counted as it is allocated. `test/gpu/memory.test.ts` compares with
 * the ledger.
 */

/**
 * How an expert's matrices lie on the GPU, by names as graphs use them: whole outside blocks, without the prefix
 * inside.
 */
export interface ExpertStorage {
  outer: graphs.StorageOf;
  block: graphs.StorageOf;
}

/** A sampling run, as far as its bytes depend on it. */
export interface DiffusionTask {
  plan: DitPlan;
  /** Tokens of the conditional prompt, then of the unconditional one if any stage is guided. */
  promptRows: readonly number[];
  solver: SolverName;
  /** [16, T, h, w]. */
  latentShape: readonly number[];
  /**
   * Experts that have steps: with two, the second one's text keys are made when everything else is there. Default 2.
   */
  experts?: 1 | 2;
  /** Default: no matrix is split. */
  storage?: ExpertStorage;
}

/** Most bytes of tensors that `denoise` holds at a time. */
export function diffusionBytes(config: DitConfig, task: DiffusionTask): number {
  const { plan, promptRows, solver, latentShape, experts = 2, storage } = task;
  const latent = tensorBytes('float32', latentShape);
  const branches = promptRows.length;
  const text = textKeyBytes(config, plan, promptRows);
  const base = activationBytes(config, plan, branches) + (SOLVERS[solver].latents.length + branches) * latent;
  const scratch = passScratchBytes(config, plan, promptRows, storage);
  const making = experts === 2 ? scratch : workspaceBytes(mergeSlots(textGraphs(config, promptRows, storage)));
  // The finished latents are a copy, made when no block runs any more.
  return base + Math.max(making + text.making, scratch + text.steps, scratch + text.between + latent);
}

/**
 * Bytes of text keys: while they are made, while blocks run, and between steps.
 * @param rows tokens of each prompt.
 */
export function textKeyBytes(
  { dim, numHeads, numLayers, textDim, textLen }: DitConfig,
  plan: Pick<DitPlan, 'type' | 'textKeys'>,
  rows: readonly number[],
): { making: number; steps: number; between: number } {
  const keys = rows.map((count) => collapsedRows(count, textLen).keys);
  const total = (bytes: (keys: number) => number) => keys.reduce((sum, count) => sum + bytes(count), 0);
  const operand: GpuType = plan.type === 'f16' ? 'float16' : 'float32';
  const floats = (width: number) => (count: number) => tensorBytes('float32', [count, width]);
  const pairs = total((count) => 2 * tensorBytes(operand, [numHeads, count, HEAD_DIM]));
  const projecting = total(floats(textDim)) + total(floats(dim));
  const onePair = 2 * floats(dim)(Math.max(...keys));
  if (plan.textKeys === 'kept') {
    const between = numLayers * pairs;
    return { making: between + projecting + onePair, steps: between, between };
  }
  const projected = total(floats(dim));
  const between = projected + pairs;
  return { making: projected + projecting, steps: between + onePair, between };
}

/** Bytes of the workspace that serves every graph of a pass. */
export function passScratchBytes(
  config: DitConfig,
  plan: Pick<DitPlan, 'chunks' | 'grid'>,
  rows: readonly number[],
  storage: ExpertStorage = wholeMatrices(config),
): number {
  const tokens = plan.chunks[0]!.tokens; // a shorter last chunk needs less of each slot
  const made = [
    graphs.patchifyGraph(config, plan.grid),
    graphs.unpatchifyGraph(config, plan.grid),
    graphs.embedGraph(config, tokens),
    graphs.timeGraph(config, storage.outer),
    graphs.modulationGraph(config),
    graphs.projectionGraph(config, storage.block, tokens, ['k', 'v']),
    graphs.projectionGraph(config, storage.block, tokens, ['q']),
    graphs.afterSelfAttentionGraph(config, storage.block, tokens),
    graphs.feedForwardGraph(config, storage.block, tokens),
    graphs.headGraph(config, storage.outer, tokens),
  ];
  return workspaceBytes(mergeSlots([...made.map((graph) => graph.scratch()), ...textGraphs(config, rows, storage)]));
}

function textGraphs(config: DitConfig, rows: readonly number[], storage: ExpertStorage = wholeMatrices(config)) {
  const of = (count: number): Graph[] => {
    const { keys } = collapsedRows(count, config.textLen);
    return [graphs.textGraph(config, storage.outer, keys), graphs.crossKvGraph(config, storage.block, keys)];
  };
  return rows.flatMap(of).map((graph) => graph.scratch());
}

/** Matrices that fit a binding each; what lies between graph nodes does not depend on their bits. */
function wholeMatrices(config: DitConfig): ExpertStorage {
  const shapes = ditShapes({ ...config, numLayers: 1 });
  const storage = (name: string) => {
    const [rows, columns] = shapes.get(name)!;
    return { rows: rows!, columns: columns!, bits: 8 as const, zeroPoints: false };
  };
  return { outer: storage, block: (name) => storage(`blocks.0.${name}`) };
}
