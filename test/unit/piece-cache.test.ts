import { describe, expect, it } from 'vitest';
import { PieceCache } from '../../src/store/piece-cache';
import { seededUniform } from '../harness/near';

const SIZE = 64;

/** A cache over pieces filled with their number, which loads slowly, out of order, and counts. */
function slowCache(seed: number) {
  const cache = new PieceCache(SIZE);
  const uniform = seededUniform(seed);
  const buffers = new Set<ArrayBufferLike>();
  const loads: number[] = [];
  const use = (piece: number, fail = false) => {
    let seen: number[] = [];
    const load = async (buffer: Uint8Array) => {
      loads.push(piece);
      buffers.add(buffer.buffer);
      for (let i = 0; i < buffer.length; i++) {
        if (i % 16 === 0) await new Promise((resolve) => setTimeout(resolve, uniform() * 2));
        buffer[i] = piece;
      }
      if (fail) throw new Error('the disk is gone');
    };
    const work = (bytes: Uint8Array) => {
      seen = [...new Set(bytes)];
    };
    return cache.use(`piece ${piece}`, SIZE - piece, load, work).then(() => seen);
  };
  return { cache, use, loads, buffers, uniform };
}

describe('the cache of pieces', () => {
  it('gives every one of many readers the piece asked for, from three buffers', async () => {
    const { use, buffers, uniform } = slowCache(5);
    const asked = Array.from({ length: 300 }, () => Math.floor(uniform() * 12));
    const seen = await Promise.all(asked.map((piece) => use(piece)));
    expect(seen).toEqual(asked.map((piece) => [piece]));
    expect(buffers.size).toBeLessThanOrEqual(3);
  });

  it('loads once for those who ask at a time, and again after a failure', async () => {
    const { use, loads } = slowCache(6);
    const failing = [use(1, true), use(1)];
    for (const failed of failing) await expect(failed).rejects.toThrow('the disk is gone');
    expect(await Promise.all([use(1), use(1), use(2)])).toEqual([[1], [1], [2]]);
    expect(loads).toEqual([1, 1, 2]);
  });

  it('keeps what was used last', async () => {
    const { use, loads } = slowCache(7);
    for (const piece of [1, 2, 3, 1, 4, 1, 2]) await use(piece);
    expect(loads).toEqual([1, 2, 3, 4, 2]);
  });

  it('forgets what is released, also while it is read', async () => {
    const { cache, use, loads, buffers } = slowCache(8);
    const reading = use(1);
    cache.release((key) => key === 'piece 1');
    expect(await reading).toEqual([1]);
    expect(await Promise.all([use(1), use(2), use(3), use(4)])).toEqual([[1], [2], [3], [4]]);
    expect(loads).toEqual([1, 1, 2, 3, 4]);
    expect(buffers.size).toBeLessThanOrEqual(3);
  });
});
