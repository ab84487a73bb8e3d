import { afterAll, beforeAll, expect, it } from 'vitest';
import { measurePace } from '../../src/probe';
import { openTestGpu, type TestGpu } from '../harness/dawn';

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

it('measures a device within bounds of time and leaves nothing behind', async () => {
  const { gpu, ort } = test;
  const before = gpu.memory.liveBytes;
  const began = performance.now();
  const pace = await measurePace(gpu, ort, () => performance.now());
  const ms = performance.now() - began;
  console.log(
    `${gpu.name}: ${ms.toFixed(0)} ms, ${JSON.stringify(pace, (_, value) => (typeof value === 'number' ? value.toExponential(2) : value))}`,
  );
  expect(gpu.memory.liveBytes).toBe(before);
  // From a slow CPU driver to more than any GPU has.
  for (const rate of [pace.products, pace.attention, pace.convolutions]) {
    expect(rate).toBeGreaterThan(1e6);
    expect(rate).toBeLessThan(1e16);
  }
  expect(pace.upload).toBeGreaterThan(1e6);
});
