import { ZoetropeError } from '../src/errors';
import { defineKernel, f32 } from '../src/gpu/kernel';
import source from './attention.wgsl?raw';

/** Channels of a head; 128 in every Wan model, and the shader is laid out for it. */
const HEAD_DIM = 128;

/**
 * Queries of a workgroup: so many share every key and value that is fetched. They take 8 KiB of workgroup memory; twice
 * as many would take all 16 KiB that WebGPU guarantees and leave room for half as many workgroups at a time.
 */
const ROWS = 32;

/** Queries of one invocation, and invocations that share them: the layout of the shader. */
const ROWS_EACH = 8;
const COLUMNS = 16;

/**
 * Whether keys go through workgroup memory. On a GPU each of 16 neighbours would otherwise read rows of its own, a
 * piece of a cache line at a time. A CPU driver gains nothing and pays for the barriers (SwiftShader, f32, 1024 tokens
 * × 2 heads: 0.49 against 0.61 s of CPU time), and f32 is for adapters without half floats, most of which are CPUs.
 */
const sharesKeys = (type: 'f16' | 'f32'): boolean => type === 'f16';

/** Attention of one token chunk's queries, or some of them, to all keys of a head group. */
export interface AttentionShape {
  /** Element type of q, k and v. Sums, logits and `out` are f32 with either. */
  type: 'f16' | 'f32';
  /** Rows of each head in q, and rows of out. */
  queries: number;
  /** Rows of each head in k and v. */
  keys: number;
  /** Heads of k and v. */
  heads: number;
  /** Heads of q, and of a row of out. */
  qHeads: number;
  /** Head of q and out that belongs to the first head of k and v. */
  headOffset: number;
  /** First query that is answered. */
  queryBegin: number;
  /** Queries that are answered. */
  queryCount: number;
  /**
   * Added to the logit of the last key, after the scale: 0, or ln(c) where that key stands for c equal ones, as the
   * padding of a prompt does in cross-attention (exact).
   */
  lastKeyBias: number;
}

/**
 * Launches that together answer all queries, each with at most `maxMacPerDispatch` multiply-adds or, when a single
 * workgroup of 32 queries a head has more, with that. A query has 256 for each key of each head.
 * @param maxMacPerDispatch above 0; throws `internal` otherwise.
 */
export function attentionLaunches(
  shape: Omit<AttentionShape, 'queryBegin' | 'queryCount'>,
  maxMacPerDispatch: number,
): AttentionShape[] {
  if (!(maxMacPerDispatch > 0)) {
    throw new ZoetropeError('internal', `attention takes a bound above 0 for a dispatch, got ${maxMacPerDispatch}.`);
  }
  const tileMac = ROWS * shape.keys * shape.heads * 2 * HEAD_DIM;
  const step = ROWS * Math.max(1, Math.floor(maxMacPerDispatch / tileMac));
  const launches: AttentionShape[] = [];
  for (let queryBegin = 0; queryBegin < shape.queries; queryBegin += step) {
    launches.push({ ...shape, queryBegin, queryCount: Math.min(step, shape.queries - queryBegin) });
  }
  return launches;
}

/** Refuses a launch that would read or write past its buffers. */
function refuseMisfit(shape: AttentionShape) {
  const { queries, keys, heads, qHeads, headOffset, queryBegin, queryCount } = shape;
  if (keys < 1) throw new ZoetropeError('internal', `attention takes at least one key, got ${keys}.`);
  if (heads < 1 || headOffset < 0 || headOffset + heads > qHeads) {
    throw new ZoetropeError('internal', `attention answers heads ${headOffset}..${headOffset + heads} of ${qHeads}.`);
  }
  if (queryBegin < 0 || queryCount < 1 || queryBegin + queryCount > queries) {
    throw new ZoetropeError(
      'internal',
      `attention answers queries ${queryBegin}..${queryBegin + queryCount} of ${queries}.`,
    );
  }
}

/**
 * Softmax attention with heads of 128 channels, scaled by 1 / sqrt(128): q [qHeads, queries, 128] and k, v
 * [heads, keys, 128] of `type`, head-major, to out [queries, qHeads * 128] f32, token-major. A launch writes the
 * columns of its heads in the rows of its queries and leaves the rest of `out` as it is. The plan throws `internal` for
 * ranges that do not fit.
 */
export const attention = defineKernel({
  name: 'attention',
  source,
  bindings: { q: 'read', k: 'read', v: 'read', out: 'write', params: 'uniform' },
  plan: (shape: AttentionShape) => {
    refuseMisfit(shape);
    const { type, queries, keys, heads, qHeads, headOffset, queryBegin, queryCount, lastKeyBias } = shape;
    return {
      prelude: { T: type, ROWS, SHARE_KEYS: sharesKeys(type) },
      overrides: { WORKGROUP: (ROWS / ROWS_EACH) * COLUMNS },
      params: [queries, keys, qHeads, headOffset, queryBegin, queryBegin + queryCount, f32(lastKeyBias)],
      groups: [Math.ceil(queryCount / ROWS), heads, 1],
    };
  },
});

/** Shapes that every build of the shader has to compile for: the demo, cross-attention, 720p. */
export const examples: readonly AttentionShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap((type) => [
  { type, queries: 80, keys: 80, heads: 2, qHeads: 2, headOffset: 0, queryBegin: 0, queryCount: 80, lastKeyBias: 0 },
  {
    type,
    queries: 77,
    keys: 21,
    heads: 4,
    qHeads: 12,
    headOffset: 8,
    queryBegin: 32,
    queryCount: 45,
    lastKeyBias: 6.2,
  },
  {
    type,
    queries: 75_600,
    keys: 75_600,
    heads: 40,
    qHeads: 40,
    headOffset: 0,
    queryBegin: 75_584,
    queryCount: 16,
    lastKeyBias: 0,
  },
]);
