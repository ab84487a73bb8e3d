import { ZoetropeError } from '../src/errors';
import { defineKernel, f32, grid2d } from '../src/gpu/kernel';
import source from './qk-norm-rope.wgsl?raw';

/** Channels of a head; 128 in every Wan model. The split of its rotary pairs, 22 + 21 + 21, is in the shader. */
const HEAD_DIM = 128;

/**
 * Lanes to a token: one warp or wave. SwiftShader pays for each lane at the barrier of the norm: a chunk [320, 256]
 * took 4.9 ms with 32 lanes, 10.9 ms with 64.
 */
const WORKGROUP = 32;

/** One launch: a chunk of tokens, a group of heads. */
export interface QkNormRopeShape {
  /** Element type of `out`. */
  type: 'f16' | 'f32';
  /** Tokens of the chunk, rows of x. */
  tokens: number;
  /** Channels of x over all heads, a multiple of 128. */
  dim: number;
  /** Heads that are stored. */
  heads: number;
  /** First of them, 0 for the first head of x. */
  headOffset: number;
  /** RMS norm over the full width, times weight. False for values. */
  norm: boolean;
  /** Rotary positions. False for values and for cross-attention. */
  rope: boolean;
  /** Rows of each head in `out`. */
  outTokens: number;
  /** Row of `out` that takes the chunk's first token. */
  storeOffset: number;
  /** Index in the whole sequence of the chunk's first token. Only `rope` looks at it. */
  ropeOffset: number;
  /** Token grid [frames, rows, columns]; the sequence runs along columns first. Only `rope` looks at it. */
  grid: readonly [number, number, number];
  /** Added to the mean square. */
  eps: number;
}

/** Refuses a launch that would write or read past its buffers. */
function refuseMisfit({
  tokens,
  dim,
  heads,
  headOffset,
  rope,
  outTokens,
  storeOffset,
  ropeOffset,
  grid,
}: QkNormRopeShape) {
  const width = dim / HEAD_DIM;
  if (!Number.isSafeInteger(width) || width < 1) {
    throw new ZoetropeError('internal', `qk-norm-rope takes a width of whole heads of ${HEAD_DIM}, got ${dim}.`);
  }
  if (heads < 1 || headOffset < 0 || headOffset + heads > width) {
    throw new ZoetropeError('internal', `qk-norm-rope stores heads ${headOffset}..${headOffset + heads} of ${width}.`);
  }
  if (tokens < 1 || storeOffset < 0 || storeOffset + tokens > outTokens) {
    throw new ZoetropeError(
      'internal',
      `qk-norm-rope stores rows ${storeOffset}..${storeOffset + tokens} of ${outTokens}.`,
    );
  }
  const [frames, height, columns] = grid;
  if (rope && (ropeOffset < 0 || ropeOffset + tokens > frames * height * columns)) {
    throw new ZoetropeError(
      'internal',
      `qk-norm-rope turns tokens ${ropeOffset}..${ropeOffset + tokens} of a grid [${grid}].`,
    );
  }
}

/**
 * Projected queries, keys or values to the layout of attention: x [tokens, dim] f32 -> out [heads, outTokens, 128] of
 * `type`, normed over the full width and turned by their position on the way. `weight` is [dim] f32, `rope` the table
 * of `ropeTable` (`src/diffusion/rope.ts`); with `norm` or `rope` off, any buffer of at least 16 bytes may stand for
 * them. Rows of `out` outside the chunk stay as they are. The plan throws `internal` for offsets that do not fit.
 */
export const qkNormRope = defineKernel({
  name: 'qk-norm-rope',
  source,
  bindings: { x: 'read', weight: 'read', rope: 'read', out: 'write', params: 'uniform' },
  plan: (shape: QkNormRopeShape) => {
    refuseMisfit(shape);
    const { type, tokens, dim, heads, headOffset, norm, rope, outTokens, storeOffset, ropeOffset, grid, eps } = shape;
    return {
      prelude: { T: type, DIM: dim, NORM: norm, ROPE: rope },
      overrides: { WORKGROUP },
      params: [tokens, heads, headOffset, outTokens, storeOffset, ropeOffset, ...grid, f32(eps)],
      groups: grid2d(tokens),
    };
  },
});

const selfAttention: QkNormRopeShape = {
  type: 'f32',
  tokens: 65,
  dim: 1536,
  heads: 4,
  headOffset: 8,
  norm: true,
  rope: true,
  outTokens: 320,
  storeOffset: 128,
  ropeOffset: 128,
  grid: [5, 8, 8],
  eps: 1e-6,
};

/** Shapes that every build of the shader has to compile for: queries and keys, cross-attention, values. */
export const examples: readonly QkNormRopeShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap((type) => [
  { ...selfAttention, type },
  { ...selfAttention, type, rope: false },
  { ...selfAttention, type, norm: false, rope: false },
  { ...selfAttention, type, dim: 256, heads: 2, headOffset: 0 },
  { ...selfAttention, type, dim: 5120, tokens: 70_000, outTokens: 75_600, grid: [21, 45, 80] },
]);
