import type { DitConfig } from '../config';
import type { Ort, OrtGraph } from '../gpu/ort';
import type { GpuMatrixStorage, WeightView } from '../gpu/weights';
import type { Graph } from '../onnx/graph';
import * as graphs from './graphs';

/** A compiled graph with its inputs, so that weights can be fed by name. */
export interface CompiledGraph {
  graph: Graph;
  session: OrtGraph;
}

/**
 * Compiled sessions of the transformer, made when first asked for and kept: one for each graph and number of rows,
 * shared by all blocks, both guidance branches and both experts. A session is bound to how the matrices are stored, so
 * experts stored differently get sessions of their own.
 */
export class DitSessions {
  private readonly compiled = new Map<string, Promise<CompiledGraph>>();

  constructor(
    readonly config: DitConfig,
    private readonly ort: Ort,
  ) {}

  /** The token grid's patchify and unpatchify, which take no weights. */
  patchify(grid: readonly number[]): Promise<CompiledGraph> {
    return this.get(`patchify ${grid}`, () => graphs.patchifyGraph(this.config, grid));
  }

  unpatchify(grid: readonly number[]): Promise<CompiledGraph> {
    return this.get(`unpatchify ${grid}`, () => graphs.unpatchifyGraph(this.config, grid));
  }

  modulation(): Promise<CompiledGraph> {
    return this.get('modulation', () => graphs.modulationGraph(this.config));
  }

  /** A graph outside the blocks: `weights` says how its matrices are stored. */
  outer(name: 'embed' | 'time' | 'text' | 'head', weights: WeightView, rows: number): Promise<CompiledGraph> {
    const storage = (matrix: string) => weights.storage(matrix);
    return this.get(`${name} ${rows} ${signature(weights, OUTER_MATRICES)}`, () => {
      if (name === 'embed') return graphs.embedGraph(this.config, rows);
      if (name === 'time') return graphs.timeGraph(this.config, storage);
      if (name === 'text') return graphs.textGraph(this.config, storage, rows);
      return graphs.headGraph(this.config, storage, rows);
    });
  }

  /** A graph of the block whose weights are given, shared with every block that is stored alike. */
  block(name: BlockGraph, weights: WeightView, rows: number): Promise<CompiledGraph> {
    const storage = (matrix: string) => weights.storage(matrix);
    const key = `${name} ${rows} ${signature(weights, BLOCK_MATRICES[name])}`;
    return this.get(key, () => {
      if (name === 'crossKv') return graphs.crossKvGraph(this.config, storage, rows);
      if (name === 'projectKv') return graphs.projectionGraph(this.config, storage, rows, ['k', 'v']);
      if (name === 'projectQ') return graphs.projectionGraph(this.config, storage, rows, ['q']);
      if (name === 'afterSelfAttention') return graphs.afterSelfAttentionGraph(this.config, storage, rows);
      return graphs.feedForwardGraph(this.config, storage, rows);
    });
  }

  /** Releases every session. */
  async release(): Promise<void> {
    const all = [...this.compiled.values()];
    this.compiled.clear();
    for (const compiled of all) await (await compiled.catch(() => undefined))?.session.release();
  }

  private get(key: string, build: () => Graph): Promise<CompiledGraph> {
    const known = this.compiled.get(key);
    if (known) return known;
    const graph = build();
    const made = this.ort.compile(graph).then((session) => ({ graph, session }));
    this.compiled.set(key, made);
    made.catch(() => this.compiled.delete(key)); // A failed compilation is reported again by the next call.
    return made;
  }
}

/** Graphs inside a block. */
export type BlockGraph = 'crossKv' | 'projectKv' | 'projectQ' | 'afterSelfAttention' | 'feedForward';

/** Multiply-adds of a block's graph for one row. */
export function blockGraphMac({ dim, ffnDim }: DitConfig, name: BlockGraph): number {
  const matrices = { crossKv: 2, projectKv: 2, projectQ: 1, afterSelfAttention: 2, feedForward: 1 };
  return matrices[name] * dim * dim + (name === 'feedForward' ? 2 * dim * ffnDim : 0);
}

const OUTER_MATRICES = [
  'text_embedding.0.weight',
  'text_embedding.2.weight',
  'time_embedding.0.weight',
  'time_embedding.2.weight',
  'time_projection.1.weight',
  'head.head.weight',
];

const BLOCK_MATRICES: Record<BlockGraph, string[]> = {
  crossKv: ['cross_attn.k.weight', 'cross_attn.v.weight'],
  projectKv: ['self_attn.k.weight', 'self_attn.v.weight'],
  projectQ: ['self_attn.q.weight'],
  afterSelfAttention: ['self_attn.o.weight', 'cross_attn.q.weight'],
  feedForward: ['cross_attn.o.weight', 'ffn.0.weight', 'ffn.2.weight'],
};

function signature(weights: WeightView, matrices: readonly string[]): string {
  const letter = ({ bits, zeroPoints, partRows }: GpuMatrixStorage) =>
    `${bits}${zeroPoints ? 'z' : ''}${partRows.length > 1 ? `/${partRows}` : ''}`;
  return matrices.map((matrix) => letter(weights.storage(matrix))).join(',');
}
