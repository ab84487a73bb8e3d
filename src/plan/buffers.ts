import { type DitConfig, patchChannels } from '../config';
import { type DitPlan, headBytes } from '../diffusion/activations';
import { textKeyBytes } from '../diffusion/memory';
import { ropeSplit } from '../diffusion/rope';
import { collapsedRows } from '../diffusion/text-keys';
import { tensorBytes } from '../gpu/memory';

/** Stages of a job by what they hold: the text encoder, an expert, the decoder. */
export type StageName = 'text' | 'high' | 'low' | 'decode';

/** Buffers of one purpose that the GPU holds together. */
export interface PlannedBuffers {
  name: string;
  /** How many. */
  count: number;
  /** Bytes of all of them. */
  bytes: number;
  /** Bytes of the largest, which is bound whole. */
  largestBytes: number;
}

/** {@link PlannedBuffers} with the stages that they live through. */
export interface LivingBuffers extends PlannedBuffers {
  from: StageName;
  to: StageName;
}

/** Bytes of several groups. */
export function sumBytes(buffers: readonly PlannedBuffers[]): number {
  return buffers.reduce((sum, { bytes }) => sum + bytes, 0);
}

function alike(name: string, count: number, eachBytes: number): PlannedBuffers {
  return { name, count, bytes: count * eachBytes, largestBytes: eachBytes };
}

/** How a pass is cut, as far as bytes depend on it. */
export interface PassCut {
  tokens: number;
  grid: readonly [number, number, number];
  type: 'f16' | 'f32';
  chunkTokens: number;
  groupHeads: number;
  groupsPerSweep: number;
  /** Residual streams that are held at once. */
  streams: number;
}

/** What an expert works in, beside its weights and what depends on the prompt. Follows `Activations` and `Sampler`. */
export function passBuffers(config: DitConfig, cut: PassCut, latents: number, latentBytes: number): PlannedBuffers[] {
  const { dim, numHeads, freqDim } = config;
  const { tokens, chunkTokens, type } = cut;
  const chunks = Math.ceil(tokens / chunkTokens);
  const groups = Math.ceil(numHeads / cut.groupHeads);
  const heads = Math.min(numHeads, cut.groupsPerSweep * cut.groupHeads);
  const swept = cut.groupsPerSweep < groups;
  const { frame, height, width } = ropeSplit(dim / numHeads);
  const [frames, rows, columns] = cut.grid;
  const rope = tensorBytes('float32', [2 * (frames * frame + rows * height + columns * width)]);
  const row = 4 * patchChannels(config);
  const vectors = [4 * freqDim, 4 * dim, 24 * dim, 24 * dim, rope];
  return [
    {
      name: 'residual streams',
      count: cut.streams * chunks,
      bytes: cut.streams * tokens * dim * 4,
      largestBytes: chunkTokens * dim * 4,
    },
    {
      name: 'keys and values',
      count: 2 * cut.groupsPerSweep,
      bytes: 2 * heads * headBytes(tokens, type),
      largestBytes: cut.groupHeads * headBytes(tokens, type),
    },
    {
      name: 'attended',
      count: swept ? chunks : 1,
      bytes: (swept ? tokens : chunkTokens) * dim * 4,
      largestBytes: chunkTokens * dim * 4,
    },
    alike('chunk activations', 3, chunkTokens * dim * 4),
    alike('chunk queries', 1, numHeads * headBytes(chunkTokens, type)),
    { name: 'patches', count: 2, bytes: (tokens + chunkTokens) * row, largestBytes: tokens * row },
    {
      name: 'vectors',
      count: 10,
      bytes: vectors.reduce((sum, bytes) => sum + bytes, 0),
      largestBytes: Math.max(rope, 24 * dim),
    },
    alike('latents of solver and passes', latents, latentBytes),
  ];
}

/** What is kept of a step for those that reuse it. Follows `Residuals`. */
export function residualBuffers({ dim }: DitConfig, cut: PassCut, branches: number): PlannedBuffers[] {
  if (branches === 0) return [];
  const count = 2 * branches * Math.ceil(cut.tokens / cut.chunkTokens);
  const bytes = branches * cut.tokens * (2 * dim + 8);
  return [{ name: 'residuals', count, bytes, largestBytes: 2 * cut.chunkTokens * dim }];
}

/**
 * Keys and values of prompts in the blocks of an expert, and what comes and goes beside them: the text on its way to
 * keys, then the finished latents. Follows `encodeTextKeys` and `denoise`.
 * @param rows tokens of each prompt.
 */
export function textKeyBuffers(
  config: DitConfig,
  plan: Pick<DitPlan, 'type' | 'textKeys'>,
  rows: readonly number[],
  latentBytes: number,
): PlannedBuffers[] {
  const { dim, numHeads, numLayers, textDim, textLen } = config;
  const keys = rows.map((count) => collapsedRows(count, textLen).keys);
  const longest = Math.max(0, ...keys);
  const blocks = plan.textKeys === 'kept' ? numLayers : 1;
  const pairs = keys.reduce((sum, count) => sum + 2 * blocks * numHeads * headBytes(count, plan.type), 0);
  const { making, steps, between } = textKeyBytes(config, plan, rows);
  return [
    {
      name: 'text keys',
      count: 2 * blocks * rows.length,
      bytes: pairs,
      largestBytes: numHeads * headBytes(longest, plan.type),
    },
    {
      name: 'text on its way to keys, finished latents',
      count: 2 * rows.length + 2,
      bytes: Math.max(making, steps, between + latentBytes) - pairs,
      largestBytes: Math.max(latentBytes, 4 * longest * Math.max(textDim, dim)),
    },
  ];
}
