import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openTestGpu, type TestGpu } from '../harness/dawn';

/** What a job is told of the device's failures. */

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu({}, 'null');
});
afterAll(() => test.close());

/** Makes the device report a failure, as it does: a moment later. */
async function fail(outOfMemory = false): Promise<void> {
  const { device } = test.gpu;
  const reported = new Promise((resolve) => device.addEventListener('uncapturederror', resolve, { once: true }));
  if (outOfMemory) {
    const error = new GPUOutOfMemoryError('no more');
    device.dispatchEvent(Object.assign(new Event('uncapturederror'), { error }));
  } else device.createBuffer({ size: 16, usage: 0 });
  await reported;
}

const never = new AbortController().signal;
const job = <T>(work: () => Promise<T>) => test.gpu.job(never, work);

describe('a job', () => {
  it('is told of a failure though what loads beside it has heard of it first', async () => {
    const { gpu } = test;
    await job(async () => {
      await fail(true);
      for (const _ of ['beside', 'job']) {
        expect(() => gpu.check()).toThrowError(expect.objectContaining({ code: 'out-of-memory' }));
      }
    });
  });

  it('has nothing to do with what failed before it', async () => {
    await job(() => fail());
    await fail();
    await job(async () => test.gpu.check());
  });

  it('rejects with what the device has said rather than with what came of it', async () => {
    const broken = job(async () => {
      await fail(true);
      throw new TypeError('something is undefined');
    });
    await expect(broken).rejects.toMatchObject({ code: 'out-of-memory' });
    await expect(job(() => Promise.reject(new TypeError('a bug')))).rejects.toThrow(TypeError);
  });

  it('has a peak of its own, of which a plan after out-of-memory is made', async () => {
    const { memory } = test.gpu;
    using _kept = memory.tensor('kept', 'uint8', [1024]);
    memory.tensor('large', 'uint8', [65_536])[Symbol.dispose]();
    await job(async () => memory.tensor('small', 'uint8', [4096])[Symbol.dispose]());
    expect([memory.jobPeakBytes, memory.peakBytes]).toEqual([1024 + 4096, 1024 + 65_536]);
  });
});
