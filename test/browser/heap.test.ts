import { afterAll, beforeAll, expect, it } from 'vitest';
import { WAN_1_3B } from '../../src/checkpoint/released';
import { type Chromium, openChromium } from '../harness/chromium';
import { heapTable, measureHeap } from '../harness/heap';
import { type SyntheticModel, serveSynthetic } from '../harness/synthetic-model';

/** Budget of the design for reading a model of any size. `npm run heap` measures a model of several GB. */
const LIMIT_BYTES = 128 * 2 ** 20;

let chromium: Chromium;
let model: SyntheticModel;

beforeAll(async () => {
  // Ten of the thirty layers of Wan 2.1's 1.3B: matrices larger than a slice, and some twenty pieces.
  model = await serveSynthetic({ ...WAN_1_3B, numLayers: 10 });
  chromium = await openChromium();
});

afterAll(async () => {
  await chromium?.close();
  await model?.close();
});

it('downloads, verifies and reads a model within 128 MiB of heap above idle', async () => {
  const report = await measureHeap(await chromium.open(), model);
  console.log(`${model.sizeBytes} bytes, MiB above idle:\n${heapTable(report)}`);
  expect(report.sizeBytes).toBeGreaterThan(2 * LIMIT_BYTES);
  for (const { name, peak, samples } of report.stages) {
    expect(peak.heapBytes - report.idle.heapBytes, name).toBeLessThan(LIMIT_BYTES);
    expect(samples, name).toBeGreaterThan(2);
  }
});
