/**
 * Tells background and foreground colour of a clip of the demo model. The colours are those of the clips that it was
 * trained on, and the method is that of its training scripts: background by the borders, row by row; foreground by the
 * mean of what differs from it.
 */

type Rgb = readonly [r: number, g: number, b: number];

/** Colours of the shapes, 0 to 1. */
export const COLOURS = {
  red: [0.9, 0.1, 0.1],
  green: [0.1, 0.75, 0.15],
  blue: [0.12, 0.28, 0.95],
  yellow: [0.98, 0.88, 0.1],
  white: [0.98, 0.98, 0.98],
  orange: [1, 0.52, 0.05],
  purple: [0.55, 0.12, 0.75],
  cyan: [0.1, 0.85, 0.92],
  pink: [1, 0.45, 0.72],
} as const satisfies Record<string, Rgb>;

/** Colours of the backgrounds at the top and at the bottom, 0 to 1. */
export const BACKGROUNDS = {
  black: [
    [0.02, 0.02, 0.02],
    [0.02, 0.02, 0.02],
  ],
  white: [
    [0.97, 0.97, 0.97],
    [0.97, 0.97, 0.97],
  ],
  gray: [
    [0.5, 0.5, 0.5],
    [0.5, 0.5, 0.5],
  ],
  night: [
    [0.02, 0.03, 0.16],
    [0.08, 0.11, 0.36],
  ],
  sunset: [
    [0.33, 0.14, 0.42],
    [1, 0.6, 0.28],
  ],
  grass: [
    [0.45, 0.72, 0.35],
    [0.1, 0.38, 0.08],
  ],
  sky: [
    [0.38, 0.64, 0.96],
    [0.8, 0.92, 1],
  ],
} as const satisfies Record<string, readonly [Rgb, Rgb]>;

export type Colour = keyof typeof COLOURS;
export type Background = keyof typeof BACKGROUNDS;

/** Columns at either side that count as border. */
const BORDER = 4;
/** Distance from the background, 0 to sqrt(3), from which a pixel belongs to the shape. */
const FOREGROUND_DISTANCE = 0.22;
/** Share of the picture below which a shape counts as not visible. */
const MIN_AREA = 0.004;

/** Pixels of all frames together up to which a shape without its edge counts as too thin to do without it. */
const MIN_CORE = 20;

/** What a clip shows; `colour` is undefined when no shape is visible. */
export interface Verdict {
  background: Background;
  colour: Colour | undefined;
}

/** Judges frames of RGBA, 8 bits. */
export function judge(frames: readonly Uint8ClampedArray[], width: number, height: number): Verdict {
  const rows = Array.from({ length: height }, (_, y) => borderColour(frames, width, y));
  const expected = (name: Background, y: number): Rgb => {
    const [top, bottom] = BACKGROUNDS[name];
    const share = y / (height - 1);
    return top.map((value, channel) => value * (1 - share) + bottom[channel]! * share) as unknown as Rgb;
  };
  const background = nearest(Object.keys(BACKGROUNDS) as Background[], (name) =>
    rows.reduce((sum, row, y) => sum + absolute(row, expected(name, y)), 0),
  );
  const masks = frames.map((frame) => foreground(frame, rows, width));
  const cores = masks.map((mask) => eroded(mask, width));
  const size = (mask: Float32Array) => mask.reduce((count, value) => count + (value > 0 ? 1 : 0), 0);
  const thin = cores.reduce((total, core) => total + size(core), 0) <= MIN_CORE;
  const shapes = thin && background !== 'night' ? masks : cores;
  const visible = shapes.filter((shape) => size(shape) > MIN_AREA * width * height).length;
  const sum = [0, 0, 0];
  let weights = 0;
  shapes.forEach((shape, index) => {
    shape.forEach((value, at) => {
      const weight = Math.min(value, 0.6) ** 2;
      weights += weight;
      for (let c = 0; c < 3; c++) sum[c]! += (weight * frames[index]![at * 4 + c]!) / 255;
    });
  });
  if (visible < 3) return { background, colour: undefined };
  const mean = sum.map((value) => value / weights) as unknown as Rgb;
  return { background, colour: nearest(Object.keys(COLOURS) as Colour[], (name) => distance(mean, COLOURS[name])) };
}

/** Median of a row's border pixels over all frames. */
function borderColour(frames: readonly Uint8ClampedArray[], width: number, y: number): Rgb {
  const columns = [...Array(BORDER).keys()].flatMap((x) => [x, width - 1 - x]);
  return [0, 1, 2].map((channel) => {
    const values = frames.flatMap((frame) => columns.map((x) => frame[(y * width + x) * 4 + channel]!));
    return values.sort((a, b) => a - b)[values.length >> 1]! / 255;
  }) as unknown as Rgb;
}

/** Distance of each pixel from its row's border; 0 where it is background. */
function foreground(frame: Uint8ClampedArray, rows: readonly Rgb[], width: number): Float32Array {
  return Float32Array.from({ length: rows.length * width }, (_, at) => {
    const pixel = [0, 1, 2].map((channel) => frame[at * 4 + channel]! / 255) as unknown as Rgb;
    const value = distance(pixel, rows[Math.floor(at / width)]!);
    return value > FOREGROUND_DISTANCE ? value : 0;
  });
}

/**
 * Takes off the outermost pixels of what is not 0: soft edges have neither colour, and stars of the night sky are dots.
 */
function eroded(mask: Float32Array, width: number): Float32Array {
  const at = (x: number, y: number) => (x < 0 || x >= width ? 0 : (mask[y * width + x] ?? 0));
  return mask.map((value, index) => {
    const [x, y] = [index % width, Math.floor(index / width)];
    for (let dy = -1; dy <= 1; dy++) for (let dx = -1; dx <= 1; dx++) if (at(x + dx, y + dy) === 0) return 0;
    return value;
  });
}

const distance = (a: Rgb, b: Rgb) => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
const absolute = (a: Rgb, b: Rgb) => Math.abs(a[0] - b[0]) + Math.abs(a[1] - b[1]) + Math.abs(a[2] - b[2]);

function nearest<Name>(names: readonly Name[], error: (name: Name) => number): Name {
  return names.reduce((best, name) => (error(name) < error(best) ? name : best));
}
