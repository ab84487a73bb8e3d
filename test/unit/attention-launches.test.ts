import { describe, expect, it } from 'vitest';
import { attention, attentionLaunches } from '../../kernels/attention';

const shape = { type: 'f32', queries: 330, keys: 100, heads: 3, qHeads: 8, headOffset: 5, lastKeyBias: 1.5 } as const;
/** Multiply-adds of one query: 128 for its logit and 128 for its sum, each key and head. */
const QUERY_MAC = 256 * 100 * 3;

describe('attentionLaunches', () => {
  it.each([1, 31, 32, 33, 64, 100, 329, 330, 1e9])(
    'covers every query once with at most %i queries of work',
    (most) => {
      const launches = attentionLaunches(shape, most * QUERY_MAC);
      let next = 0;
      for (const { queryBegin, queryCount, ...rest } of launches) {
        expect(rest).toEqual(shape);
        expect(queryBegin).toBe(next);
        expect(queryCount).toBeGreaterThan(0);
        expect(queryCount).toBeLessThanOrEqual(Math.max(32, most)); // a workgroup is never cut
        next += queryCount;
      }
      expect(next).toBe(330);
    },
  );

  it('makes no more launches than it has to', () => {
    const counts = (most: number) => attentionLaunches(shape, most * QUERY_MAC).map((launch) => launch.queryCount);
    expect(counts(352)).toEqual([330]);
    expect(counts(200)).toEqual([192, 138]);
    expect(counts(32)).toHaveLength(11);
  });

  it.each([0, -1, Number.NaN])('refuses a bound of %d', (bound) => {
    expect(() => attentionLaunches(shape, bound)).toThrow(/bound above 0/);
  });
});

describe('attention.plan', () => {
  const launch = { ...shape, queryBegin: 0, queryCount: 330 };

  it('takes a workgroup of 64 for 32 queries of a head', () => {
    const { groups, overrides, params } = attention.plan({ ...launch, queryBegin: 100, queryCount: 65 });
    expect(groups).toEqual([3, 3, 1]);
    expect(overrides).toEqual({ WORKGROUP: 64 });
    expect(params).toEqual([330, 100, 8, 5, 100, 165, { f32: 1.5 }]);
  });

  it.each([
    [{ keys: 0 }, /at least one key/],
    [{ headOffset: 6 }, /heads 6\.\.9 of 8/],
    [{ headOffset: -1 }, /heads -1/],
    [{ heads: 0 }, /heads 5\.\.5/],
    [{ queryBegin: 1 }, /queries 1\.\.331 of 330/],
    [{ queryBegin: -1 }, /queries -1/],
    [{ queryCount: 0 }, /queries 0\.\.0/],
  ])('refuses %o', (change, message) => {
    expect(() => attention.plan({ ...launch, ...change })).toThrow(message);
  });
});
