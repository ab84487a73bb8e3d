import { type DitConfig, HEAD_DIM, patchChannels } from '../config';
import type { Gpu } from '../gpu/device';
import { type GpuTensor, type GpuType, Scope } from '../gpu/memory';
import { ropeTable } from './rope';

/** How a pass of the transformer is cut: made by `src/plan.ts`, carried out by `dit.ts`. */
export interface DitPlan {
  /** Token grid [frames, rows, columns]. */
  grid: readonly [number, number, number];
  /** Tokens of the sequence. */
  tokens: number;
  /** Element type of queries, keys and values. */
  type: 'f16' | 'f32';
  /** Consecutive token ranges; together the sequence. All but the last have the same length. */
  chunks: readonly { index: number; begin: number; tokens: number }[];
  /** Consecutive head ranges; together all heads. K and V of a group share a buffer each. */
  headGroups: readonly { index: number; begin: number; heads: number }[];
  /** Multiply-adds that one attention dispatch may do at most. */
  maxMacPerDispatch: number;
}

/** The residual stream of one guidance branch, chunk by chunk: [tokens, C] each. */
export interface Branch {
  x: GpuTensor[];
}

/** Buffers that a pass works in, allocated once for a job. */
export class Activations implements Disposable {
  /** [N, 64]: latents as tokens on the way in, velocities on the way out. */
  readonly patches: GpuTensor;
  /** [chunk, 64]. */
  readonly chunkPatches: GpuTensor;
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
  /** [chunk, C]: what self-attention gives. */
  readonly attended: GpuTensor;
  /** [chunk, C]: the residual stream between self-attention and the feed-forward network. */
  readonly residual: GpuTensor;
  /** [heads of the group, N, 128] of the plan's type. */
  readonly headGroups: readonly { keys: GpuTensor; values: GpuTensor }[];
  private readonly scope = new Scope();

  constructor(gpu: Gpu, config: DitConfig, plan: DitPlan, branches: number) {
    const make = (label: string, shape: readonly number[], type: GpuType = 'float32') =>
      this.scope.own(gpu.memory.tensor(label, type, shape));
    const operand: GpuType = plan.type === 'f16' ? 'float16' : 'float32';
    const { dim, numHeads } = config;
    const longest = plan.chunks[0]!.tokens;
    try {
      this.patches = make('patches', [plan.tokens, patchChannels(config)]);
      this.chunkPatches = make('chunk patches', [longest, patchChannels(config)]);
      this.branches = Array.from({ length: branches }, (_, branch) => ({
        x: plan.chunks.map((chunk) => make(`x ${branch}.${chunk.index}`, [chunk.tokens, dim])),
      }));
      this.sinusoid = make('sinusoid', [1, config.freqDim]);
      this.e = make('e', [1, dim]);
      this.e0 = make('e0', [6, dim]);
      const vectors = ['shiftAttn', 'scaleAttn', 'gateAttn', 'shiftFfn', 'scaleFfn', 'gateFfn'];
      this.modulation = Object.fromEntries(vectors.map((name) => [name, make(name, [dim])]));
      const table = ropeTable(...plan.grid);
      this.rope = make('rope', [table.length]);
      gpu.memory.write(this.rope, table);
      this.projectedK = make('projected keys', [longest, dim]);
      this.projectedV = make('projected values', [longest, dim]);
      this.queries = make('queries', [numHeads, longest, HEAD_DIM], operand);
      this.attended = make('attended', [longest, dim]);
      this.residual = make('residual', [longest, dim]);
      this.headGroups = plan.headGroups.map(({ index, heads }) => ({
        keys: make(`keys ${index}`, [heads, plan.tokens, HEAD_DIM], operand),
        values: make(`values ${index}`, [heads, plan.tokens, HEAD_DIM], operand),
      }));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Frees every buffer. */
  [Symbol.dispose](): void {
    this.scope[Symbol.dispose]();
  }
}
