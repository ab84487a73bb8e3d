import { type DitConfig, HEAD_DIM, patchChannels } from '../config';
import type { Gpu } from '../gpu/device';
import { type GpuTensor, type GpuType, Scope, tensorBytes } from '../gpu/memory';
import { ropeSplit, ropeTable } from './rope';

/**
 * How a pass of the transformer is cut: made by `src/plan.ts`, carried out by `dit.ts`. The velocity does not depend on
 * it.
 */
export interface DitPlan {
  /** Token grid [frames, rows, columns]. */
  grid: readonly [number, number, number];
  /** Tokens of the sequence. */
  tokens: number;
  /** Element type of queries, keys and values. */
  type: 'f16' | 'f32';
  /** Consecutive token ranges; together the sequence. All but the last have the same length. */
  chunks: readonly { index: number; begin: number; tokens: number }[];
  /**
   * Consecutive head ranges, the first of which is the longest; together all heads. K and V of a group share a buffer
   * each.
   */
  headGroups: readonly { index: number; begin: number; heads: number }[];
  /**
   * Head groups whose keys and values are held together, 1 to all of them. With fewer than all, a block's
   * self-attention takes several sweeps over the tokens: each projects keys, values and queries anew, and what
   * attention gives is kept for the whole sequence.
   */
  groupsPerSweep: number;
  /**
   * `layer-major`: both guidance branches pass a block before either enters the next, so weights are needed once a
   * step. `branch-major`: one branch after the other passes all blocks, with one residual stream alive.
   */
  branchOrder: 'layer-major' | 'branch-major';
  /** Keys and values of the text: `kept` for all blocks, or made anew in `each-block` of each pass. */
  textKeys: 'kept' | 'each-block';
  /** Multiply-adds that one attention dispatch may do at most. */
  maxMacPerDispatch: number;
}

/** The residual stream of one guidance branch, chunk by chunk: [tokens, C] each. */
export interface Branch {
  x: GpuTensor[];
}

/** Head groups that are swept together, sweep by sweep. */
export function sweeps({ headGroups, groupsPerSweep }: DitPlan): DitPlan['headGroups'][] {
  return Array.from({ length: Math.ceil(headGroups.length / groupsPerSweep) }, (_, sweep) =>
    headGroups.slice(sweep * groupsPerSweep, (sweep + 1) * groupsPerSweep),
  );
}

/** Residual streams that are alive together. */
export function streamCount({ branchOrder }: DitPlan, branches: number): number {
  return branchOrder === 'branch-major' ? 1 : branches;
}

/** Everything that a pass works in, made by `make`: buffers, or numbers of bytes. */
function layOut<T>(
  config: DitConfig,
  plan: DitPlan,
  branches: number,
  make: (label: string, shape: readonly number[], type?: GpuType) => T,
) {
  const { dim, numHeads, freqDim } = config;
  const operand: GpuType = plan.type === 'f16' ? 'float16' : 'float32';
  const longest = plan.chunks[0]!.tokens;
  const { frame, height, width } = ropeSplit(HEAD_DIM);
  const [frames, rows, columns] = plan.grid;
  const chunked = (label: string) => plan.chunks.map(({ index, tokens }) => make(`${label}.${index}`, [tokens, dim]));
  const vectors = ['shiftAttn', 'scaleAttn', 'gateAttn', 'shiftFfn', 'scaleFfn', 'gateFfn'];
  const groups = plan.headGroups.slice(0, plan.groupsPerSweep);
  return {
    patches: make('patches', [plan.tokens, patchChannels(config)]),
    chunkPatches: make('chunk patches', [longest, patchChannels(config)]),
    branches: Array.from({ length: streamCount(plan, branches) }, (_, branch) => ({ x: chunked(`x ${branch}`) })),
    sinusoid: make('sinusoid', [1, freqDim]),
    e: make('e', [1, dim]),
    e0: make('e0', [6, dim]),
    modulation: Object.fromEntries(vectors.map((name) => [name, make(name, [dim])])),
    rope: make('rope', [2 * (frames * frame + rows * height + columns * width)]),
    projectedK: make('projected keys', [longest, dim]),
    projectedV: make('projected values', [longest, dim]),
    queries: make('queries', [numHeads, longest, HEAD_DIM], operand),
    attended: groups.length < plan.headGroups.length ? chunked('attended') : [make('attended', [longest, dim])],
    residual: make('residual', [longest, dim]),
    headGroups: groups.map(({ index, heads }) => ({
      keys: make(`keys ${index}`, [heads, plan.tokens, HEAD_DIM], operand),
      values: make(`values ${index}`, [heads, plan.tokens, HEAD_DIM], operand),
    })),
  };
}

/** Bytes of {@link Activations}, exactly. */
export function activationBytes(config: DitConfig, plan: DitPlan, branches: number): number {
  let bytes = 0;
  layOut(config, plan, branches, (_, shape, type = 'float32') => {
    bytes += tensorBytes(type, shape);
  });
  return bytes;
}

/** Bytes of one head's keys or values. */
export function headBytes(tokens: number, type: 'f16' | 'f32'): number {
  return tokens * HEAD_DIM * (type === 'f16' ? 2 : 4);
}

/** Buffers that a pass works in, allocated once for a job. */
export class Activations implements Disposable {
  /** [N, 64]: latents as tokens on the way in, velocities on the way out. */
  readonly patches: GpuTensor;
  /** [chunk, 64]. */
  readonly chunkPatches: GpuTensor;
  /** One for each guidance branch, or a single one that they use in turn. */
  readonly branches: readonly Branch[];
  /** [1, 256]. */
  readonly sinusoid: GpuTensor;
  /** [1, C]. */
  readonly e: GpuTensor;
  /** [6, C]. */
  readonly e0: GpuTensor;
  /** The block's six vectors [C], by the names that its graphs take. */
  readonly modulation: Readonly<Record<string, GpuTensor>>;
  /** Rotary tables of the grid. */
  readonly rope: GpuTensor;
  /** [chunk, C]: projected keys, or queries. */
  readonly projectedK: GpuTensor;
  /** [chunk, C]: projected values, or what cross-attention gives. */
  readonly projectedV: GpuTensor;
  /** [heads, chunk, 128] of the plan's type. */
  readonly queries: GpuTensor;
  private readonly attended: readonly GpuTensor[];
  /** [chunk, C]: the residual stream between self-attention and the feed-forward network. */
  readonly residual: GpuTensor;
  private readonly headGroups: readonly { keys: GpuTensor; values: GpuTensor }[];
  private readonly scope = new Scope();

  constructor(gpu: Gpu, config: DitConfig, plan: DitPlan, branches: number) {
    try {
      const made = layOut(config, plan, branches, (label, shape, type = 'float32') =>
        this.scope.own(gpu.memory.tensor(label, type, shape)),
      );
      ({ patches: this.patches, chunkPatches: this.chunkPatches, branches: this.branches } = made);
      ({ sinusoid: this.sinusoid, e: this.e, e0: this.e0, modulation: this.modulation, rope: this.rope } = made);
      ({ projectedK: this.projectedK, projectedV: this.projectedV, queries: this.queries } = made);
      ({ attended: this.attended, residual: this.residual, headGroups: this.headGroups } = made);
      gpu.memory.write(this.rope, ropeTable(...plan.grid));
    } catch (error) {
      this.scope[Symbol.dispose]();
      throw error;
    }
  }

  /** [heads of the group, N, 128] of the plan's type; groups of different sweeps share the buffers. */
  headGroup(index: number): { keys: GpuTensor; values: GpuTensor } {
    return this.headGroups[index % this.headGroups.length]!;
  }

  /** [chunk, C]: what self-attention gives. Chunks share a buffer where one sweep answers all heads. */
  attendedOf({ index, tokens }: DitPlan['chunks'][number]): GpuTensor {
    const tensor = this.attended[index % this.attended.length]!;
    return tensor.view([tokens, tensor.shape[1]!]);
  }

  /** Frees every buffer. */
  [Symbol.dispose](): void {
    this.scope[Symbol.dispose]();
  }
}
