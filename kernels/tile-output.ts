import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './tile-output.wgsl?raw';

const WORKGROUP = 64;

/** A tile of a frame. */
export interface TileOutputShape {
  /** Element type of x. */
  type: 'f16' | 'f32';
  /** Pixels of x, border not counted. */
  from: readonly [height: number, width: number];
  /** Channels of x, a multiple of 4. */
  into: number;
  /** Where the rectangle that counts lies in x. */
  fromAt: readonly [row: number, column: number];
  /** Size of that rectangle. */
  size: readonly [rows: number, columns: number];
  /** Pixels of the frame. */
  to: readonly [height: number, width: number];
  /** Where the rectangle goes in the frame. */
  toAt: readonly [row: number, column: number];
  /** Rows and columns that it shares with its neighbours; 0 where it has none. */
  fade: readonly [top: number, bottom: number, left: number, right: number];
}

/**
 * The 1 × 1 convolution of x [h + 2, w + 2, into] of `type`, channels last, with a border of one pixel, to colours in
 * 0..1, and those as -1..1, not clamped, in a rectangle of rgb f32 [3, H, W]. `weight` f32 [into, 4] and `bias` f32 [4]
 * have a fourth column that is not read. Tiles are blended linearly where they overlap; run them row by row. The plan
 * throws `internal` for a rectangle that leaves either side, and for fades that meet.
 */
export const tileOutput = defineKernel({
  name: 'tile-output',
  source,
  bindings: { x: 'read', weight: 'read', bias: 'read', rgb: 'write', params: 'uniform' },
  plan: ({ type, from, into, fromAt, size, to, toAt, fade }: TileOutputShape) => {
    const within = (at: number, length: number, side: number) => at >= 0 && length >= 1 && at + length <= side;
    for (const axis of [0, 1] as const) {
      if (!within(fromAt[axis], size[axis], from[axis]) || !within(toAt[axis], size[axis], to[axis])) {
        throw new ZoetropeError(
          'internal',
          `tile-output puts [${size}] pixels at ${fromAt} of [${from}] to ${toAt} of [${to}].`,
        );
      }
      const [rise, fall] = [fade[2 * axis]!, fade[2 * axis + 1]!];
      if (rise < 0 || fall < 0 || rise + fall > size[axis]) {
        throw new ZoetropeError('internal', `tile-output fades ${fade} pixels of [${size}].`);
      }
    }
    if (into < 4 || into % 4 !== 0) {
      throw new ZoetropeError('internal', `tile-output takes channels in fours, got ${into}.`);
    }
    return {
      prelude: { T: type },
      overrides: { WORKGROUP },
      params: [...size, from[1], into / 4, ...fromAt, ...toAt, ...to, ...fade],
      groups: grid2d(Math.ceil((size[0] * size[1]) / WORKGROUP)),
    };
  },
});

/** FILM at 1280 × 720: whole, and a tile that has neighbours above and to its right. */
export const examples: readonly TileOutputShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap(
  (type): TileOutputShape[] => [
    {
      type,
      from: [768, 1280],
      into: 64,
      fromAt: [24, 0],
      size: [720, 1280],
      to: [720, 1280],
      toAt: [0, 0],
      fade: [0, 0, 0, 0],
    },
    {
      type,
      from: [512, 512],
      into: 64,
      fromAt: [0, 0],
      size: [464, 512],
      to: [720, 1280],
      toAt: [256, 0],
      fade: [96, 0, 0, 96],
    },
  ],
);
