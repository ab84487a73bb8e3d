import { describe, expect, it } from 'vitest';
import { ProgressMeter, StageClock } from '../../src/progress';
import type { Progress } from '../../src/protocol';

function meter(work = { text: 10, steps: [40, 40], decode: 10 }) {
  let now = 1000;
  const seen: Progress[] = [];
  return {
    seen,
    tick: (ms: number) => {
      now += ms;
    },
    meter: new ProgressMeter(
      work,
      () => now,
      (progress) => seen.push(progress),
    ),
  };
}

describe('ProgressMeter', () => {
  it('rises through the stages to 1 and never falls', () => {
    const { meter: it, seen } = meter();
    it.report('load', 5, 10);
    it.report('text', 1, 1);
    it.report('diffusion', 1, 2);
    it.report('load', 1, 10); // the second expert's weights come late
    it.report('diffusion', 2, 2);
    it.report('decode', 17, 17);
    const fractions = seen.map(({ fraction }) => fraction);
    expect([...fractions].sort((a, b) => a - b)).toEqual(fractions);
    expect(fractions.at(-1)).toBeCloseTo(1);
    expect(fractions[2]).toBeCloseTo((5 + 10 + 40) / 105);
  });

  it('advances within a step, in proportion to its work', () => {
    const { meter: it, seen } = meter({ text: 10, steps: [60, 20], decode: 10 });
    it.report('diffusion', 0, 2, 0.5);
    it.report('diffusion', 1, 2, 0.5);
    expect(seen.map(({ done }) => done)).toEqual([0, 1]);
    expect(seen[0]!.fraction).toBeCloseTo((5 + 10 + 30) / 105);
    expect(seen[1]!.fraction).toBeCloseTo((5 + 10 + 70) / 105);
  });

  it('weighs steps by their work, so that those which reuse a result count for little', () => {
    const { meter: it, seen, tick } = meter({ text: 0, steps: [40, 1, 1, 40], decode: 0 });
    it.report('text', 1, 1);
    it.report('diffusion', 0, 4);
    tick(400);
    it.report('diffusion', 1, 4);
    expect(seen[2]!.remainingMs).toBeCloseTo(420);
    tick(20);
    it.report('diffusion', 3, 4);
    expect(seen[3]!.remainingMs).toBeCloseTo(400);
  });

  it('estimates the rest from the pace of the stage that runs, once it has one', () => {
    const { meter: it, seen, tick } = meter();
    tick(5000);
    it.report('text', 1, 1);
    it.report('diffusion', 0, 2);
    expect(seen[1]).toMatchObject({ elapsedMs: 5000, remainingMs: null });
    tick(400);
    it.report('diffusion', 1, 2);
    // 400 ms for one step of 40 operations; another one and a decode of 10 are left. The slow start does not count.
    expect(seen[2]!.elapsedMs).toBe(5400);
    expect(seen[2]!.remainingMs).toBeCloseTo(500);
    tick(50);
    it.report('load', 1, 2); // the second expert's weights
    expect(seen[3]!.remainingMs).toBeCloseTo(562.5);
  });
});

describe('StageClock', () => {
  it('accounts a stage inside another to the inner one alone', async () => {
    let now = 0;
    const clock = new StageClock(() => now);
    await clock.time('diffusionMs', async () => {
      now += 5;
      await clock.time('loadMs', async () => {
        now += 100;
      });
      now += 7;
    });
    now += 3;
    expect(clock.timings()).toEqual({ loadMs: 100, textMs: 0, diffusionMs: 12, decodeMs: 0, totalMs: 115 });
  });

  it('accounts a stage that fails', async () => {
    let now = 0;
    const clock = new StageClock(() => now);
    const failing = clock.time('textMs', async () => {
      now += 4;
      throw new Error('broken');
    });
    await expect(failing).rejects.toThrow('broken');
    now += 1;
    expect(clock.timings()).toMatchObject({ textMs: 4, totalMs: 5 });
  });
});
