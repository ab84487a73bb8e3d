import { afterAll, beforeAll, describe, it } from 'vitest';
import { Rife, type RifeOptions } from '../../src/interpolate/rife';
import type { RifeWeights } from '../../src/interpolate/rife-weights';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, type Tolerance } from '../harness/near';
import { hasRifeReference, readFrame, rifeGolden, shippedRife, uploadFrame } from '../harness/rife';

/** f32 against the fp32 reference, through 44 convolutions. The reference page suggests 2e-4 for f32. */
const F32_NETWORK: Tolerance = { relativeL2: 2e-4, maxAbs: 2e-4 };

let test: TestGpu;
let weights: RifeWeights;
beforeAll(async () => {
  test = await openTestGpu();
  weights = await shippedRife(test.gpu, 'f32');
});
afterAll(async () => {
  weights?.[Symbol.dispose]();
  await test.close();
});

describe.skipIf(!hasRifeReference)('RIFE 4.6 against its reference outputs', () => {
  const golden = hasRifeReference ? rifeGolden() : new Map();

  async function run(name: string, time: number, options: Partial<RifeOptions> = {}): Promise<Float32Array> {
    const { gpu } = test;
    const { shape, values } = golden.get(`${name}.img0`)!;
    using first = uploadFrame(gpu, values, shape);
    using second = uploadFrame(gpu, golden.get(`${name}.img1`)!.values, shape);
    using rife = new Rife(gpu, weights, { width: shape[2]!, height: shape[1]!, ...options });
    using before = await rife.prepare({ rgb: first, frame: 0 });
    using after = await rife.prepare({ rgb: second, frame: 0 });
    const { rgb } = await rife.at(before, after, time);
    return readFrame(gpu, rgb);
  }

  it.each([
    ['a', 0.5, 'replicate'],
    ['a', 0.2, 'replicate'],
    ['b', 0.5, 'zero'],
  ] as const)('case %s at %s', async (name, time, edge) => {
    const out = await run(name, time, { edge });
    expectNear(out, golden.get(`${name}.out@${time}`)!.values, F32_NETWORK, `${name} at ${time}`);
  });
});
