import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { publishedAcceleration } from '../../src/checkpoint/ratios';
import { runCalibrate, withAcceleration } from '../../src/cli/calibrate';
import { countEvaluations, planEvaluations } from '../../src/diffusion/cache';
import { meanRatio, RatioRecorder } from '../../src/diffusion/calibration';
import { schedule } from '../../src/diffusion/schedule';
import { parseManifest } from '../../src/store/manifest-reader';

const DEMO = readFileSync(resolve(import.meta.dirname, '../../public/models/demo/zoetrope.json'));
const GUIDED = { guidance_scale: 3.5, guidance_scale_2: 4 };

describe('ratios', () => {
  it('are means over tokens, without tokens that had nothing before', () => {
    expect(meanRatio([1, 4, 9], [2, 2, 3])).toBeCloseTo((0.5 + 2 + 3) / 3);
    expect(meanRatio([1, 5], [2, 0])).toBe(0.5);
    expect(meanRatio([1], [0])).toBe(1);
  });

  /** A run of `steps` whose residuals shrink by `ratio` a step in each branch. */
  function recorded(steps: number, ratio: number, boundary: number | null = 0.875) {
    const run = schedule({ solver: 'unipc', steps, shift: 5, boundary });
    const recorder = new RatioRecorder();
    for (let index = 0; index < steps; index++) {
      const norm = ratio ** index;
      const stage = index < run.highSteps ? 'high' : 'low';
      recorder.add(stage, run.sigmas[index]!, [norm, 2 * norm], [3 * norm, norm * 1.01 ** index]);
    }
    return recorder.result(boundary);
  }

  it('are those of neighbouring steps of one expert, each branch’s own', () => {
    const { high, low } = recorded(40, 0.97);
    expect(high.sigmas).toHaveLength(17);
    expect(low!.sigmas).toHaveLength(23);
    for (const { conditional, unconditional } of [high, low!]) {
      expect(conditional[0]).toBe(1);
      expect(unconditional[0]).toBe(1);
      expect(new Set(conditional.slice(1))).toEqual(new Set([0.97]));
      expect(new Set(unconditional.slice(1))).toEqual(new Set([0.97485]));
    }
    expect(low!.sigmas[0]).toBeCloseTo(
      schedule({ solver: 'unipc', steps: 40, shift: 5, boundary: 0.875 }).sigmas[17]!,
      5,
    );
  });

  it('of the demo leave out the documented steps at the endpoint’s default, of either branch', () => {
    const { acceleration, boundary } = parseManifest(DEMO);
    const run = schedule({ solver: 'unipc', steps: 27, shift: 5, boundary });
    const skipped = [2, 3, 5, 7, 9, 16, 18, 20, 22, 24];
    expect(countEvaluations(planEvaluations(run, GUIDED, 'regular', acceleration).steps)).toEqual({
      total: 54,
      computed: 34,
      skipped: { conditional: skipped, unconditional: skipped },
    });
  });

  it('come with the smallest threshold that gives 1.5 times fewer evaluations at the endpoint’s defaults', () => {
    const run = schedule({ solver: 'unipc', steps: 27, shift: 5, boundary: 0.875 });
    const speedup = (measured: ReturnType<typeof recorded>) => {
      const { total, computed } = countEvaluations(planEvaluations(run, GUIDED, 'regular', measured).steps);
      return total / computed;
    };
    const measured = recorded(40, 0.97);
    expect(speedup(measured)).toBeGreaterThanOrEqual(1.5);
    expect(speedup({ ...measured, threshold: measured.threshold - 0.01 })).toBeLessThan(1.5);
    expect(measured).toMatchObject({ maxSkips: 2, retention: 0.2 });
    // Residuals that halve at each step leave nothing to reuse at any threshold.
    expect(recorded(40, 0.3).threshold).toBe(0.06);
  });

  it('need two steps of each expert', () => {
    expect(() => recorded(2, 0.9)).toThrowError(expect.objectContaining({ code: 'bad-request' }));
    expect(recorded(2, 0.9, null).low).toBeUndefined();
    expect(recorded(4, 0.9).low!.sigmas).toHaveLength(2);
  });
});

describe('the manifest', () => {
  const manifest = parseManifest(DEMO);
  const measured = publishedAcceleration('a14b')!;

  it('gets the ratios and keeps everything else', () => {
    const text = withAcceleration(manifest, measured);
    const changed = parseManifest(new TextEncoder().encode(text));
    expect(changed).toEqual({ ...manifest, acceleration: measured });
    const lines = (source: string) => source.split('\n').filter((line) => !line.startsWith('"acceleration"'));
    expect(lines(text)).toEqual(lines(DEMO.toString()));
  });

  it('is not written where it could not be read back', () => {
    const { low: _, ...one } = measured;
    expect(() => withAcceleration(manifest, one)).toThrow('same experts');
  });

  const folder = mkdtempSync(join(tmpdir(), 'zoetrope-calibrate-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('has to be there, and somewhere to be written to', async () => {
    await expect(runCalibrate({}, { model: folder })).rejects.toMatchObject({ code: 'unreadable-source' });
    await expect(runCalibrate({}, { model: 'http://127.0.0.1:1/model' })).rejects.toThrow('--output');
  });
});
