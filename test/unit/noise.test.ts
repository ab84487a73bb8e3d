import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { Mt19937, torchRandn } from '../../src/diffusion/noise';
import { deviation, hasFixtures, openF32, readCase } from '../harness/sampling-fixtures';

/** The fixture's bound between builds of PyTorch (log, sin and cos differ in the last bits of f32). */
const MAX_ABS = 2e-6;

/** Half of the last decimal of the values written out below, torch 2.13's on the CPU. */
const PRINTED = 5.01e-9;

interface NoiseCase {
  engine: { seed: number; mt19937_u32: number[]; u32_at_index_623_to_626: number[] }[];
  draws: {
    key: string | null;
    seed: number;
    shape: number[];
    first: number[];
    last: number[];
    sum_f64: number;
    sum_squares_f64: number;
    sha256_f32le: string;
  }[];
}

function words(seed: number | bigint, count: number): number[] {
  const engine = new Mt19937(seed);
  return Array.from({ length: count }, () => engine.next());
}

function bits(values: Float32Array<ArrayBuffer>): string {
  return createHash('sha256').update(new Uint8Array(values.buffer)).digest('hex');
}

describe('MT19937', () => {
  it('gives the published words', () => {
    expect(words(42, 4)).toEqual([1608637542, 3421126067, 4083286876, 787846414]);
    expect(words(5489, 1)).toEqual([3499211612]);
    // The 10,000th word for seed 5489 is the check that the C++ standard prescribes for mt19937.
    expect(words(5489, 10_000).at(-1)).toBe(4123659995);
  });

  it('takes the low 32 bits of a seed', () => {
    expect(words(2 ** 32 + 42, 3)).toEqual(words(42, 3));
    expect(words((1n << 63n) + 42n, 3)).toEqual(words(42n, 3));
    expect(words(2n ** 64n - 1n, 3)).toEqual(words(2 ** 32 - 1, 3));
  });

  it.each([-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, -1n, 1n << 64n])('refuses the seed %s', (seed) => {
    expect(() => new Mt19937(seed)).toThrow(/whole number from 0 to 2\^64 - 1.*got/);
  });

  it.skipIf(!hasFixtures)('gives the words of the fixture, across the refill of the state too', () => {
    const { engine } = readCase<NoiseCase>('fixtures/noise');
    expect(engine).toHaveLength(4);
    for (const { seed, mt19937_u32, u32_at_index_623_to_626 } of engine) {
      const all = words(BigInt(seed), 627);
      expect(all.slice(0, mt19937_u32.length)).toEqual(mt19937_u32);
      expect(all.slice(623)).toEqual(u32_at_index_623_to_626);
    }
  });
});

describe('torchRandn', () => {
  it('makes a whole block', () => {
    const expected = [
      1.92691529, 1.48728406, 0.9007172, -2.10552096, 0.67841846, -1.23454487, -0.04306748, -1.60466695, -0.75213528,
      1.64872301, -0.39247864, -1.40360713, -0.72788131, -0.55943018, -0.76883888, 0.76244539,
    ];
    expect(deviation(torchRandn(42, 16), expected).maxAbs).toBeLessThan(PRINTED);
    const longer = [
      -1.12583983, -1.1523602, -0.25057858, -0.43387881, 0.84871036, 0.69200915, -0.31601277, -2.11521935,
    ];
    expect(deviation(torchRandn(0, 32).subarray(0, 8), longer).maxAbs).toBeLessThan(PRINTED);
  });

  it('draws the last sixteen values afresh when the length is no multiple of sixteen', () => {
    const values = torchRandn(42, 20);
    expect([...values.subarray(0, 4)]).toEqual([...torchRandn(42, 16).subarray(0, 4)]);
    const middle = [-0.75813115, 1.07831764, 0.80080056, 1.68062055];
    const end = [-0.30972677, -0.3957105, 0.80340934, -0.62159538];
    expect(deviation(values.subarray(4, 8), middle).maxAbs).toBeLessThan(PRINTED);
    expect(deviation(values.subarray(16), end).maxAbs).toBeLessThan(PRINTED);
  });

  it('takes another path below sixteen values', () => {
    const first = [0.33669037, 0.12880941, 0.23446237, 0.23033303];
    expect(deviation(torchRandn(42, 4), first).maxAbs).toBeLessThan(PRINTED);
    expect([...torchRandn(42, 3)]).toEqual([...torchRandn(42, 4).subarray(0, 3)]);
    expect(torchRandn(42, 0)).toHaveLength(0);
  });

  it('gives the reference values inside and at the end of a latent', () => {
    const wan480p = torchRandn(42, 16 * 21 * 60 * 104);
    const inside = [0.88006258, -1.08272755, 0.21377692, 0.93097001];
    expect(deviation(wan480p.subarray(100_000, 100_004), inside).maxAbs).toBeLessThan(PRINTED);
    const end = [1.16292453, -0.80011392, -0.66693288, 1.65382767];
    expect(deviation(wan480p.subarray(-4), end).maxAbs).toBeLessThan(PRINTED);
    expect(wan480p.reduce((sum, value) => sum + value, 0)).toBeCloseTo(-579.8837, 4);
    expect(bits(wan480p)).toBe('d58dda95871619b9a739a5fd138a6a45ecacdfc6329feb27179411e336be985b');
    const short = [-0.6491459, -0.11510351, -0.03346733, -0.46613243];
    expect(deviation(torchRandn(42, 16 * 5 * 60 * 104).subarray(-4), short).maxAbs).toBeLessThan(PRINTED);
  });

  it('is finite and spread as a normal over many values', () => {
    const count = 2_000_000;
    const values = torchRandn(2026, count);
    let [sum, squares, inside] = [0, 0, 0];
    for (const value of values) {
      sum += value;
      squares += value * value;
      if (Math.abs(value) < 1) inside++;
    }
    // Five standard errors: 1/sqrt(n), sqrt(2/n), sqrt(p(1-p)/n).
    expect(Math.abs(sum / count)).toBeLessThan(5 / Math.sqrt(count));
    expect(Math.abs(squares / count - 1)).toBeLessThan(5 * Math.sqrt(2 / count));
    expect(Math.abs(inside / count - 0.6826895)).toBeLessThan((5 * 0.4654) / Math.sqrt(count));
  });

  it.each([-1, 1.5, Number.NaN])('refuses to draw %s values', (count) => {
    expect(() => torchRandn(1, count)).toThrow(/number of noise values/);
  });

  it.skipIf(!hasFixtures)('equals every draw of the fixture, to the last bit', () => {
    const { draws } = readCase<NoiseCase>('fixtures/noise');
    const stored = openF32('fixtures/noise/expected.safetensors');
    expect(draws).toHaveLength(52);
    for (const draw of draws) {
      const name = `seed ${draw.seed} shape ${draw.shape}`;
      const count = draw.shape.reduce((product, size) => product * size, 1);
      const values = torchRandn(BigInt(draw.seed), count);
      const end = count - draw.last.length;
      expect(deviation(values.subarray(0, draw.first.length), draw.first).maxAbs, name).toBeLessThan(MAX_ABS);
      expect(deviation(values.subarray(end), draw.last).maxAbs, name).toBeLessThan(MAX_ABS);
      if (draw.key !== null) expect(deviation(values, stored(draw.key)).maxAbs, name).toBeLessThan(MAX_ABS);
      expect(
        values.reduce((sum, value) => sum + value, 0),
        name,
      ).toBeCloseTo(draw.sum_f64, 4);
      expect(
        values.reduce((sum, value) => sum + value * value, 0),
        name,
      ).toBeCloseTo(draw.sum_squares_f64, 4);
      // The hash holds for the reference machine (AVX2), whose arithmetic this is. Below sixteen values it rests on
      // Math.log1p.
      if (count >= 16) expect(bits(values), name).toBe(draw.sha256_f32le);
    }
  });
});
