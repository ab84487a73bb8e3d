import { afterEach, describe, expect, it, vi } from 'vitest';
import { createJobs } from '../../src/client/jobs';
import { ZoetropeError } from '../../src/errors';
import type { StoredJob } from '../../src/protocol';
import { cancelJob, inLine, isIdle } from '../../workers/line';
import { fakeLocks } from '../harness/store-host';

const until = (signal: AbortSignal) =>
  new Promise<never>((_, reject) =>
    signal.addEventListener('abort', () => reject(new ZoetropeError('aborted', 'aborted.'))),
  );

describe('jobs of an engine', () => {
  it('run one after the other, and one that waits can be cancelled', async () => {
    const order: string[] = [];
    const job = (id: string) => inLine(id, async () => void order.push(id));
    const first = inLine('first', until);
    const [second, third] = [job('second'), job('third')];
    cancelJob('second');
    await expect(second).rejects.toMatchObject({ code: 'aborted' });
    expect(order).toEqual([]);
    cancelJob('first');
    await expect(first).rejects.toMatchObject({ code: 'aborted' });
    await third;
    expect(order).toEqual(['third']);
    expect(isIdle()).toBe(true);
  });

  it('are there once: a second call leaves the first one to be cancelled', async () => {
    const first = inLine('a', until);
    await expect(inLine('a', async () => undefined)).rejects.toMatchObject({ code: 'job-in-use' });
    cancelJob('a');
    await expect(first).rejects.toMatchObject({ code: 'aborted' });
    await inLine('a', async () => undefined);
  });
});

describe('jobs.next', () => {
  afterEach(() => vi.unstubAllGlobals());

  /** Jobs over a list of ids that all wait. */
  function waiting(ids: string[], run: (id: string) => Promise<never>) {
    const locks = fakeLocks();
    vi.stubGlobal('navigator', { locks });
    const list = async () => ids.map((id) => ({ id, state: 'waiting', model: { id: 'm' } }) as StoredJob);
    const engine = { jobs: { list } } as never;
    return { locks, jobs: createJobs(engine, (pending) => pending, { id: 'm' } as never, run) };
  }

  it('passes over what somebody else runs, though it is said to wait', async () => {
    const tried: string[] = [];
    const { jobs } = waiting(['a', 'b'], async (id) => {
      tried.push(id);
      throw new ZoetropeError('job-in-use', 'in use.');
    });
    expect(await jobs.next()).toBeUndefined();
    expect(tried).toEqual(['a', 'b']);
  });

  it('is cancelled with an error of ours while another tab has the line', async () => {
    const { jobs, locks } = waiting([], () => Promise.reject(new Error('not asked for')));
    void locks.request('zoetrope-line', {}, () => new Promise(() => undefined));
    const controller = new AbortController();
    const next = jobs.next({ signal: controller.signal });
    controller.abort();
    await expect(next).rejects.toMatchObject({ code: 'aborted' });
  });
});
