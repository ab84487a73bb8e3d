import { describe, expect, it } from 'vitest';
import { ZoetropeError, type ZoetropeErrorCode } from '../../src/errors';
import type { LogEntry, Progress, Report } from '../../src/protocol';
import {
  afterFailure,
  FIRST_ATTEMPT,
  keep,
  MAX_LOSSES,
  REPLAN_SHARE,
  recovering,
  type Seen,
  staysAfter,
  steadyReport,
} from '../../src/recovery';
import type { HeldJob } from '../../src/store/jobs';

const errorOf = (code: ZoetropeErrorCode) => new ZoetropeError(code, `${code}.`);
const failure = (code: ZoetropeErrorCode, seen: Partial<Seen> = {}) => ({
  error: errorOf(code),
  planned: true,
  stepsKept: 0,
  peakBytes: 10e9,
  ...seen,
});

describe('afterFailure', () => {
  it('goes on after a lost device until too many were lost without a step between them', () => {
    let history = FIRST_ATTEMPT;
    for (let loss = 1; loss <= MAX_LOSSES; loss++) {
      const decision = afterFailure(history, failure('device-lost'), Infinity);
      expect(decision).toEqual({ kind: 'continue', history: { losses: loss, replanned: false } });
      if (decision.kind === 'continue') history = decision.history;
    }
    expect(afterFailure(history, failure('device-lost'), Infinity)).toEqual({ kind: 'give-up' });
    const after = afterFailure(history, failure('device-lost', { stepsKept: 1 }), Infinity);
    expect(after).toEqual({ kind: 'continue', history: { losses: 1, replanned: false } });
  });

  it('plans once for less memory than the device ran out of', () => {
    const once = afterFailure(FIRST_ATTEMPT, failure('out-of-memory'), 16e9);
    const history = { losses: 0, replanned: true };
    expect(once).toEqual({ kind: 'replan', history, budgetBytes: REPLAN_SHARE * 10e9 });
    expect(afterFailure(FIRST_ATTEMPT, failure('out-of-memory'), 5e9)).toMatchObject({
      budgetBytes: REPLAN_SHARE * 5e9,
    });
    expect(afterFailure(history, failure('out-of-memory'), 7e9)).toEqual({ kind: 'give-up' });
    expect(afterFailure(FIRST_ATTEMPT, failure('out-of-memory', { planned: false }), 16e9)).toEqual({
      kind: 'give-up',
    });
  });

  it.each(['aborted', 'bad-request', 'unsupported-device', 'encoding-failed', 'internal', 'corrupt-data'] as const)(
    'does not try again after %s',
    (code) => {
      expect(afterFailure(FIRST_ATTEMPT, failure(code), Infinity)).toEqual({ kind: 'give-up' });
    },
  );
});

describe('staysAfter', () => {
  it('keeps what a person may want to continue', () => {
    const kept = (steps: number) =>
      (
        [
          'aborted',
          'bad-request',
          'missing-component',
          'content-policy-violation',
          'device-lost',
          'unsupported-device',
          'out-of-memory',
          'encoding-failed',
          'unreadable-source',
        ] as const
      ).filter((code) => staysAfter(errorOf(code), steps));
    expect(kept(0)).toEqual(['device-lost', 'unsupported-device']);
    expect(kept(3)).toEqual([
      'missing-component',
      'device-lost',
      'unsupported-device',
      'out-of-memory',
      'encoding-failed',
      'unreadable-source',
    ]);
  });
});

describe('recovering', () => {
  /** Attempts that end one after the other as told, with what each was given. */
  function attempts(ends: ((seen: Seen) => string)[]) {
    const given: { budgetBytes: number; losses: number }[] = [];
    const log: LogEntry[] = [];
    let releases = 0;
    const host = {
      budgetBytes: 16e9,
      log: (entry: LogEntry) => log.push(entry),
      release: async () => void releases++,
    };
    const run = () =>
      recovering(async (budgetBytes, seen, losses) => {
        given.push({ budgetBytes, losses });
        return ends[given.length - 1]!(seen);
      }, host);
    return { run, given, log, releases: () => releases };
  }
  const fail = (code: ZoetropeErrorCode, seen: Partial<Seen>) => (its: Seen) => {
    Object.assign(its, seen);
    throw errorOf(code);
  };

  it('gives what the first attempt that succeeds gives', async () => {
    const lost = fail('device-lost', { planned: true });
    const full = fail('out-of-memory', { planned: true, peakBytes: 10e9 });
    const { run, given, log, releases } = attempts([lost, full, lost, () => 'video']);
    expect(await run()).toBe('video');
    expect(given).toEqual([
      { budgetBytes: 16e9, losses: 0 },
      { budgetBytes: 16e9, losses: 1 },
      { budgetBytes: 7e9, losses: 1 },
      { budgetBytes: 7e9, losses: 2 },
    ]);
    expect(log.map(({ level }) => level)).toEqual(['warning', 'warning', 'warning']);
    expect(releases()).toBe(1);
  });

  it('rejects with the last error when nothing helps', async () => {
    const full = fail('out-of-memory', { planned: true, peakBytes: 10e9 });
    const { run, given, releases } = attempts([full, full]);
    await expect(run()).rejects.toMatchObject({ code: 'out-of-memory' });
    expect(given).toHaveLength(2);
    expect(releases()).toBe(2); // of the device that ran out, nothing is used again
  });
});

describe('steadyReport', () => {
  it('never goes back, and counts from the first attempt on', () => {
    let now = 500;
    const seen: Progress[] = [];
    const report = {
      progress: (progress: Progress) => seen.push(progress),
      preview: () => undefined,
      log: () => undefined,
    };
    const steady = steadyReport(report, () => now);
    const progress = { stage: 'diffusion', done: 1, total: 2, elapsedMs: 0, remainingMs: null } as const;
    for (const fraction of [0.1, 0.5, 0, 0.4, 0.6]) {
      now += 100;
      steady.progress({ ...progress, fraction });
    }
    expect(seen.map(({ fraction }) => fraction)).toEqual([0.1, 0.5, 0.5, 0.5, 0.6]);
    expect(seen.map(({ elapsedMs }) => elapsedMs)).toEqual([100, 200, 300, 400, 500]);
  });

  it('passes everything on to a page, whose report is a proxy', async () => {
    const calls: string[] = [];
    const page = new Proxy(() => undefined, {
      get: (_, name) => async () => {
        calls.push(String(name));
        return 'a longer prompt';
      },
    });
    const steady = steadyReport(page as unknown as Report, () => 0);
    steady.log({ level: 'info', message: '' });
    steady.preview({} as never);
    steady.progress({ fraction: 0 } as never);
    expect(await steady.expand?.('user', 'a', 'en', '')).toBe('a longer prompt');
    expect(calls).toEqual(['log', 'preview', 'progress', 'expand']);
  });
});

describe('keep', () => {
  const decided = { request: { seed: 3 } as never, prompt: 'a' };
  const state = async () => ({ stepsDone: 1, latents: new Map() });

  it('warns once and goes on when the disk is full, and keeps later steps when it is not any more', async () => {
    const log: LogEntry[] = [];
    let full = true;
    let steps = 0;
    const write = async () => {
      if (full) throw new DOMException('The quota has been exceeded.', 'QuotaExceededError');
    };
    const record = {} as HeldJob['record'];
    const job: HeldJob = {
      record,
      stepsKept: 0,
      decide: write,
      save: write,
      load: async () => undefined,
      remove: write,
    };
    const checkpoint = keep(
      job,
      (entry) => log.push(entry),
      () => steps++,
    );
    await checkpoint.decide(decided);
    await checkpoint.save(state);
    expect([steps, checkpoint.decided]).toEqual([0, decided]);
    full = false;
    await checkpoint.save(state);
    expect(steps).toBe(1);
    expect(log).toEqual([{ level: 'warning', message: expect.stringContaining('quota has been exceeded') }]);
  });

  it('does not hide a failure of the GPU, and reads nothing where nothing can be kept', async () => {
    const job = { record: {}, save: async () => undefined } as unknown as HeldJob;
    const broken = async () => {
      throw errorOf('device-lost');
    };
    const none = () => undefined;
    await expect(keep(job, none, none).save(broken)).rejects.toMatchObject({ code: 'device-lost' });
    await keep(undefined, none, none).save(broken);
  });
});
