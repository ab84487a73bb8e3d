import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './channel-norm.wgsl?raw';

const WORKGROUP = 64;

/** One norm over channels. */
export interface ChannelNormShape {
  /** Element type of x and y. */
  type: 'f16' | 'f32';
  /** Positions of x, borders included: they stay zero. */
  positions: number;
  /** A multiple of 4. */
  channels: number;
  /** Whether x * sigmoid(x) follows. */
  silu: boolean;
}

/**
 * The norm of Wan's VAE: x / max(‖x‖₂, 1e-12) * sqrt(channels) * gamma at each position. x and y
 * [positions, channels], gamma f32 [channels]. The plan throws `internal` for a shape that is no norm.
 */
export const channelNorm = defineKernel({
  name: 'channel-norm',
  source,
  bindings: { x: 'read', gamma: 'read', y: 'write', params: 'uniform' },
  plan: ({ type, positions, channels, silu }: ChannelNormShape) => {
    if (positions < 1 || channels < 4 || channels % 4 !== 0) {
      throw new ZoetropeError(
        'internal',
        `channel-norm takes positions of 4 channels or a multiple, got [${positions}, ${channels}].`,
      );
    }
    return {
      prelude: { T: type },
      overrides: { WORKGROUP },
      params: [positions, channels / 4, silu ? 1 : 0],
      groups: grid2d(Math.ceil(positions / WORKGROUP)),
    };
  },
});

/** Shapes that every build of the shader has to compile for. */
export const examples: readonly ChannelNormShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap((type) => [
  { type, positions: 100, channels: 64, silu: false },
  { type, positions: 4 * 270 * 270, channels: 96, silu: true },
]);
