import { describe, expect, it } from 'vitest';
import { ropeSplit, ropeTable, sinusoid } from '../../src/diffusion/rope';

describe('ropeSplit', () => {
  it('gives 22, 21 and 21 pairs of a head of 128', () => {
    expect(ropeSplit(128)).toEqual({ frame: 22, height: 21, width: 21 });
  });

  it('gives frames what the other axes leave of any even head', () => {
    for (let headDim = 6; headDim <= 256; headDim += 2) {
      const { frame, height, width } = ropeSplit(headDim);
      expect(2 * (frame + height + width)).toBe(headDim);
      expect(height).toBe(width);
      expect(frame - height).toBeGreaterThanOrEqual(0);
      expect(frame - height).toBeLessThan(3);
    }
  });

  it.each([0, 4, 7, 12.5, Number.NaN])('refuses a head of %s', (headDim) => {
    expect(() => ropeSplit(headDim)).toThrow(/even head size of at least 6/);
  });
});

describe('ropeTable', () => {
  /** (cos, sin) of pair `i` at `position` of the axis that starts `offset` pairs into the table. */
  const pairAt = (table: Float32Array, offset: number, pairs: number, position: number, i: number) => {
    const at = 2 * (offset + position * pairs + i);
    return [table[at], table[at + 1]];
  };

  it('holds three tables one after the other', () => {
    // 720p, 81 frames: 21 x 22 + 45 x 21 + 80 x 21 pairs.
    expect(ropeTable(21, 45, 80)).toHaveLength(2 * 3087);
  });

  it('turns by position times frequency, frequencies falling from 1 to just above 1e-4', () => {
    const [frames, height, width] = [3, 5, 7];
    const table = ropeTable(frames, height, width);
    const axes = [
      { offset: 0, pairs: 22, positions: frames, last: 1.5199e-4 },
      { offset: frames * 22, pairs: 21, positions: height, last: 1.5505e-4 },
      { offset: frames * 22 + height * 21, pairs: 21, positions: width, last: 1.5505e-4 },
    ];
    for (const { offset, pairs, positions, last } of axes) {
      for (let position = 0; position < positions; position++) {
        for (let i = 0; i < pairs; i++) {
          const angle = position * 10000 ** ((-2 * i) / (2 * pairs));
          const [cos, sin] = pairAt(table, offset, pairs, position, i);
          expect(cos).toBeCloseTo(Math.cos(angle), 6);
          expect(sin).toBeCloseTo(Math.sin(angle), 6);
        }
        const [, lastSin] = pairAt(table, offset, pairs, position, pairs - 1);
        expect(lastSin! / last).toBeCloseTo(position, 3);
      }
    }
  });

  it('makes the score of two tokens depend on their distance alone', () => {
    const { frame } = ropeSplit(128);
    const table = ropeTable(40, 1, 1);
    const score = (a: number, b: number) => {
      let sum = 0;
      for (let i = 0; i < frame; i++) {
        const [ca, sa] = pairAt(table, 0, frame, a, i);
        const [cb, sb] = pairAt(table, 0, frame, b, i);
        sum += ca! * cb! + sa! * sb!;
      }
      return sum;
    };
    expect(score(33, 38)).toBeCloseTo(score(2, 7), 5);
    expect(score(2, 7)).not.toBeCloseTo(score(2, 8), 2);
  });

  it.each([
    [0, 1, 1],
    [1, 1.5, 1],
    [1, 1, 1025],
    [Number.NaN, 1, 1],
  ])('refuses a grid of %s x %s x %s', (frames, height, width) => {
    expect(() => ropeTable(frames, height, width)).toThrow(/whole number from 1 to 1024/);
  });
});

describe('sinusoid', () => {
  it.each([
    [999, [0.99965, 0.963782, -0.398992, 0.994243], [-0.026461, -0.26669, -0.916955, 0.107147]],
    [937, [0.692831, 0.153433, 0.638948, 0.994935], [0.7211, -0.988159, 0.76925, 0.100521]],
  ])('has the cosines of timestep %i before its sines', (timestep, cosines, sines) => {
    const values = sinusoid(timestep);
    expect(values).toHaveLength(256);
    for (const [k, i] of [0, 1, 2, 127].entries()) {
      expect(values[i]).toBeCloseTo(cosines[k]!, 6);
      expect(values[128 + i]).toBeCloseTo(sines[k]!, 6);
    }
  });

  it('takes timesteps between whole numbers, and other lengths', () => {
    // Frequencies 1 and 10000^(-1/2).
    const expected = [Math.cos(937.5), Math.cos(9.375), Math.sin(937.5), Math.sin(9.375)];
    expect([...sinusoid(937.5, 4)]).toEqual(expected.map(Math.fround));
    expect([...sinusoid(0, 6)]).toEqual([1, 1, 1, 0, 0, 0]);
  });

  it.each([0, 255, Number.NaN])('refuses a length of %s', (freqDim) => {
    expect(() => sinusoid(1, freqDim)).toThrow(/freq_dim/);
  });
});
