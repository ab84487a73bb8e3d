/**
 * Positions for the transformer: rotary tables of the token grid, and the sinusoid of the timestep. Angles are f64, as
 * in Wan2.2 `wan/modules/model.py` (`rope_params`, `sinusoidal_embedding_1d`); the values stored are f32.
 */

import { ZoetropeError } from '../errors';

/** Base of the frequencies, for positions and for timesteps. */
const BASE = 10000;

/** Positions per axis in Wan's own table (`rope_max_seq_len` in diffusers). */
const MAX_POSITIONS = 1024;

/**
 * Channel pairs of one head that turn with each axis. Pair p is channels 2p and 2p + 1; frame pairs come first, width
 * pairs last.
 */
export interface RopeSplit {
  frame: number;
  height: number;
  width: number;
}

/**
 * How a head divides its channels among the axes: 22, 21 and 21 pairs of a head of 128.
 *
 * @param headDim channels of a head, even, at least 6.
 * @throws ZoetropeError `bad-checkpoint` for another head size.
 */
export function ropeSplit(headDim: number): RopeSplit {
  if (!Number.isSafeInteger(headDim) || headDim < 6 || headDim % 2 !== 0) {
    throw new ZoetropeError('bad-checkpoint', `Rotary positions need an even head size of at least 6, got ${headDim}.`);
  }
  const spatial = Math.floor(headDim / 6);
  return { frame: headDim / 2 - 2 * spatial, height: spatial, width: spatial };
}

/**
 * The three tables one after the other, each [positions, pairs of the axis, 2] with (cos, sin) innermost:
 * frames * 22, height * 21 and width * 21 pairs for a head of 128. The pair (a, b) of a token at position p of an axis
 * becomes (a cos - b sin, a sin + b cos) with the cos and sin of row p.
 *
 * @param frames latent frames F, 1 to 1024.
 * @param height rows of the token grid H' (latent rows / 2), 1 to 1024.
 * @param width columns of the token grid W' (latent columns / 2), 1 to 1024.
 * @param headDim channels of a head; 128 in every Wan model.
 * @throws ZoetropeError `bad-request` for a grid outside the limits, `bad-checkpoint` for a head size that cannot be
 * split.
 */
export function ropeTable(frames: number, height: number, width: number, headDim = 128): Float32Array<ArrayBuffer> {
  const split = ropeSplit(headDim);
  const axes = [
    { name: 'frames', positions: frames, pairs: split.frame },
    { name: 'height', positions: height, pairs: split.height },
    { name: 'width', positions: width, pairs: split.width },
  ];
  for (const { name, positions } of axes) {
    if (!Number.isSafeInteger(positions) || positions < 1 || positions > MAX_POSITIONS) {
      throw new ZoetropeError(
        'bad-request',
        `The ${name} of a token grid are a whole number from 1 to ${MAX_POSITIONS}, got ${positions}.`,
      );
    }
  }
  const table = new Float32Array(2 * axes.reduce((sum, { positions, pairs }) => sum + positions * pairs, 0));
  let next = 0;
  for (const { positions, pairs } of axes) {
    for (let position = 0; position < positions; position++) {
      for (let i = 0; i < pairs; i++) {
        const angle = position * BASE ** (-i / pairs);
        table[next++] = Math.cos(angle);
        table[next++] = Math.sin(angle);
      }
    }
  }
  return table;
}

/**
 * The timestep as the network's time embedding reads it: cosines of freqDim / 2 angles, then their sines.
 *
 * @param timestep 0 to 1000, whole or not.
 * @param freqDim length of the vector, even; `freq_dim` of the model's config.
 * @throws ZoetropeError `bad-checkpoint` for an odd length.
 */
export function sinusoid(timestep: number, freqDim = 256): Float32Array<ArrayBuffer> {
  if (!Number.isSafeInteger(freqDim) || freqDim < 2 || freqDim % 2 !== 0) {
    throw new ZoetropeError('bad-checkpoint', `freq_dim is an even number from 2, got ${freqDim}.`);
  }
  const half = freqDim / 2;
  const values = new Float32Array(freqDim);
  for (let i = 0; i < half; i++) {
    const angle = timestep * BASE ** (-i / half);
    values[i] = Math.cos(angle);
    values[half + i] = Math.sin(angle);
  }
  return values;
}
