import { describe, expect, it } from 'vitest';
import { type HeldJob, Jobs, KEPT_INTERRUPTED, MAX_WAITING, type NewJob } from '../../src/store/jobs';
import { fakeDisk, fakeLocks } from '../harness/store-host';

const never = new AbortController().signal;

function newJob(id: string): NewJob {
  const model = { id: 'f00d', name: 'demo', url: 'https://example.org/demo/' };
  return { id, request: { prompt: `prompt of ${id}` }, checkOutput: false, model };
}

/** Two tabs of one origin. */
function tabs() {
  const disk = fakeDisk();
  const locks = fakeLocks();
  let clock = 1000;
  const now = () => clock++;
  return { disk, one: new Jobs({ disk, locks, now }), two: new Jobs({ disk, locks, now }) };
}

const state = (stepsDone: number) => ({
  stepsDone,
  latents: new Map([
    ['sample', Float32Array.of(stepsDone, 0.1, -2)],
    ['lastSample', Float32Array.of(4, 5, 6)],
  ]),
});

const decided = (id: string) => ({
  request: { ...newJob(id).request, seed: 7, num_inference_steps: 8 } as never,
  prompt: 'expanded',
});

/** Runs a job as a tab that dies would: nothing after its last write happens. */
async function interrupt(jobs: Jobs, id: string, steps: number): Promise<void> {
  const work = async (job: HeldJob) => {
    await job.decide(decided(id));
    for (let step = 1; step <= steps; step++) await job.save(state(step));
  };
  await jobs.run(id, never, work, newJob(id));
}

const line = async (jobs: Jobs) => (await jobs.list()).filter((job) => job.state === 'waiting').map(({ id }) => id);

describe('the line', () => {
  it('keeps its order over tabs and reloads, and moves', async () => {
    const { one, two, disk } = tabs();
    for (const id of ['a', 'b', 'c', 'd']) await one.add(newJob(id));
    expect(await line(two)).toEqual(['a', 'b', 'c', 'd']);
    await two.move('d', 0);
    expect(await line(one)).toEqual(['d', 'a', 'b', 'c']);
    await one.move('d', 2);
    await one.move('c', 99);
    expect(await line(two)).toEqual(['a', 'b', 'd', 'c']);
    await one.remove('b');
    disk.crash();
    expect(await line(two)).toEqual(['a', 'd', 'c']);
    await one.add(newJob('e'));
    expect(await line(two)).toEqual(['a', 'd', 'c', 'e']);
    await expect(one.move('b', 0)).rejects.toMatchObject({ code: 'unknown-job' });
  });

  it('keeps every move of two tabs at once', async () => {
    const { one, two } = tabs();
    for (const id of ['a', 'b', 'c', 'd']) await one.add(newJob(id));
    await Promise.all([one.move('d', 0), two.move('a', 3), one.add(newJob('e')), two.add(newJob('f'))]);
    const ids = await line(one);
    expect([...ids].sort()).toEqual(['a', 'b', 'c', 'd', 'e', 'f']);
    expect(ids[0]).toBe('d');
  });

  it('refuses more than it may hold', async () => {
    const { one } = tabs();
    for (let i = 0; i < MAX_WAITING; i++) await one.add(newJob(`job-${i}`));
    await expect(one.add(newJob('more'))).rejects.toMatchObject({ code: 'storage-full' });
    expect(await line(one)).toHaveLength(MAX_WAITING);
  });
});

describe('a job', () => {
  it('is waiting, running, interrupted, and gone', async () => {
    const { one, two } = tabs();
    await one.add(newJob('a'));
    const states: string[] = [];
    const note = async () => states.push(...(await two.list()).map((job) => `${job.state} ${job.stepsDone}`));
    await note();
    await one.run('a', never, async (job) => {
      await note();
      await job.decide(decided('a'));
      await job.save(state(1));
      await note();
    });
    await note();
    expect(states).toEqual(['waiting 0', 'running 0', 'running 1', 'interrupted 1']);
    expect((await two.list())[0]!.request).toMatchObject({ seed: 7 });
    await two.run('a', never, async (job) => {
      expect(job.stepsKept).toBe(1);
      expect(job.record.decided).toEqual(decided('a'));
      expect(await job.load()).toEqual(state(1));
      await job.remove();
    });
    expect(await one.list()).toEqual([]);
    await expect(one.run('a', never, async () => undefined)).rejects.toMatchObject({ code: 'unknown-job' });
    await one.remove('a'); // of what is not there, nothing is left to do
  });

  it('runs in one tab at a time and cannot be removed from another one', async () => {
    const { one, two } = tabs();
    let end: () => void = () => undefined;
    const running = one.run('a', never, () => new Promise<void>((resolve) => (end = resolve)), newJob('a'));
    await expect.poll(async () => (await two.list())[0]?.state).toBe('running');
    await Promise.all([
      expect(two.run('a', never, async () => undefined)).rejects.toMatchObject({ code: 'job-in-use' }),
      expect(two.remove('a')).rejects.toMatchObject({ code: 'job-in-use' }),
      expect(two.run('a', AbortSignal.abort(), async () => undefined)).rejects.toMatchObject({ code: 'aborted' }),
    ]);
    end();
    await running;
    expect((await two.list())[0]!.state).toBe('interrupted');
  });

  it('goes on from the former state when the last one was torn', async () => {
    const { one, disk } = tabs();
    await interrupt(one, 'a', 3);
    const newest = ['a state-0', 'a state-1'].map((path) => disk.files.get(path)!);
    newest[0]!.written[newest[0]!.written.length - 1]! ^= 1; // of step 3, the third write; its header is whole
    await one.run('a', never, async (job) => expect(await job.load()).toEqual(state(2)));
  });

  it('keeps what was decided with a step, where a full disk has refused it before', async () => {
    const { one, two, disk } = tabs();
    const full = (path: string) => {
      if (path.startsWith('job')) throw new DOMException('full', 'QuotaExceededError');
    };
    const work = async (job: HeldJob) => {
      disk.beforeWrite = full;
      await expect(job.decide(decided('a'))).rejects.toThrow('full');
      await job.save(state(1));
    };
    await one.run('a', never, work, newJob('a'));
    expect((await two.list())[0]!.request).toMatchObject({ seed: 7 });
    // The disk is as full as before, and takes no record.
    await two.run('a', never, async ({ record, load }) => {
      expect(record.decided).toEqual(decided('a'));
      expect(await load()).toEqual(state(1));
    });
  });

  it('that waits runs on a full disk too, and is kept from where there is room on', async () => {
    const { one, two, disk } = tabs();
    await one.add(newJob('a'));
    disk.beforeWrite = () => {
      throw new DOMException('full', 'QuotaExceededError');
    };
    await one.run('a', never, async (job) => {
      expect((await two.list())[0]!.state).toBe('running');
      await expect(job.decide(decided('a'))).rejects.toThrow('full');
      disk.beforeWrite = () => undefined;
      await job.save(state(1));
    });
    await two.run('a', never, async ({ record, load }) => {
      expect([record.decided, await load()]).toEqual([decided('a'), state(1)]);
    });
    expect((await two.list())[0]!.state).toBe('interrupted');
  });

  it('is removed once, by whoever comes first', async () => {
    const { one, two } = tabs();
    let end: () => void = () => undefined;
    const work = async (job: HeldJob) => {
      await new Promise<void>((resolve) => (end = resolve));
      await job.remove();
    };
    const running = one.run('a', never, work, newJob('a'));
    await expect.poll(async () => (await two.list())[0]?.state).toBe('running');
    const removed = one.remove('a');
    end();
    await Promise.all([running, removed]);
    expect(await two.list()).toEqual([]);
  });

  it('takes bounded room: of the interrupted ones the newest stay, and what is unreadable goes', async () => {
    const { one, disk } = tabs();
    for (let i = 0; i < KEPT_INTERRUPTED + 3; i++) await interrupt(one, `job-${i}`, 1);
    await one.add(newJob('waits'));
    for (const path of ['job-6 job-0', 'job-6 job-1']) {
      const file = disk.files.get(path);
      if (file) file.written = file.written.slice(0, 10);
    }
    await disk.edit('dying', 'job-0'); // of a tab whose locks are gone and whose files are not
    await interrupt(one, 'last', 1);
    expect((await one.list()).map(({ id }) => id)).toEqual(['job-2', 'job-3', 'job-4', 'job-5', 'waits', 'last']);
    expect(await disk.folders()).not.toContain('job-6');
  });
});
