import { cellsInView, pictureAt, project, sag, slitAngles } from './drum';

/** Pictures of one clip, all of one size. */
export interface Strip {
  pictures: readonly CanvasImageSource[];
  /** Pixels of a picture. */
  width: number;
  height: number;
}

/** What the drum shows. */
export interface DrumState {
  strip: Strip;
  /** Index of the picture in the middle. */
  current: number;
  /** Slits, one for each denoising step. */
  slits: number;
  /** Slits that let light through: the steps that are done. */
  lit: number;
}

/** Colours of the drum. It is black tin with paper inside, by day and by night. */
const TIN = '#15171b';
const RIM = '#3a3f47';
const SLIT = '#2b2f36';
const LAMP = '#ffc14d';
const GLOW = 'rgb(255 193 77 / 0.5)';

/** Heights in CSS pixels, and how far the middle hangs below the ends. */
const DEPTH = 14;
const SLIT_TOP = 10;
const SLIT_HEIGHT = 24;
const STRIP_TOP = 44;
const STRIP_HEIGHT = 68;
const BASE = 12;

/** Height of the whole drawing in CSS pixels. */
export const DRUM_HEIGHT = DEPTH + STRIP_TOP + STRIP_HEIGHT + BASE;

/** Widest slit, and the share of its place that a slit takes where there are many. */
const SLIT_WIDTH = 6;
const SLIT_SHARE = 0.4;

/** Width of the pieces that a picture is cut into so that it bends with the drum. */
const PIECE_WIDTH = 4;
/** Gap between two pictures, as a share of a picture. */
const GAP = 0.025;
/** How much light the pictures beside the middle get. */
const ASIDE_LIGHT = 0.42;

/** Draws the drum on a context whose units are CSS pixels, `width` wide and {@link DRUM_HEIGHT} high. */
export function drawDrum(context: CanvasRenderingContext2D, width: number, state: DrumState): void {
  context.clearRect(0, 0, width, DRUM_HEIGHT);
  drawTin(context, width);
  drawSlits(context, width, state);
  drawStrip(context, width, state);
}

/** The wall: straight sides, a rim above and an edge below that hang down in the middle. */
function drawTin(context: CanvasRenderingContext2D, width: number): void {
  context.beginPath();
  context.moveTo(0, 0);
  edge(context, width, 0);
  context.lineTo(width, DRUM_HEIGHT - DEPTH);
  edge(context, width, DRUM_HEIGHT - DEPTH, true);
  context.closePath();
  context.fillStyle = TIN;
  context.fill();
  context.beginPath();
  context.moveTo(0, 0.5);
  edge(context, width, 0.5);
  context.strokeStyle = RIM;
  context.lineWidth = 1;
  context.stroke();
}

/** A row's curve across the whole width at height `y`, left to right or back. */
function edge(context: CanvasRenderingContext2D, width: number, y: number, back = false): void {
  const angles = slitAngles(48);
  for (const angle of back ? angles.toReversed() : angles) {
    context.lineTo(project(angle, width), y + DEPTH * sag(angle));
  }
  context.lineTo(back ? 0 : width, y);
}

function drawSlits(context: CanvasRenderingContext2D, width: number, { slits, lit }: DrumState): void {
  context.shadowBlur = 14;
  for (const [index, angle] of slitAngles(slits).entries()) {
    const pitch = width / slits;
    const slit = Math.min(SLIT_WIDTH, pitch * SLIT_SHARE) * Math.cos(angle);
    const x = project(angle, width) - slit / 2;
    const y = SLIT_TOP + DEPTH * sag(angle);
    context.fillStyle = index < lit ? LAMP : SLIT;
    context.shadowColor = index < lit ? GLOW : 'transparent';
    context.fillRect(x, y, slit, SLIT_HEIGHT);
  }
  context.shadowColor = 'transparent';
}

function drawStrip(context: CanvasRenderingContext2D, width: number, { strip, current }: DrumState): void {
  const cellWidth = (STRIP_HEIGHT * strip.width) / strip.height;
  context.imageSmoothingEnabled = strip.width > cellWidth;
  // Whole pixels of the display, so that no seam shows between two pieces.
  const scale = context.getTransform().a;
  const snap = (value: number): number => Math.round(value * scale) / scale;
  for (const { offset, from, to } of cellsInView(cellWidth, width)) {
    const picture = strip.pictures[pictureAt(current, offset, strip.pictures.length)];
    if (!picture) continue;
    const gap = (to - from) * GAP;
    const pieces = Math.max(2, Math.ceil((project(to, width) - project(from, width)) / PIECE_WIDTH));
    const step = (to - from - 2 * gap) / pieces;
    context.globalAlpha = offset === 0 ? 1 : ASIDE_LIGHT;
    for (let piece = 0; piece < pieces; piece++) {
      const begin = from + gap + piece * step;
      const left = snap(project(begin, width));
      const right = snap(project(begin + step, width));
      const top = snap(STRIP_TOP + DEPTH * sag(begin + step / 2));
      const sourceWidth = strip.width / pieces;
      context.drawImage(
        picture,
        piece * sourceWidth,
        0,
        sourceWidth,
        strip.height,
        left,
        top,
        right - left,
        STRIP_HEIGHT,
      );
    }
  }
  context.globalAlpha = 1;
}
