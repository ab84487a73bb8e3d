import type { Preview } from '../index';
import type { Strip } from './drum-picture';

/**
 * Canvases here stay with the CPU: they are small, and the GPU is busy with long dispatches of the model, behind which
 * an accelerated canvas would wait.
 */
const ON_CPU: CanvasRenderingContext2DSettings = { willReadFrequently: true };

function picture(width: number, height: number): [HTMLCanvasElement, CanvasRenderingContext2D] {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  return [canvas, canvas.getContext('2d', ON_CPU)!];
}

/** The pictures of a preview. */
export function previewStrip({ width, height, frames }: Preview): Strip {
  const pictures = frames.map((frame) => {
    const [canvas, context] = picture(width, height);
    context.putImageData(new ImageData(frame, width, height), 0, 0);
    return canvas;
  });
  return { pictures, width, height };
}

/**
 * Height of the pictures that are taken from a finished video, enough for the strip on a display of two pixels per
 * unit.
 */
const TAKEN_HEIGHT = 136;

/** Empty pictures for `count` frames of a video, to be filled by {@link takePicture} as the video plays. */
export function emptyStrip(width: number, height: number, count: number): Strip {
  const takenHeight = Math.min(height, TAKEN_HEIGHT);
  const takenWidth = Math.max(1, Math.round((width / height) * takenHeight));
  const pictures = Array.from({ length: count }, () => picture(takenWidth, takenHeight)[0]);
  return { pictures, width: takenWidth, height: takenHeight };
}

/** Draws the video's present frame into picture `index` of a strip. */
export function takePicture(strip: Strip, index: number, video: HTMLVideoElement): void {
  const canvas = strip.pictures[index] as HTMLCanvasElement;
  canvas.getContext('2d', ON_CPU)!.drawImage(video, 0, 0, strip.width, strip.height);
}

/** Pictures of the strip that comes with the toy: a ball that bounces once round the drum. */
const BALL_PICTURES = 12;
/** The picture in which the ball is at its highest. */
export const BALL_TOP = BALL_PICTURES / 2;
const PAPER = '#e7e3d8';
const INK = '#22252b';

/** The strip of a drum that nothing has been made for, in the shape of the video that is to come. */
export function ballStrip(aspect: number): Strip {
  const height = 136;
  const width = Math.round(height * aspect);
  const unit = Math.min(width, height);
  const pictures = Array.from({ length: BALL_PICTURES }, (_, index) => {
    const [canvas, context] = picture(width, height);
    const time = index / BALL_PICTURES;
    const bounce = 4 * time * (1 - time); // Height over the ground, 0 to 1.
    const squash = bounce < 0.15 ? 0.8 : 1;
    const radius = unit * 0.13;
    const ground = height - unit * 0.16;
    context.fillStyle = PAPER;
    context.fillRect(0, 0, width, height);
    context.fillStyle = INK;
    context.fillRect(width / 2 - unit * 0.3, ground, unit * 0.6, 2);
    context.beginPath();
    const y = ground - radius * squash - bounce * (ground - 2 * radius - unit * 0.1);
    context.ellipse(width / 2, y, radius / squash, radius * squash, 0, 0, 2 * Math.PI);
    context.fill();
    return canvas;
  });
  return { pictures, width, height };
}
