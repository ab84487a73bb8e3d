import { describe, expect, it } from 'vitest';
import { WAN_VAE } from '../../src/checkpoint/released';
import { decodeChoice } from '../../src/plan/decode';
import type { VideoShape } from '../../src/shape';
import { decoderBuffers, decoderBytes } from '../../src/vae/memory';

const MIB = 2 ** 20;
/** What every WebGPU device allows of a storage binding. */
const BINDING = 128 * MIB;

/** Pixels of A14B's nine sizes. */
const SIZES = [
  [832, 480],
  [480, 832],
  [640, 640],
  [1024, 576],
  [576, 1024],
  [768, 768],
  [1280, 720],
  [720, 1280],
  [960, 960],
] as const;

const TYPES = ['f32', 'f16'] as const;

describe('the nine sizes of A14B, on a device of default limits', () => {
  const planned = (width: number, height: number, budgetBytes: number) => {
    const shape = {
      width,
      height,
      latentHeight: height / 8,
      latentWidth: width / 8,
      latentFrames: 31,
    } as VideoShape;
    const task = { vae: WAN_VAE, shape, interpolator: null, networks: {}, f16: false, bindingBytes: BINDING };
    return decodeChoice(task, budgetBytes);
  };
  const decoder = (width: number, height: number, budgetBytes: number) => {
    const choice = planned(width, height, budgetBytes);
    if ('leastBytes' in choice) throw new Error(`needs ${choice.leastBytes}`);
    return choice;
  };

  it.each(SIZES)('%i × %i takes at most 6 GB, and every buffer fits', (width, height) => {
    const { historyType, tile } = decoder(width, height, 6e9);
    expect(historyType).toBe(width * height > 500_000 ? 'f16' : 'f32');
    const [latentHeight, latentWidth] = [height / 8, width / 8];
    const { weights, peak } = decoderBytes(WAN_VAE, latentHeight, latentWidth, tile, 31, historyType);
    expect(weights + peak).toBeLessThanOrEqual(6e9);
    const buffers = decoderBuffers(WAN_VAE, latentHeight, latentWidth, tile, 31, historyType);
    for (const { name, bytes } of buffers) expect(bytes, name).toBeLessThanOrEqual(BINDING);
  });

  it.each(SIZES)('%i × %i is exact where memory suffices', (width, height) => {
    expect(decoder(width, height, Infinity).historyType).toBe('f32');
  });

  it('says what would be needed', () => {
    const least = planned(1280, 720, 3e9) as { leastBytes: number };
    expect(least.leastBytes).toBeGreaterThan(5e9);
    expect(least.leastBytes).toBeLessThan(6e9);
    expect(decoder(1280, 720, least.leastBytes).historyType).toBe('f16');
    expect(planned(1280, 720, least.leastBytes - 1)).toEqual(least);
  });
});

describe('tiles', () => {
  /** The largest whose buffers fit. */
  const largestTile = (height: number, width: number, limit: number) =>
    [null, ...Array.from({ length: 159 }, (_, i) => Math.ceil(160 / (i + 2)))].find(
      (tile) => decoderBytes(WAN_VAE, height, width, tile, 2).largest <= limit,
    );

  it.each([
    [90, 160, BINDING, 54],
    [90, 160, 2 * BINDING, 80],
    [90, 160, 32 * BINDING, null],
  ])('of %i × %i latents in %i bytes', (height, width, limit, tile) => {
    expect(largestTile(height, width, limit)).toBe(tile);
  });
});

describe('decoderBuffers', () => {
  it.each(
    TYPES.flatMap((type) => [null, 54, 27].flatMap((tile) => [1, 2].map((frames) => [type, tile, frames] as const))),
  )('add up to what decoderBytes tells: %s, tiles %s, %i latent frames', (historyType, tile, frames) => {
    const buffers = decoderBuffers(WAN_VAE, 90, 160, tile, frames, historyType);
    const expected = decoderBytes(WAN_VAE, 90, 160, tile, frames, historyType);
    const held = (moment: number) =>
      buffers.reduce((sum, { kind, count, bytes, lifetime: [made, freed] }) => {
        return sum + (kind !== 'weights' && made <= moment && moment < freed ? count * bytes : 0);
      }, 0);
    expect(held(0)).toBe(expected.histories);
    expect(Math.max(...buffers.map(({ lifetime }) => held(lifetime[0])))).toBe(expected.peak);
    for (const { kind, lifetime } of buffers) expect(lifetime[1] === Infinity).toBe(kind !== 'working');
  });

  it('keep half floats of what follows a norm, and nothing else', () => {
    const of = (type: 'f32' | 'f16') =>
      decoderBuffers(WAN_VAE, 8, 8, null, 2, type).filter(({ kind }) => kind === 'history');
    const exact = of('f32');
    for (const [i, { name, bytes }] of of('f16').entries()) {
      expect([name, exact[i]!.bytes / bytes]).toEqual([name, /conv1|time_conv/.test(name) ? 1 : 2]);
    }
  });
});
