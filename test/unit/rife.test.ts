import { describe, expect, it } from 'vitest';
import { rifeMac } from '../../src/interpolate/rife-sizes';
import { RIFE_46, rifeConfig, rifeShapes } from '../../src/part';

describe('RIFE 4.6', () => {
  it('has 88 tensors of 5,302,416 values', () => {
    const shapes = rifeShapes(RIFE_46);
    expect(shapes.size).toBe(88);
    const values = [...shapes.values()].map((shape) => shape.reduce((product, length) => product * length, 1));
    expect(values.reduce((sum, count) => sum + count, 0)).toBe(5_302_416);
  });

  it('takes 39.5 thousand million multiply-adds a frame of 1280 × 720, padded', () => {
    expect(rifeMac(RIFE_46, 1280, 720) / 1e9).toBeCloseTo(39.5, 1);
    expect(rifeMac(RIFE_46, 1280, 720)).toBe(rifeMac(RIFE_46, 1280, 736));
    expect(rifeMac(RIFE_46, 33, 1)).toBe(2 * rifeMac(RIFE_46, 32, 32));
  });

  it.each(['encode.cnn0.weight', 'block4.conv0.0.0.weight'])('is told from newer versions by %s', (name) => {
    const entries = new Map([[name, { dtype: 'F16' as const, shape: [1] }]]);
    expect(() => rifeConfig(entries)).toThrowError(expect.objectContaining({ code: 'bad-checkpoint' }));
    expect(rifeConfig(new Map())).toBe(RIFE_46);
  });
});
