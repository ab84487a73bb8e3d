import type { DitConfig } from '../config';
import { type DitPlan, headBytes } from '../diffusion/activations';
import { ZoetropeError } from '../errors';
import type { VideoShape } from '../shape';
import { bindingLimit, type DeviceLimits } from './device';
import { dispatchMac } from './pace';

/** What a pass gives up for memory. The numbers that it computes stay the same. */
export interface Measures {
  /** Tokens of a chunk at most. */
  mostChunkTokens: number;
  textKeys: DitPlan['textKeys'];
  branchOrder: DitPlan['branchOrder'];
  /** Sweeps over the tokens in a block's self-attention. */
  sweeps: number;
}

/** Most tokens in a chunk: beyond this a matrix product gains nothing and cancelling takes longer. */
const MAX_CHUNK = 4096;
/** Chunks are multiples of this, the tile of ONNX Runtime's and our kernels. */
const CHUNK_STEP = 64;

/** Sizes of the sequence. */
export type Sequence = Pick<VideoShape, 'tokens' | 'latentFrames' | 'latentHeight' | 'latentWidth'>;

/** The fastest pass. */
export const NO_MEASURES: Measures = {
  mostChunkTokens: MAX_CHUNK,
  textKeys: 'kept',
  branchOrder: 'layer-major',
  sweeps: 1,
};

/** Whether anything of a sequence can be bound on a device: a chunk of the least length, and one head's keys. */
export function fitsBindings(config: DitConfig, { tokens }: Sequence, limits: DeviceLimits): boolean {
  const binding = bindingLimit(limits);
  return chunkBytes(config) * CHUNK_STEP <= binding && headBytes(tokens, attentionType(limits)) <= binding;
}

/** Element type of queries, keys and values. */
export function attentionType({ f16 }: DeviceLimits): 'f16' | 'f32' {
  return f16 ? 'f16' : 'f32';
}

/** Bytes of the widest activation of one token. */
function chunkBytes({ ffnDim, dim }: DitConfig): number {
  return 4 * Math.max(ffnDim, dim);
}

/**
 * Tokens of a chunk: as many as fit a binding, as one matrix product may take in a dispatch, and as `most` allows.
 * Chunks are of equal length where possible: the same sessions serve them all, and the last is not a sliver.
 */
export function chunkLength(config: DitConfig, tokens: number, limits: DeviceLimits, most: number): number {
  const fitting = bindingLimit(limits) / chunkBytes(config);
  const quick = dispatchMac(limits.cpu, limits.pace?.products) / (config.dim * config.ffnDim);
  const longest = Math.max(1, Math.floor(Math.min(fitting, quick, most, MAX_CHUNK) / CHUNK_STEP)) * CHUNK_STEP;
  const count = Math.ceil(tokens / longest);
  return Math.min(tokens, Math.ceil(tokens / count / CHUNK_STEP) * CHUNK_STEP);
}

/** Heads whose keys or values share a buffer. */
export function groupHeads({ numHeads }: DitConfig, tokens: number, limits: DeviceLimits): number {
  const fitting = Math.floor(bindingLimit(limits) / headBytes(tokens, attentionType(limits)));
  return Math.ceil(numHeads / Math.ceil(numHeads / fitting));
}

/** Head groups of a sweep. */
export function groupsPerSweep({ numHeads }: DitConfig, headsOfGroup: number, sweeps: number): number {
  return Math.ceil(Math.ceil(numHeads / headsOfGroup) / sweeps);
}

/**
 * Cuts the sequence into token chunks and the heads into groups, so that every binding fits the device. Throws
 * `out-of-memory` where none does.
 * @param measures default: the fastest pass.
 */
export function planDit(
  config: DitConfig,
  shape: Sequence,
  limits: DeviceLimits,
  measures: Measures = NO_MEASURES,
): DitPlan {
  const { tokens } = shape;
  if (!fitsBindings(config, shape, limits)) {
    throw new ZoetropeError(
      'out-of-memory',
      `${tokens} tokens of width ${config.dim} do not fit this device's bindings of ${bindingLimit(limits)} bytes. Use a smaller resolution or fewer frames.`,
    );
  }
  const chunks = ranges(tokens, chunkLength(config, tokens, limits, measures.mostChunkTokens));
  const headsOfGroup = groupHeads(config, tokens, limits);
  const groups = ranges(config.numHeads, headsOfGroup);
  return {
    grid: [shape.latentFrames, shape.latentHeight / 2, shape.latentWidth / 2],
    tokens,
    type: attentionType(limits),
    chunks: chunks.map(({ index, begin, size }) => ({ index, begin, tokens: size })),
    headGroups: groups.map(({ index, begin, size }) => ({ index, begin, heads: size })),
    groupsPerSweep: groupsPerSweep(config, headsOfGroup, measures.sweeps),
    branchOrder: measures.branchOrder,
    textKeys: measures.textKeys,
    maxMacPerDispatch: dispatchMac(limits.cpu, limits.pace?.attention),
  };
}

function ranges(total: number, length: number): { index: number; begin: number; size: number }[] {
  return Array.from({ length: Math.ceil(total / length) }, (_, index) => {
    const begin = index * length;
    return { index, begin, size: Math.min(length, total - begin) };
  });
}
