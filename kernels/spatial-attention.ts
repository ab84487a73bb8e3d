import { ZoetropeError } from '../src/errors';
import { defineKernel, MAX_GROUPS } from '../src/gpu/kernel';
import source from './spatial-attention.wgsl?raw';

/** Queries of a workgroup; the shader names each. */
const QUERIES = 8;

/** Workgroup memory that WebGPU guarantees: queries, scores and places take 41 bytes a channel. */
const MAX_CHANNELS = 396;

/** Attention over one frame, or a part of its queries. */
export interface SpatialAttentionShape {
  /** Element type of qkv and y. */
  type: 'f16' | 'f32';
  height: number;
  width: number;
  /** Width of the head: a multiple of 4 up to 396. */
  channels: number;
  /** First block of eight queries; 0 for the frame's first. */
  first: number;
  /** Blocks of eight queries. */
  blocks: number;
}

/** Launches that cover a frame with at most `maxMac` multiply-adds each, or one block of queries if that has more. */
export function spatialAttentionLaunches(
  frame: Omit<SpatialAttentionShape, 'first' | 'blocks'>,
  maxMac: number,
): SpatialAttentionShape[] {
  const positions = frame.height * frame.width;
  const total = Math.ceil(positions / QUERIES);
  const step = Math.min(MAX_GROUPS, Math.max(1, Math.floor(maxMac / (2 * QUERIES * positions * frame.channels))));
  return Array.from({ length: Math.ceil(total / step) }, (_, i) => ({
    ...frame,
    first: i * step,
    blocks: Math.min(step, total - i * step),
  }));
}

/**
 * y = softmax(q kᵀ / sqrt(channels)) v with one head over all positions of a frame. qkv [height + 2, width + 2, 3,
 * channels], y [height + 2, width + 2, channels]; the borders are neither read nor written. The plan throws `internal`
 * for a head that workgroup memory does not hold and for queries outside the frame.
 */
export const spatialAttention = defineKernel({
  name: 'spatial-attention',
  source,
  bindings: { qkv: 'read', y: 'write', params: 'uniform' },
  plan: ({ type, height, width, channels, first, blocks }: SpatialAttentionShape) => {
    if (channels < 4 || channels % 4 !== 0 || channels > MAX_CHANNELS) {
      throw new ZoetropeError(
        'internal',
        `spatial-attention takes a multiple of 4 up to ${MAX_CHANNELS} channels, got ${channels}.`,
      );
    }
    const total = Math.ceil((height * width) / QUERIES);
    if (first < 0 || blocks < 1 || first + blocks > total) {
      throw new ZoetropeError('internal', `spatial-attention answers blocks ${first}..${first + blocks} of ${total}.`);
    }
    return {
      prelude: { T: type },
      overrides: { LANES: channels / 4 },
      params: [first, height, width],
      groups: [blocks, 1, 1],
    };
  },
});

/** Shapes that every build of the shader has to compile for: the demo's width, the widest, that of Wan at 720p. */
export const examples: readonly SpatialAttentionShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap((type) => [
  { type, height: 8, width: 8, channels: 64, first: 0, blocks: 8 },
  { type, height: 5, width: 7, channels: MAX_CHANNELS, first: 4, blocks: 1 },
  { type, height: 90, width: 160, channels: 384, first: 900, blocks: 900 },
]);
