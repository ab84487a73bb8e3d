import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './keep-frames.wgsl?raw';

const WORKGROUP = 64;

/** Values that are kept, counted in fours. */
export interface KeepFramesShape {
  quads: number;
  /** The first of x that is read. */
  first: number;
  /** The first of y that is written. */
  place: number;
}

/**
 * Rounds f32 values of x to half floats in y, packed two in a word; beyond ±65504 they become that. The rest of y stays
 * as it is. The plan throws `internal` for a range that is none.
 */
export const keepFrames = defineKernel({
  name: 'keep-frames',
  source,
  bindings: { x: 'read', y: 'write', params: 'uniform' },
  plan: ({ quads, first, place }: KeepFramesShape) => {
    if (quads < 1 || first < 0 || place < 0) {
      throw new ZoetropeError('internal', `keep-frames keeps ${quads} fours from ${first} at ${place}.`);
    }
    return {
      prelude: {},
      overrides: { WORKGROUP },
      params: [quads, first, place],
      groups: grid2d(Math.ceil(quads / WORKGROUP)),
    };
  },
});

/** Shapes that every build of the shader has to compile for. */
export const examples: readonly KeepFramesShape[] = [
  { quads: 100, first: 0, place: 0 },
  { quads: 722 * 642 * 24, first: 0, place: 722 * 642 * 24 },
];
