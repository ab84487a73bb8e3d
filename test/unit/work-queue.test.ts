import { describe, expect, it } from 'vitest';
import type { Gpu } from '../../src/gpu/device';
import { WorkQueue } from '../../src/gpu/work-queue';

/** A device whose work is done when the test says so. */
function device() {
  const waiting: (() => void)[] = [];
  const onSubmittedWorkDone = () => new Promise<void>((resolve) => waiting.push(resolve));
  return {
    gpu: { device: { queue: { onSubmittedWorkDone } } } as unknown as Gpu,
    waiting,
    finish: () => waiting.shift()!(),
  };
}

/** Whether a promise is settled once everything that can happen has happened. */
async function settled(promise: Promise<unknown>): Promise<boolean> {
  let done = false;
  promise.then(
    () => {
      done = true;
    },
    () => {
      done = true;
    },
  );
  await new Promise((resolve) => setTimeout(resolve));
  return done;
}

describe('WorkQueue', () => {
  it('lets small work through without looking at the device', async () => {
    const { gpu, waiting } = device();
    const queue = new WorkQueue(gpu, 100);
    for (let i = 0; i < 9; i++) await queue.add(11);
    expect(waiting).toHaveLength(0);
    await queue.add(1);
    expect(waiting).toHaveLength(1);
  });

  it('has two portions under way, and waits with the third', async () => {
    const { gpu, finish } = device();
    const done: number[] = [];
    const queue = new WorkQueue(gpu, 100, undefined, (mac) => done.push(mac));
    await queue.add(100);
    await queue.add(250);
    const third = queue.add(120);
    expect(await settled(third)).toBe(false);
    finish();
    expect(await settled(third)).toBe(true);
    expect(done).toEqual([100]);
    const drained = queue.drain();
    finish();
    expect(await settled(drained)).toBe(false);
    finish();
    expect(await settled(drained)).toBe(true);
    expect(done).toEqual([100, 250, 120]);
  });

  it('counts what is left at the end', async () => {
    const { gpu, finish } = device();
    const done: number[] = [];
    const queue = new WorkQueue(gpu, 100, undefined, (mac) => done.push(mac));
    await queue.add(30);
    const drained = queue.drain();
    finish();
    await drained;
    expect(done).toEqual([30]);
    await queue.drain();
  });

  it('rejects at once when cancelled, while the device computes', async () => {
    const { gpu, finish } = device();
    const controller = new AbortController();
    const queue = new WorkQueue(gpu, 1, controller.signal);
    await queue.add(1);
    await queue.add(1);
    const third = queue.add(1);
    expect(await settled(third)).toBe(false);
    controller.abort();
    await expect(third).rejects.toMatchObject({ code: 'aborted' });
    await expect(queue.drain()).rejects.toMatchObject({ code: 'aborted' });
    finish();
  });
});
