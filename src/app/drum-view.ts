import { pictureAt } from './drum';
import { DRUM_HEIGHT, type DrumState, drawDrum, type Strip } from './drum-picture';
import { element, prefersReducedMotion } from './element';

/** The drum on the page. It is decoration: whatever it shows is also said in words beside it. */
export interface DrumView {
  readonly root: HTMLCanvasElement;
  /** Puts a strip in. The picture in the middle keeps its place if it can. */
  insert(strip: Strip): void;
  /** Turns by one picture `picturesPerSecond` times a second, unless the person asked for less movement. */
  turn(picturesPerSecond: number): void;
  /** Stops, with picture `index` in the middle. */
  stop(index: number): void;
  /** Lights the first `lit` of `slits` slits. */
  light(lit: number, slits: number): void;
}

/** @param onPicture gets the strip and the index of the picture in the middle whenever one of them changes. */
export function createDrum(first: Strip, onPicture: (strip: Strip, index: number) => void): DrumView {
  const root = element('canvas', { class: 'drum', 'aria-hidden': 'true' });
  const context = root.getContext('2d', { willReadFrequently: true })!;
  const state: DrumState = { strip: first, current: 0, slits: 0, lit: 0 };
  let width = 0;
  let timer: ReturnType<typeof setInterval> | undefined;
  let asked = false;

  /** Draws once before the next paint, however often it is asked. */
  const draw = (): void => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      if (width > 0) drawDrum(context, width, state);
    });
  };
  const show = (index: number): void => {
    state.current = pictureAt(index, 0, state.strip.pictures.length);
    onPicture(state.strip, state.current);
    draw();
  };
  const halt = (): void => {
    clearInterval(timer);
    timer = undefined;
  };

  new ResizeObserver(([entry]) => {
    width = entry?.contentRect.width ?? 0;
    root.width = Math.round(width * devicePixelRatio);
    root.height = Math.round(DRUM_HEIGHT * devicePixelRatio);
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    if (width > 0) drawDrum(context, width, state);
  }).observe(root);

  return {
    root,
    insert(strip) {
      state.strip = strip;
      show(state.current);
    },
    turn(picturesPerSecond) {
      halt();
      if (prefersReducedMotion()) return;
      timer = setInterval(() => show(state.current + 1), 1000 / picturesPerSecond);
    },
    stop(index) {
      halt();
      show(index);
    },
    light(lit, slits) {
      if (state.lit === lit && state.slits === slits) return;
      state.lit = lit;
      state.slits = slits;
      draw();
    },
  };
}
