import { ZoetropeError } from '../src/errors';
import { defineKernel, f32, grid2d } from '../src/gpu/kernel';
import type { RifeScale } from '../src/part/rife';
import source from './flow-features.wgsl?raw';

const WORKGROUP = 64;

/** What a block of the flow network reads. */
export interface FlowFeaturesShape {
  /** Element type of x. */
  type: 'f16' | 'f32';
  /** Pixels of the pictures, multiples of the scale. */
  size: readonly [height: number, width: number];
  /** The pictures' size divided by that of x. */
  scale: RifeScale;
  /** Channels that an encoder made of each picture, a multiple of 4; they follow its four. */
  encoded: number;
  /** Channels that the block before passes on, a multiple of 4. */
  passed: number;
  /** The pictures' size divided by that of the head that passes them on. */
  headScale: RifeScale;
  /** Place of the wanted frame between the two, 0 to 1. */
  time: number;
  /** There is no flow yet, and no head. */
  first: boolean;
}

/**
 * Input of a flow block: f32 pictures [h, w, 4 + encoded] in 0..1 with their encoded channels, flow [h, w, 4] in
 * pixels, mask [h, w] and the head of the block before [5 + passed, h / headScale, w / headScale] to x
 * [h / scale + 2, w / scale + 2, channels] of `type`, channels last, whose border stays as it is. Channels are, for the
 * first block, both pictures (6), both encoded (2 encoded), the time and a zero; for a later one, the same warped,
 * time, mask, what is passed on, resized, and flow / scale. The first block reads no flow, mask and head, and where
 * nothing is passed on the head is not read; any tensor may be bound then. The plan throws `internal` for sizes that a
 * scale does not divide and for channels that do not come in fours.
 */
export const flowFeatures = defineKernel({
  name: 'flow-features',
  source,
  bindings: { before: 'read', after: 'read', flow: 'read', mask: 'read', head: 'read', x: 'write', params: 'uniform' },
  plan: ({ type, size: [height, width], scale, encoded, passed, headScale, time, first }: FlowFeaturesShape) => {
    const divides = (by: number) => height >= 1 && width >= 1 && height % by === 0 && width % by === 0;
    if (!divides(scale) || !divides(headScale)) {
      throw new ZoetropeError(
        'internal',
        `flow-features divides ${height} × ${width} pixels by ${scale} and ${headScale}.`,
      );
    }
    if (encoded < 0 || passed < 0 || encoded % 4 !== 0 || passed % 4 !== 0) {
      throw new ZoetropeError('internal', `flow-features takes fours of channels, got ${encoded} and ${passed}.`);
    }
    return {
      prelude: { T: type, FIRST: first, LAYERS: 1 + encoded / 4, PASSED: passed / 4 },
      overrides: { WORKGROUP },
      params: [height, width, scale, headScale, f32(time)],
      groups: grid2d(Math.ceil((height * width) / scale ** 2 / WORKGROUP)),
    };
  },
});

/** RIFE 4.6 at 1280 × 736, 4.25 and 4.26.heavy at 1280 × 768: coarsest and finest blocks. */
export const examples: readonly FlowFeaturesShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap(
  (type): FlowFeaturesShape[] => {
    const old = { type, size: [736, 1280], encoded: 0, passed: 0 } as const;
    const newer = { type, size: [768, 1280], passed: 8, time: 0.5 } as const;
    return [
      { ...old, scale: 8, headScale: 8, time: 0.5, first: true },
      { ...old, scale: 1, headScale: 2, time: 0.2, first: false },
      { ...newer, encoded: 4, scale: 16, headScale: 16, first: true },
      { ...newer, encoded: 4, scale: 1, headScale: 2, first: false },
      { ...newer, encoded: 16, scale: 1, headScale: 2, first: false },
    ];
  },
);
