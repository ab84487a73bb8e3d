import { describe, expect, it } from 'vitest';
import { BACKGROUNDS, type Background, COLOURS, type Colour, judge } from '../harness/judge';
import { seededUniform } from '../harness/near';

const SIZE = 32;

/** Frames of a soft disc that moves right, with noise like a codec's. */
function clip(background: Background, colour: Colour | undefined): Uint8ClampedArray[] {
  const random = seededUniform(1);
  return Array.from({ length: 5 }, (_, t) => {
    const frame = new Uint8ClampedArray(SIZE * SIZE * 4);
    for (let y = 0; y < SIZE; y++) {
      for (let x = 0; x < SIZE; x++) {
        const inside = colour ? Math.min(Math.max(6.5 - Math.hypot(x - 12 - 2 * t, y - 16), 0), 1) : 0;
        for (let c = 0; c < 3; c++) {
          const [top, bottom] = BACKGROUNDS[background];
          const behind = top[c]! + ((bottom[c]! - top[c]!) * y) / (SIZE - 1);
          const value = behind * (1 - inside) + (colour ? COLOURS[colour][c]! : 0) * inside;
          frame[(y * SIZE + x) * 4 + c] = 255 * value + 8 * (random() - 0.5);
        }
        frame[(y * SIZE + x) * 4 + 3] = 255;
      }
    }
    return frame;
  });
}

/** Pairs that hide the shape, which the demo model never saw. */
const HIDDEN = ['white white', 'green grass', 'orange sunset', 'cyan sky', 'white sky', 'yellow white', 'pink sunset'];

describe('judge', () => {
  const pairs = (Object.keys(BACKGROUNDS) as Background[])
    .flatMap((background) => (Object.keys(COLOURS) as Colour[]).map((colour) => [colour, background] as const))
    .filter((pair) => !HIDDEN.includes(pair.join(' ')));

  it.each(pairs)('sees %s on %s', (colour, background) => {
    expect(judge(clip(background, colour), SIZE, SIZE)).toEqual({ background, colour });
  });

  it('sees that there is no shape', () => {
    expect(judge(clip('night', undefined), SIZE, SIZE)).toEqual({ background: 'night', colour: undefined });
  });
});
