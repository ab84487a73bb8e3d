import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { keepFrames } from '../../kernels/keep-frames';
import { decodeF16 } from '../../src/floats';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, seededFloats } from '../harness/near';
import { F16_STORE, readAs, uploadAs } from '../harness/typed';
import { keepFramesReference } from '../reference/keep-frames';

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

async function keep(x: Float32Array, held: Float32Array, quads: number, first: number, place: number) {
  const { gpu } = test;
  using xs = uploadAs(gpu, 'f32', x);
  using y = uploadAs(gpu, 'f16', held);
  await keepFrames.run(gpu, { quads, first, place }, { x: xs, y });
  const values = await readAs(gpu, 'f16', y);
  gpu.check();
  return values;
}

describe('keep-frames', () => {
  it.each([
    [1, 0, 0],
    [64, 3, 5],
    [130, 1, 0],
  ])('rounds %i fours from %i to %i and leaves the rest', async (quads, first, place) => {
    const x = seededFloats(quads, 4 * (first + quads + 2), 3);
    const held = new Float32Array(4 * (place + quads + 2)).fill(777);
    const values = await keep(x, held, quads, first, place);
    expectNear(values, keepFramesReference(x, held, { quads, first, place }), F16_STORE, `seed ${quads}`);
    const outside = (_: number, i: number) => i < 4 * place || i >= 4 * (place + quads);
    expect(new Set(values.filter(outside))).toEqual(new Set([777]));
  });

  it('keeps exact what a half float holds, and bounds what it does not', async () => {
    const largest = 65504;
    const x = Float32Array.of(0, 0.5, -3, largest, -largest, 1e6, -1e30, decodeF16(Uint16Array.of(0x3555))[0]!);
    expect([...(await keep(x, new Float32Array(8), 2, 0, 0))]).toEqual([...x.subarray(0, 5), largest, -largest, x[7]]);
  });
});
