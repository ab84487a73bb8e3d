import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './denormalize.wgsl?raw';

const WORKGROUP = 64;

/** One latent frame. */
export interface DenormalizeShape {
  /** Element type of y. */
  type: 'f16' | 'f32';
  height: number;
  width: number;
  /** A multiple of 4. */
  channels: number;
}

/**
 * A latent frame z [channels, height, width] f32 to z * scale + mean in y [height + 2, width + 2, channels]; the border
 * of y stays as it is. `scale` (the standard deviations) and `mean` are f32 [channels]. The plan throws `internal` for
 * channels that do not come in fours.
 */
export const denormalize = defineKernel({
  name: 'denormalize',
  source,
  bindings: { z: 'read', scale: 'read', mean: 'read', y: 'write', params: 'uniform' },
  plan: ({ type, height, width, channels }: DenormalizeShape) => {
    if (height < 1 || width < 1 || channels < 4 || channels % 4 !== 0) {
      throw new ZoetropeError(
        'internal',
        `denormalize takes 4 channels or a multiple, got [${channels}, ${height}, ${width}].`,
      );
    }
    return {
      prelude: { T: type },
      overrides: { WORKGROUP },
      params: [height, width, channels / 4],
      groups: grid2d(Math.ceil((height * width * channels) / (4 * WORKGROUP))),
    };
  },
});

/** Shapes that every build of the shader has to compile for. */
export const examples: readonly DenormalizeShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).map((type) => ({
  type,
  height: 90,
  width: 160,
  channels: 16,
}));
