import { describe, expect, it } from 'vitest';
import { needsF32, packZeroPoints4, quantizeRows } from '../../src/checkpoint/quantize';
import { seededFloats, seededUniform } from '../harness/near';
import { fill, hasFixtures, openF32, readCase } from '../harness/sampling-fixtures';
import { dequantize } from '../reference/dequantize';
import { packBlock4, searchBlock4 } from '../reference/quantize4';

/** Quantises, packs and reads back with the reference. */
function roundTrip(values: Float32Array, rows: number, bits: 4 | 8) {
  const { packed, scales, zeroPoints } = quantizeRows(values, bits);
  const zeros = bits === 4 ? packZeroPoints4(zeroPoints, rows) : undefined;
  const result = dequantize(rows, values.length / rows, bits, packed, Float64Array.from(scales), zeros);
  return { result, packed, scales, zeros };
}

/** Relative RMS error, and the largest error in units of the block's scale. */
function errors(values: Float32Array, result: Float64Array, scales: Float32Array) {
  let error = 0;
  let power = 0;
  let steps = 0;
  let maxAbs = 0;
  for (let i = 0; i < values.length; i++) {
    const difference = Math.abs(values[i]! - result[i]!);
    error += difference ** 2;
    power += values[i]! ** 2;
    maxAbs = Math.max(maxAbs, difference);
    if (difference > 0) steps = Math.max(steps, difference / Math.abs(scales[i >> 5]!));
  }
  return { relative: Math.sqrt(error / power), steps, maxAbs };
}

/** Near-normal values: sums of four uniform ones. */
function gaussian(seed: number, count: number, spread: number): Float32Array {
  const uniform = seededUniform(seed);
  return Float32Array.from({ length: count }, () => (uniform() + uniform() + uniform() + uniform() - 2) * spread);
}

const isF16 = (scale: number) =>
  scale === 0 || Number.isInteger(scale * 2 ** (10 - Math.floor(Math.log2(Math.abs(scale)))));

/** Relative RMS error of GGUF's Q4_0: the value of largest magnitude at -8, scale in f64. */
function q40Error(values: Float32Array): number {
  let error = 0;
  let power = 0;
  for (let begin = 0; begin < values.length; begin += 32) {
    const block = [...values.subarray(begin, begin + 32)];
    const scale = block.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0) / -8;
    for (const value of block) {
      error += (value - Math.min(7, Math.round(value / scale)) * scale) ** 2;
      power += value ** 2;
    }
  }
  return Math.sqrt(error / power);
}

describe('8 bits', () => {
  it.each([
    [1, 32],
    [3, 96],
    [7, 160],
  ])('%i x %i: every value within half a step, scale = absmax / 127 in f16', (rows, columns) => {
    const values = gaussian(rows, rows * columns, 0.05);
    const { result, scales, packed } = roundTrip(values, rows, 8);
    // Half a step, and a little for the value at the end when the scale was rounded down: 127 * 2^-11.
    expect(errors(values, result, scales).steps).toBeLessThan(0.5 + 127 * 2 ** -11);
    expect(errors(values, result, scales).relative).toBeLessThan(0.0056);
    expect([...scales].every(isF16)).toBe(true);
    expect(packed.every((q) => q >= 1)).toBe(true);
    for (let block = 0; block < scales.length; block++) {
      const largest = values.subarray(32 * block, 32 * block + 32).reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      expect(Math.abs(scales[block]! / (largest / 127) - 1)).toBeLessThanOrEqual(2 ** -11);
    }
  });

  it('keeps blocks that are multiples of an f16 scale exactly, as GGUF Q8_0 has them', () => {
    const uniform = seededUniform(5);
    const values = Float32Array.from({ length: 64 }, () => 0.0078125 * Math.floor(uniform() * 255 - 127));
    values[0] = 127 * 0.0078125;
    values[40] = -127 * 0.0078125;
    expect([...roundTrip(values, 2, 8).result]).toEqual([...values]);
  });
});

describe('4 bits', () => {
  it.each([
    [1, 32],
    [3, 96],
    [5, 64],
    [64, 256],
  ])('%i x %i: loses less than Q4_0 does', (rows, columns) => {
    const values = gaussian(rows, rows * columns, 0.05);
    const { result, scales, zeros } = roundTrip(values, rows, 4);
    expect(errors(values, result, scales).relative).toBeLessThan(q40Error(values) * (rows === 64 ? 0.93 : 1));
    expect(zeros?.length).toBe(rows * Math.ceil(columns / 64));
    expect([...scales].every(isF16)).toBe(true);
  });

  it('uses the zero point where the values lie on one side', () => {
    const values = seededFloats(9, 32 * 4, 0.05).map((value) => value + 0.1);
    const oneSided = roundTrip(values, 4, 4);
    expect(oneSided.zeros).toBeDefined();
    // Symmetric, the scale would be 0.15 / 7 or more, and the error of a uniform rounding 0.29 of that.
    expect(errors(values, oneSided.result, oneSided.scales).maxAbs).toBeLessThan(0.15 / 15);
  });

  it('is symmetric, without zero points, when nothing is lost that way, as GGUF Q4_0 has it', () => {
    const uniform = seededUniform(6);
    const values = Float32Array.from({ length: 128 }, () => 0.03125 * Math.floor(uniform() * 16 - 8));
    for (let block = 0; block < 4; block++) values[32 * block] = -8 * 0.03125;
    const { result, zeros } = roundTrip(values, 2, 4);
    expect([...result]).toEqual([...values]);
    expect(zeros).toBeUndefined();
  });
});

describe.each([4, 8] as const)('%i bits', (bits) => {
  it('keeps a block of zeros, with scale 0', () => {
    const values = gaussian(1, 96, 0.05);
    values.fill(0, 32, 64);
    const { result, scales } = roundTrip(values, 1, bits);
    expect([...result.subarray(32, 64)]).toEqual(new Array(32).fill(0));
    expect(scales[1]).toBe(0);
    expect(needsF32(scales)).toBe(false);
  });

  it.each([2 ** -20, 2 ** 40])(
    'asks for F32 scales beyond normal f16 (values times %d), and loses no more for it',
    (factor) => {
      const values = gaussian(2, 32, 0.05);
      const { result, scales } = roundTrip(values, 1, bits);
      expect(needsF32(scales)).toBe(false);
      const scaled = values.map((value) => value * factor);
      const far = roundTrip(scaled, 1, bits);
      expect(needsF32(far.scales)).toBe(true);
      // The rounding of the scale differs by 2^-11 between the two.
      expect(errors(scaled, far.result, far.scales).relative).toBeLessThan(
        1.1 * errors(values, result, scales).relative,
      );
    },
  );

  it('survives a single value, equal values, and the smallest f32', () => {
    const single = new Float32Array(32);
    single[7] = -0.3;
    const equal = new Float32Array(32).fill(0.7);
    const tiny = new Float32Array(32).fill(2 ** -149);
    for (const values of [single, equal]) {
      const { result } = roundTrip(values, 1, bits);
      for (let i = 0; i < 32; i++) expect(Math.abs(result[i]! - values[i]!)).toBeLessThan(0.7 * 2 ** -10);
    }
    expect([...roundTrip(tiny, 1, bits).result].every((value) => Math.abs(value) < 2 ** -140)).toBe(true);
  });

  it('gives each row the same bytes whatever rows it comes with', () => {
    const values = gaussian(4, 5 * 96, 0.05);
    const whole = quantizeRows(values, bits);
    const row = quantizeRows(values.slice(3 * 96, 4 * 96), bits);
    const rowBytes = (96 * bits) / 8;
    expect(row.packed).toEqual(whole.packed.slice(3 * rowBytes, 4 * rowBytes));
    expect(row.scales).toEqual(whole.scales.slice(9, 12));
  });
});

interface QuantCase {
  inputs: { name: string; fill?: { name: string; scale: number; offset: number }; stored?: string }[];
  results: { matrix: string; scheme: string; rel_rms: number; max_abs: number }[];
}

describe.skipIf(!hasFixtures)('the fixture "quant"', () => {
  const { inputs, results } = hasFixtures ? readCase<QuantCase>('fixtures/quant') : { inputs: [], results: [] };
  const matrices = inputs.filter(({ name }) => name !== 'v');

  it.each(matrices)('$name is as good as sym8 and better than sym4_full (Q4_0)', ({ name, fill: rule, stored }) => {
    const values = rule
      ? fill(rule.name, rule.scale, 64 * 256, rule.offset)
      : openF32('fixtures/quant/expected.safetensors')(stored!);
    for (const [bits, scheme] of [
      [8, 'sym8'],
      [4, 'sym4_full'],
    ] as const) {
      const { result, scales } = roundTrip(values, 64, bits);
      const { relative, maxAbs } = errors(values, result, scales);
      const suffix = needsF32(scales) ? 'f32' : 'f16';
      const given = results.find((entry) => entry.matrix === name && entry.scheme === `${scheme}_${suffix}`)!;
      // The case's own limits: 1.02 and 1.05 times what is given.
      expect(relative).toBeLessThan(given.rel_rms * (bits === 4 ? 0.95 : 1.02));
      expect(maxAbs).toBeLessThan(given.max_abs * 1.05);
    }
  });
});

describe('the four 4-bit forms, searched side by side', () => {
  const uniform = seededUniform(21);
  const finite = () => {
    const bits = new Uint32Array(1);
    const [float] = [new Float32Array(bits.buffer)];
    do bits[0] = Math.floor(uniform() * 2 ** 32);
    while (!Number.isFinite(float[0]));
    return float[0]!;
  };
  it.each<[string, () => number]>([
    ['normal values', () => (uniform() + uniform() + uniform() + uniform() - 2) * 0.03],
    ['positive values', () => uniform()],
    ['negative values', () => -uniform()],
    ['values on the steps', () => Math.floor(uniform() * 16 - 8) / 32],
    ['values half way between the steps', () => Math.floor(uniform() * 31 - 15) / 64],
    ['many zeros', () => (uniform() < 0.95 ? 0 : uniform() - 0.5)],
    ['two values', () => (uniform() < 0.5 ? -1 : 1)],
    ['subnormal values', () => (uniform() - 0.5) * 1e-43],
    ['the largest values', () => (uniform() - 0.5) * 6.8e38],
    ['values of all magnitudes', () => (uniform() - 0.5) * 10 ** (uniform() * 70 - 35)],
    ['any bits', finite],
  ])('choose as one by one: %s', (_, value) => {
    const values = Float32Array.from({ length: 32 * 512 }, value);
    const { packed, scales, zeroPoints } = quantizeRows(values, 4);
    for (let at = 0; at < scales.length; at++) {
      const block = values.subarray(32 * at, 32 * at + 32);
      const { scale, zero } = searchBlock4(block);
      expect(zeroPoints[at]! - zero).toBe(0);
      // Stored rounded to f16, or where that would be subnormal or infinite to f32.
      expect(Math.abs(scales[at]! - scale)).toBeLessThanOrEqual(Math.max(Math.abs(scale) * 2 ** -11, 2 ** -150));
      expect([...packed.subarray(16 * at, 16 * at + 16)]).toEqual(packBlock4(block, scales[at]!, zero));
    }
  });
});
