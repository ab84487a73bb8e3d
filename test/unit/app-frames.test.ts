import { describe, expect, it } from 'vitest';
import { type Clip, frameAt, generatedFrame, positionText, stepFrom, timeOf } from '../../src/app/frames';

const plain: Clip = { count: 17, framesPerSecond: 16, between: 0 };
const smooth: Clip = { count: 81, framesPerSecond: 80, between: 4 };
const CLIPS: [string, Clip][] = [
  ['a plain clip', plain],
  ['an interpolated clip', smooth],
  ['the longest and fastest', { count: 601, framesPerSecond: 300, between: 4 }],
  ['an odd rate', { count: 97, framesPerSecond: 69, between: 2 }],
];

describe.each(CLIPS)('%s', (_, clip) => {
  it('finds every frame at its time, rounded to microseconds, and at the time asked for', () => {
    for (let frame = 0; frame < clip.count; frame++) {
      const shown = Math.round((frame * 1e6) / clip.framesPerSecond) / 1e6;
      expect(frameAt(shown, clip)).toBe(frame);
      expect(frameAt(timeOf(frame, clip), clip)).toBe(frame);
    }
  });

  it('has no frame beyond the ends', () => {
    expect(frameAt(-1, clip)).toBe(0);
    expect(frameAt(1e3, clip)).toBe(clip.count - 1);
    expect(stepFrom(0, -1, false, clip)).toBe(0);
    expect(stepFrom(clip.count - 1, 1, false, clip)).toBe(clip.count - 1);
    expect(stepFrom(clip.count - 1, 1, true, clip)).toBe(clip.count - 1);
  });
});

describe('generated frames', () => {
  it('are every fifth with four between, and all without', () => {
    expect([0, 1, 4, 5, 9, 80].map((frame) => generatedFrame(frame, smooth))).toEqual([0, 0, 0, 5, 5, 80]);
    expect(generatedFrame(3, plain)).toBe(3);
  });

  it('are stepped through alone where that is wanted', () => {
    expect(stepFrom(7, 1, true, smooth)).toBe(10);
    expect(stepFrom(7, -1, true, smooth)).toBe(0);
    expect(stepFrom(7, 1, false, smooth)).toBe(8);
  });

  it('are told from added ones', () => {
    expect(positionText(5, smooth)).toBe('Frame 6 of 81, generated');
    expect(positionText(6, smooth)).toBe('Frame 7 of 81, added');
    expect(positionText(6, plain)).toBe('Frame 7 of 17');
  });
});
