/** Which frame of a video is on, and which ones interpolation added. Pure. */

/** A finished video as its frames. */
export interface Clip {
  /** Frames, interpolated ones included. */
  count: number;
  framesPerSecond: number;
  /** New frames inside each pair of generated ones; 0 without interpolation. */
  between: number;
}

/** The frame that a player shows at a time in seconds. */
export function frameAt(seconds: number, { count, framesPerSecond }: Clip): number {
  // Times of frames come back rounded to microseconds, so a hundredth of a frame counts as none.
  return Math.min(count - 1, Math.max(0, Math.floor(seconds * framesPerSecond + 0.01)));
}

/** The time in seconds to ask a player for: the middle of the frame, away from its neighbours' rounding. */
export function timeOf(frame: number, { framesPerSecond }: Clip): number {
  return (frame + 0.5) / framesPerSecond;
}

/** The generated frame that is on, or was last. */
export function generatedFrame(frame: number, { between }: Clip): number {
  return frame - (frame % (between + 1));
}

/** The frame one step on (1) or back (-1), of all or of the generated ones only; the ends stay. */
export function stepFrom(frame: number, step: 1 | -1, generatedOnly: boolean, clip: Clip): number {
  const next = generatedOnly ? generatedFrame(frame, clip) + step * (clip.between + 1) : frame + step;
  const last = generatedOnly ? generatedFrame(clip.count - 1, clip) : clip.count - 1;
  return Math.min(last, Math.max(0, next));
}

/** `Frame 12 of 81, generated`; whether it was is said only where others were added. */
export function positionText(frame: number, clip: Clip): string {
  const origin = clip.between === 0 ? '' : generatedFrame(frame, clip) === frame ? ', generated' : ', added';
  return `Frame ${frame + 1} of ${clip.count}${origin}`;
}
