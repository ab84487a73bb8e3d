import { describe, expect, it } from 'vitest';
import { cellsInView, pictureAt, project, sag, slitAngles } from '../../src/app/drum';
import { outlineOf, outlineText } from '../../src/app/outline';
import type { Sizes } from '../../src/manifest';

const row = { '16:9': [112, 64], '9:16': [64, 112], '1:1': [64, 64] } as Sizes['480p'];
const sizes: Sizes = { '480p': row, '580p': row, '720p': { ...row, '16:9': [128, 80] } };

describe('outlineOf', () => {
  it('takes the endpoint’s defaults for what is left out', () => {
    expect(outlineOf({ prompt: '' }, sizes)).toEqual({
      width: 128,
      height: 80,
      frames: 81,
      framesPerSecond: 16,
      steps: 27,
    });
  });

  it('takes the model’s pixels for the labels', () => {
    const outline = outlineOf({ prompt: '', resolution: '480p', aspect_ratio: '9:16', num_frames: 17 }, sizes)!;
    expect([outline.width, outline.height]).toEqual([64, 112]);
    expect(outlineText(outline)).toBe('64 × 112 pixels, 17 frames, 1.1 s');
  });

  it.each([
    { num_frames: Number.NaN },
    { num_frames: 0 },
    { num_inference_steps: 2.5 },
    { num_inference_steps: 1e9 },
    { frames_per_second: -1 },
    { resolution: '4k' as '480p' },
  ])('is undefined for %j', (part) => {
    expect(outlineOf({ prompt: '', ...part }, sizes)).toBeUndefined();
  });
});

describe('the drum', () => {
  it('projects its view onto the width, evenly to both sides', () => {
    const [first, last] = [slitAngles(1000)[0]!, slitAngles(1000)[999]!];
    expect(project(0, 600)).toBe(300);
    expect(project(first, 600)).toBeCloseTo(0, 0);
    expect(project(last, 600)).toBeCloseTo(600, 0);
    expect(project(0.4, 600) + project(-0.4, 600)).toBeCloseTo(600, 9);
  });

  it('hangs down most in the middle and not at the ends', () => {
    expect(sag(0)).toBe(1);
    expect(sag(slitAngles(1000)[0]!)).toBeCloseTo(0, 2);
    expect(sag(0.3)).toBe(sag(-0.3));
  });

  it.each([
    [68, 760],
    [68, 330],
    [121, 328],
    [39, 760],
    [400, 330],
  ])('shows pictures %d wide in the middle of %d, without gaps from edge to edge', (cellWidth, width) => {
    const cells = cellsInView(cellWidth, width);
    const middle = cells.find(({ offset }) => offset === 0)!;
    expect(cells[(cells.length - 1) / 2]).toBe(middle);
    if (cellWidth < width) expect(project(middle.to, width) - project(middle.from, width)).toBeCloseTo(cellWidth, 6);
    for (const [index, { offset, from }] of cells.entries()) {
      if (index === 0) continue;
      expect(offset).toBe(cells[index - 1]!.offset + 1);
      expect(from).toBeCloseTo(cells[index - 1]!.to, 9);
    }
    const view = 2 * slitAngles(2)[1]!; // Half of the angle in view.
    expect(cells.at(-1)!.to).toBeGreaterThanOrEqual(view - 1e-9);
    expect(cells[0]!.from).toBeLessThanOrEqual(-view + 1e-9);
  });

  it('spreads slits evenly by angle', () => {
    const angles = slitAngles(8);
    expect(angles).toHaveLength(8);
    const pitches = angles.slice(1).map((angle, index) => angle - angles[index]!);
    for (const pitch of pitches) expect(pitch).toBeCloseTo(pitches[0]!, 9);
    expect(angles[0]).toBeCloseTo(-angles[7]!, 9);
  });

  it('repeats a strip without ends', () => {
    expect([-6, -5, -1, 0, 4, 5, 11].map((offset) => pictureAt(0, offset, 5))).toEqual([4, 0, 4, 0, 4, 0, 1]);
    expect(pictureAt(4, 1, 5)).toBe(0);
    expect(pictureAt(7, 0, 1)).toBe(0);
  });
});
