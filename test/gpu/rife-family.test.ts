import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RgbFrame } from '../../src/interpolate/interpolator';
import { retime } from '../../src/interpolate/retime';
import { Rife, type RifeOptions } from '../../src/interpolate/rife';
import { loadRife } from '../../src/interpolate/rife-weights';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { distance, expectNear, seededFloats, type Tolerance } from '../harness/near';
import { readFrame, uploadFrame } from '../harness/rife';
import { importedRife, randomRife, SMALL_RIFE } from '../harness/rife-family';
import { movingTexture } from '../harness/texture';
import { rifeReference } from '../reference/rife';

/** RIFE 4.6 to 4.26 with random weights, from a file through our import to a frame, against the float64 reference. */

/**
 * f32 through up to 59 convolutions against float64, where a block's error moves what the next one reads. Measured up
 * to 1.1e-6; drivers order and fuse sums differently, so twenty times that. A tenth of what the network's description
 * allows for 32 bits.
 */
const F32_NETWORK: Tolerance = { relativeL2: 2e-5, maxAbs: 2e-5 };
/** Flows of up to ten pixels, and logits. Measured up to 1.6e-5; ten times that. */
const F32_VALUES: Tolerance = { relativeL2: 2e-5, maxAbs: 1.6e-4 };

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

type Version = keyof typeof SMALL_RIFE;
const sizes: [Version, [height: number, width: number], number][] = [
  ['4.6', [40, 60], 0.5],
  ['4.22.lite', [40, 60], 0.25],
  ['4.25', [50, 100], 0.5],
  ['4.25.lite', [70, 129], 0.8],
  ['4.26.heavy', [64, 64], 0.5],
];

describe('the RIFE 4 family', () => {
  it.each(sizes)('%s makes the frame of the reference, [%s] pixels at %d', async (version, [height, width], time) => {
    const { gpu } = test;
    const before = gpu.memory.liveBytes;
    const config = SMALL_RIFE[version];
    const tensors = randomRife(config, 100);
    const texture = movingTexture(3, 8, 64);
    const pictures = [texture(width, height, 0, 0), texture(width, height, 5, -3)] as const;
    const { scales, multiple } = config;
    const network = { scales, multiple, encoder: config.encoder > 0 };
    const expected = rifeReference(tensors, network, pictures, [height, width], time);

    const seen = new Map<string, Float32Array>();
    const tap: RifeOptions['tap'] = async (name, tensor) => {
      if (name === 'flow' || name === 'mask') seen.set(name, await gpu.memory.readFloats(tensor));
    };
    {
      using weights = await loadRife(gpu, (await importedRife(tensors)).open(), undefined, 'f32');
      expect(weights.config).toEqual(config);
      using first = uploadFrame(gpu, pictures[0], [3, height, width]);
      using second = uploadFrame(gpu, pictures[1], [3, height, width]);
      using rife = new Rife(gpu, weights, { width, height, tap });
      using from = await rife.prepare({ rgb: first, frame: 0 });
      using to = await rife.prepare({ rgb: second, frame: 0 });
      const { rgb } = await rife.at(from, to, time);
      const out = await readFrame(gpu, rgb);
      const flow = seen.get('flow')!;
      const plane = flow.length / 4;
      const planar = Float32Array.from(flow, (_, i) => flow[4 * (i % plane) + Math.floor(i / plane)]!);
      console.log(
        `${version}: errors ${[
          distance(out, expected.rgb, 1),
          distance(planar, expected.flow, 1),
          distance(seen.get('mask')!, expected.mask, 1),
        ].map(({ maxAbs }) =>
          maxAbs.toExponential(1),
        )}; flows up to ${expected.flow.reduce((most, value) => Math.max(most, Math.abs(value)), 0).toFixed(1)}`,
      );
      expectNear(planar, expected.flow, F32_VALUES, 'flow');
      expectNear(seen.get('mask')!, expected.mask, F32_VALUES, 'mask');
      expectNear(out, expected.rgb, F32_NETWORK, 'frame');
      // The network has to have done something: a frame that is neither a picture nor their mean.
      const blend = pictures[0].map((value, i) => value * (1 - time) + pictures[1][i]! * time);
      expect(distance(out, blend, 1).maxAbs).toBeGreaterThan(0.05);
    }
    expect(gpu.memory.liveBytes).toBe(before);
  });

  it('encodes a frame once for all that is made from it', async () => {
    const { gpu } = test;
    using weights = await loadRife(gpu, (await importedRife(randomRife(SMALL_RIFE['4.25'], 7))).open());
    const seen: string[] = [];
    const tap: RifeOptions['tap'] = async (name) => void seen.push(name);
    async function* frames(): AsyncGenerator<RgbFrame> {
      using rgb = gpu.memory.upload('frames', 'float32', [3, 3, 16, 16], seededFloats(1, 3 * 3 * 16 * 16, 0.3));
      for (let frame = 0; frame < 3; frame++) yield { rgb, frame };
    }
    using rife = new Rife(gpu, weights, { width: 16, height: 16, tap });
    let count = 0;
    for await (const _ of retime(frames(), rife, 2)) count++;
    expect(count).toBe(7);
    expect(seen.filter((name) => name === 'picture')).toHaveLength(3);
    expect(seen.filter((name) => name === 'block0.head')).toHaveLength(4);
  });
});
