import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { randomOf, strikePoints } from '../crash/points';
import { SMALL_REQUEST, type SmallModel, smallModel } from '../crash/small';
import { CrashSite, faultOf, type Kind, type Outcome } from '../crash/trial';

/**
 * Jobs that are struck and give the frames of one that was not: a seeded tenth of `npm run crash-test`, with several
 * blows a job and on pictures of a quarter of the size, so that it takes three minutes.
 */
const SEED = 20261124;

describe('a job', () => {
  const random = randomOf(SEED);
  let model: SmallModel;
  let site: CrashSite;
  let undisturbed: Outcome;

  beforeAll(async () => {
    model = smallModel();
    site = await CrashSite.open(SMALL_REQUEST, { '/small/': model.folder }, '/small/');
    undisturbed = await site.run('count', []);
  });

  afterAll(async () => {
    await site?.close();
    model?.[Symbol.dispose]();
  });

  /** Strikes jobs, `blows` times each, and gives where what was wrong. */
  async function strike(kind: Kind, jobs: number, blows: number): Promise<string[]> {
    const faults: string[] = [];
    for (let job = 0; job < jobs; job++) {
      const at = strikePoints(blows, undisturbed.submits, random).sort((a, b) => a - b);
      const outcome = await site.run(kind, at);
      const fault = faultOf(outcome, undisturbed, blows);
      if (fault) faults.push(`${kind} at ${at} (seed ${SEED}): ${fault}`);
      if (outcome.clicked !== (kind === 'tab'))
        faults.push(`${kind} at ${at}: continued by a person: ${outcome.clicked}`);
    }
    return faults;
  }

  it('goes on when its device is destroyed, at 20 points', async () => {
    expect(await strike('destroy', 5, 4)).toEqual([]);
  });

  it('goes on when the GPU’s process crashes, at 5 points', async () => {
    expect([...(await strike('gpu', 1, 3)), ...(await strike('gpu', 1, 2))]).toEqual([]);
  });

  it('is continued when the tab has crashed, at 2 points', async () => {
    expect(await strike('tab', 2, 1)).toEqual([]);
  });

  it('is planned once more when the device is out of memory, and refused when that does not help', async () => {
    const [early, late] = [0.4, 0.6].map((share) => Math.floor(share * undisturbed.submits)) as [number, number];
    const helped = await site.run('memory', [early]);
    expect(faultOf(helped, undisturbed, 1)).toBeUndefined();
    const { why, continued } = await site.refused('memory', [early, late]);
    expect(why).toContain('out-of-memory');
    expect(continued.sha256).toBe(undisturbed.sha256);
  });

  it('is refused and kept when the browser offers no GPU any more', async () => {
    const { why, continued } = await site.refused('gone', [Math.floor(0.5 * undisturbed.submits)]);
    expect(why).toContain('device-lost');
    expect(why).toContain('What was computed is kept');
    expect(continued.sha256).toBe(undisturbed.sha256);
    expect(continued.resumed[0]!.from).toBeGreaterThan(0);
  });
});
