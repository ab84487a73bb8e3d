import { describe, expect, it } from 'vitest';
import { namedModel } from '../../src/cli/named-models';
import { filmBytes, filmTileSizes } from '../../src/interpolate/film-tiles';
import { FILM_STYLE } from '../../src/part/film';
import { planVideo } from '../../src/plan';
import { type Request, resolveRequest } from '../../src/request';

/** FILM at 720p in a plan: the largest runs that the budget and the device's bindings allow. */

const GIB = 2 ** 30;
const parts = { film: true, rife: true, promptExpansion: true, safetyChecker: true };
const model = namedModel('a14b');

function plan(budgetBytes: number, request: Partial<Request> = {}, maxStorageBufferBindingSize = 4 * GIB) {
  const wanted = { prompt: '', interpolator_model: 'film', num_frames: 81, ...request } as const;
  const limits = { maxStorageBufferBindingSize, maxBufferSize: 4 * GIB, f16: true, cpu: false, budgetBytes };
  return planVideo(
    resolveRequest(wanted, parts, () => 7),
    model,
    limits,
  );
}

describe('FILM at 1280 × 720', () => {
  it('runs on whole frames where there is room', () => {
    expect(plan(24 * GIB).filmTile).toEqual([768, 1280]);
  });

  it.each([1, 2, 3, 4] as const)('runs in tiles that fit ever smaller budgets, %i frames between', (between) => {
    const tiles = filmTileSizes([720, 1280]);
    let last = 0;
    const seen = new Set<number>();
    for (const budget of [24, 6, 5, 4.5, 4, 3.5, 3]) {
      let planned: ReturnType<typeof plan>;
      try {
        planned = plan(budget * GIB, { num_interpolated_frames: between });
      } catch (error) {
        expect(error).toMatchObject({ code: 'out-of-memory' });
        break;
      }
      const { filmTile, buffers, peakBytes } = planned;
      expect(peakBytes).toBeLessThanOrEqual(budget * GIB);
      const index = tiles.findIndex((tile) => String(tile) === String(filmTile));
      expect(index, 'one of the tiles, no larger than with more memory').toBeGreaterThanOrEqual(last);
      last = index;
      seen.add(index);
      // What the interpolator holds while it works is among what the plan counts as the decoding stage's.
      const { working } = filmBytes(FILM_STYLE, [720, 1280], filmTile!, 'f16', between);
      const activations = buffers.find(({ name }) => name === 'decoder activations')!;
      expect(activations.bytes).toBeGreaterThanOrEqual(working);
    }
    expect(seen.size, 'different tiles').toBeGreaterThan(1);
  });

  it('runs in tiles where a whole frame’s tensors cannot be bound', () => {
    const { filmTile } = plan(24 * GIB, {}, 128 * 2 ** 20);
    expect(filmTile).toEqual([512, 512]);
    const { largest } = filmBytes(FILM_STYLE, [720, 1280], filmTile!, 'f16', 1);
    expect(largest).toBeLessThanOrEqual(128 * 2 ** 20);
  });
});
