import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './crop-planes.wgsl?raw';

const WORKGROUP = 64;

/** A rectangle of pixels that is copied. */
export interface CropPlanesShape {
  /** Element type of x. */
  type: 'f16' | 'f32';
  /** Frames of x. */
  frames: number;
  /** Frames of y. */
  toFrames: number;
  /** The first of them that is written. */
  toFrame: number;
  /** Pixels of x [height, width], borders not counted. */
  from: readonly [height: number, width: number];
  /** Where the rectangle lies in x. */
  fromAt: readonly [row: number, column: number];
  /** Pixels of y [height, width]. */
  to: readonly [height: number, width: number];
  /** Where the rectangle goes in y. */
  toAt: readonly [row: number, column: number];
  /** Size of the rectangle. */
  size: readonly [rows: number, columns: number];
}

/**
 * Copies a rectangle of every frame from x [frames, height + 2, width + 2, 4], channels last with a border, to the
 * planes y [3, toFrames, height, width] f32; the rest of y stays as it is. The plan throws `internal` for a rectangle
 * that leaves either side.
 */
export const cropPlanes = defineKernel({
  name: 'crop-planes',
  source,
  bindings: { x: 'read', y: 'write', params: 'uniform' },
  plan: ({ type, frames, toFrames, toFrame, from, fromAt, to, toAt, size }: CropPlanesShape) => {
    const framesFit = frames >= 1 && toFrame >= 0 && toFrame + frames <= toFrames;
    for (const axis of [0, 1] as const) {
      const inside = (at: number, length: number) => at >= 0 && at + size[axis] <= length;
      if (!framesFit || size[axis] < 1 || !inside(fromAt[axis], from[axis]) || !inside(toAt[axis], to[axis])) {
        throw new ZoetropeError(
          'internal',
          `crop-planes copies [${size}] of ${frames} frames from ${fromAt} in [${from}] to ${toAt} in [${to}], ` +
            `frame ${toFrame} of ${toFrames}.`,
        );
      }
    }
    return {
      prelude: { T: type },
      overrides: { WORKGROUP },
      params: [frames, ...size, ...from, ...fromAt, ...to, ...toAt, toFrames, toFrame],
      groups: grid2d(Math.ceil((frames * size[0] * size[1]) / WORKGROUP)),
    };
  },
});

/** Shapes that every build of the shader has to compile for. */
export const examples: readonly CropPlanesShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).map((type) => ({
  type,
  frames: 1,
  toFrames: 4,
  toFrame: 2,
  from: [270, 263],
  fromAt: [7, 0],
  to: [720, 1280],
  toAt: [256, 0],
  size: [256, 256],
}));
