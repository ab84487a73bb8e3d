import { describe, expect, it } from 'vitest';
import type { VaeConfig } from '../../src/config';
import { ZoetropeError } from '../../src/errors';
import { chooseDecoder, chooseTile, decoderBuffers, decoderBytes } from '../../src/vae/memory';
import { seededUniform } from '../harness/near';

/** The Wan 2.1 VAE. */
const WAN: VaeConfig = {
  baseDim: 96,
  zDim: 16,
  dimMult: [1, 2, 4, 4],
  numResBlocks: 2,
  temporalUpsample: [true, true, false],
  latentsMean: [],
  latentsStd: [],
};
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
  it.each(SIZES)('%i × %i takes at most 6.5 GB of half-float histories', (width, height) => {
    const { historyType, tile, bytes } = chooseDecoder(WAN, height / 8, width / 8, 31, BINDING, 6.5e9);
    expect(bytes.weights + bytes.peak).toBeLessThanOrEqual(6.5e9);
    expect(historyType).toBe(width * height > 600_000 ? 'f16' : 'f32');
    const buffers = decoderBuffers(WAN, height / 8, width / 8, tile, 31, historyType);
    for (const { name, bytes: size } of buffers) expect(size, name).toBeLessThanOrEqual(BINDING);
  });

  it.each(SIZES)('%i × %i is exact where memory suffices', (width, height) => {
    const { historyType, tile } = chooseDecoder(WAN, height / 8, width / 8, 31, BINDING, Infinity);
    expect([historyType, tile]).toEqual(['f32', chooseTile(WAN, height / 8, width / 8, BINDING)]);
  });
});

describe('chooseDecoder', () => {
  it('respects limits and budget, or refuses', () => {
    const uniform = seededUniform(1);
    const kinds = new Set<string>();
    for (let i = 0; i < 300; i++) {
      const [width, height] = SIZES[Math.floor(uniform() * SIZES.length)]!;
      const limit = BINDING * 2 ** (5 * uniform());
      const budget = 1e9 * 2 ** (5 * uniform());
      try {
        const { tile, historyType, bytes } = chooseDecoder(WAN, height / 8, width / 8, 21, limit, budget);
        kinds.add(`${historyType} ${tile === null ? 'whole' : 'tiled'}`);
        expect(bytes).toEqual(decoderBytes(WAN, height / 8, width / 8, tile, 21, historyType));
        expect(bytes.largest).toBeLessThanOrEqual(limit);
        expect(bytes.weights + bytes.peak).toBeLessThanOrEqual(budget);
      } catch (error) {
        if (!(error instanceof ZoetropeError)) throw error;
        kinds.add('refused');
        const least = decoderBytes(
          WAN,
          height / 8,
          width / 8,
          chooseTile(WAN, height / 8, width / 8, limit, 'f16'),
          21,
          'f16',
        );
        expect(least.weights + least.peak).toBeGreaterThan(budget);
      }
    }
    expect([...kinds].sort()).toEqual(['f16 tiled', 'f16 whole', 'f32 tiled', 'f32 whole', 'refused']);
  });

  it('takes smaller tiles before half floats', () => {
    const whole = decoderBytes(WAN, 60, 104, null, 21);
    const choice = chooseDecoder(WAN, 60, 104, 21, 4096 * MIB, whole.weights + whole.peak - 1);
    expect([choice.tile, choice.historyType]).toEqual([52, 'f32']);
  });

  it('says what would be needed', () => {
    expect(() => chooseDecoder(WAN, 90, 160, 21, BINDING, 3e9)).toThrow('for 160 × 90 latents, it may take 3000000000');
    expect(() => chooseDecoder(WAN, 90, 160, 21, 8 * MIB, Infinity)).toThrow('this device allows 8388608');
  });
});

describe('decoderBuffers', () => {
  it.each(
    TYPES.flatMap((type) => [null, 54, 27].flatMap((tile) => [1, 2].map((frames) => [type, tile, frames] as const))),
  )('add up to what decoderBytes tells: %s, tiles %s, %i latent frames', (historyType, tile, frames) => {
    const buffers = decoderBuffers(WAN, 90, 160, tile, frames, historyType);
    const expected = decoderBytes(WAN, 90, 160, tile, frames, historyType);
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
      decoderBuffers(WAN, 8, 8, null, 2, type).filter(({ kind }) => kind === 'history');
    const exact = of('f32');
    for (const [i, { name, bytes }] of of('f16').entries()) {
      expect([name, exact[i]!.bytes / bytes]).toEqual([name, /conv1|time_conv/.test(name) ? 1 : 2]);
    }
  });
});
