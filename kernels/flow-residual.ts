import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './flow-residual.wgsl?raw';

const WORKGROUP = 64;

/** The last layer of a flow predictor. */
export interface FlowResidualShape {
  /** Element type of x. */
  type: 'f16' | 'f32';
  /** Pixels, border not counted. */
  size: readonly [height: number, width: number];
  /** Channels of x, a multiple of 4. */
  into: number;
  /** There is no flow so far. */
  first: boolean;
}

/**
 * Adds the 1 × 1 convolution of x [h + 2, w + 2, into] of `type`, channels last, with a border of one pixel, to flow
 * f32 [h, w, 2], or replaces it. `weight` f32 [into, 2], `bias` f32 [2]. The plan throws `internal` for channels that
 * do not come in fours.
 */
export const flowResidual = defineKernel({
  name: 'flow-residual',
  source,
  bindings: { x: 'read', weight: 'read', bias: 'read', flow: 'write', params: 'uniform' },
  plan: ({ type, size, into, first }: FlowResidualShape) => {
    if (size[0] < 1 || size[1] < 1 || into < 4 || into % 4 !== 0) {
      throw new ZoetropeError('internal', `flow-residual takes channels in fours, got ${into} for [${size}] pixels.`);
    }
    return {
      prelude: { T: type, FIRST: first },
      overrides: { WORKGROUP },
      params: [...size, into / 4],
      groups: grid2d(Math.ceil((size[0] * size[1]) / WORKGROUP)),
    };
  },
});

/** FILM at 1280 × 768: the coarsest and the finest level. */
export const examples: readonly FlowResidualShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap(
  (type): FlowResidualShape[] => [
    { type, size: [12, 20], into: 128, first: true },
    { type, size: [768, 1280], into: 16, first: false },
  ],
);
