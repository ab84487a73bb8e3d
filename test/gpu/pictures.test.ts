import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { HostModel } from '../../src/gpu/ort';
import { CLASSES, classify, openPictureModel } from '../../src/safety/pictures';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { classifierFolder, PICTURES, pictureCase } from '../harness/pictures';

const golden = pictureCase(resolve(import.meta.dirname, '../golden/nsfw'));

describe('the picture classifier', () => {
  let gpu: TestGpu;
  let model: HostModel;

  beforeAll(async () => {
    gpu = await openTestGpu({}, 'null'); // it runs on the CPU
    model = await openPictureModel(classifierFolder(), gpu.ort);
  });

  afterAll(async () => {
    await model?.release();
    await gpu?.close();
  });

  it('has the classes of the reference', () => {
    expect(CLASSES).toEqual(golden.config.classes);
  });

  it.each(Object.entries(PICTURES))('gives the probabilities of TensorFlow.js for %s', async (name, picture) => {
    const begin = performance.now();
    const actual = await classify(model, picture());
    const expected = golden.outputs[name as keyof typeof PICTURES];
    const worst = Math.max(...actual.map((value, i) => Math.abs(value - expected[i]!)));
    console.log(`${name}: largest difference ${worst.toExponential(1)}, ${Math.round(performance.now() - begin)} ms`);
    // Measured: 3.0e-7, another order of f32 sums; the limit is seven times that.
    expect(worst).toBeLessThan(golden.tolerance.abs);
  });

  it('refuses files that are not the published ones', async () => {
    const flipped = classifierFolder((path, bytes) => {
      if (path === 'group1-shard2of2') bytes[1000]! ^= 1;
    });
    await expect(openPictureModel(flipped, gpu.ort)).rejects.toMatchObject({
      code: 'corrupt-data',
      message: expect.stringContaining('group1-shard2of2'),
    });
  });
});
