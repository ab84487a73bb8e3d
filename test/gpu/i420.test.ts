import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { i420, i420Bytes } from '../../kernels/i420';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { seededFloats } from '../harness/near';
import { i420Reference } from '../reference/i420';

/**
 * A byte differs from the float64 one only where the value lies within f32 rounding, 3e-5 of a level, of a half: one
 * byte in ten thousand, and by one level.
 */
const LEVELS = 1;
const EXACT_SHARE = 0.999;

/** Words behind the picture that a launch must leave alone, and what they hold. */
const GUARDS = 8;
const GUARD = 0xdeadbeef;

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

async function convert(rgb: Float32Array, width: number, height: number, frames = 1, frame = 0): Promise<Uint8Array> {
  const { gpu } = test;
  const words = i420Bytes(width, height) / 4;
  using source = gpu.memory.upload('rgb', 'float32', [3, frames, height, width], rgb);
  using out = gpu.memory.upload('out', 'uint32', [words + GUARDS], new Uint32Array(words + GUARDS).fill(GUARD));
  await i420.run(gpu, { width, height, frames, frame }, { rgb: source, out });
  const bytes = await gpu.memory.read(out);
  gpu.check();
  expect([...new Uint32Array(bytes.buffer, words * 4)]).toEqual(new Array(GUARDS).fill(GUARD));
  return bytes.slice(0, words * 4);
}

/** Frame `frame` of [3, frames, height, width]. */
function frameOf(rgb: Float32Array, pixels: number, frames: number, frame: number): Float32Array {
  const picture = new Float32Array(3 * pixels);
  for (let c = 0; c < 3; c++) {
    const begin = (c * frames + frame) * pixels;
    picture.set(rgb.subarray(begin, begin + pixels), c * pixels);
  }
  return picture;
}

describe('i420', () => {
  it.each([
    ['16 × 16', 16, 16, 1, 0, 1],
    ['wide', 112, 32, 1, 0, 2],
    ['high', 16, 208, 1, 0, 3],
    ['first of three frames', 48, 64, 3, 0, 4],
    ['middle of three frames', 48, 64, 3, 1, 5],
    ['last of three frames', 48, 64, 3, 2, 6],
    ['480p', 832, 480, 1, 0, 7],
  ])('%s', async (name, width, height, frames, frame, seed) => {
    // Standard deviation 0.6: a tenth of the values lie outside -1..1 and must be clamped.
    const rgb = seededFloats(seed, 3 * frames * width * height, 0.6);
    const actual = await convert(rgb, width, height, frames, frame);
    const expected = i420Reference(frameOf(rgb, width * height, frames, frame), width, height);
    expect(actual.length).toBe(expected.length);
    const off = Array.from(actual, (value, i) => Math.abs(value - expected[i]!));
    const worst = off.reduce((a, b) => Math.max(a, b));
    const at = off.indexOf(worst);
    const share = off.filter((error) => error === 0).length / off.length;
    const message = `${name}, seed ${seed}: exact ${share}, worst at ${at}: got ${actual[at]}, expected ${expected[at]}`;
    expect(worst <= LEVELS && share >= EXACT_SHARE, message).toBe(true);
  });

  // Values of 8-bit BT.709 colour bars (ITU-R BT.709-6, items 3.2 to 3.4), not of the reference.
  it.each([
    ['white', [1, 1, 1], [235, 128, 128]],
    ['black', [-1, -1, -1], [16, 128, 128]],
    ['grey', [0, 0, 0], [126, 128, 128]],
    ['red', [1, -1, -1], [63, 102, 240]],
    ['green', [-1, 1, -1], [173, 42, 26]],
    ['blue', [-1, -1, 1], [32, 240, 118]],
    ['beyond red', [9, -9, -9], [63, 102, 240]],
  ])('%s', async (_, rgb, [y, u, v]) => {
    const picture = Float32Array.from({ length: 3 * 256 }, (_, i) => rgb[Math.floor(i / 256)]!);
    const planes = await convert(picture, 16, 16);
    expect(new Set(planes.subarray(0, 256))).toEqual(new Set([y]));
    expect(new Set(planes.subarray(256, 320))).toEqual(new Set([u]));
    expect(new Set(planes.subarray(320))).toEqual(new Set([v]));
  });
});
