import { element, setText } from './element';
import { type Clip, frameAt, generatedFrame, positionText, stepFrom, timeOf } from './frames';

/** Frame by frame through a video, and the same video without the frames that were added. */
export interface FrameView {
  root: HTMLElement;
  /** Lets go of the video. */
  close(): void;
}

/**
 * Controls for the video that `video` has as its source. Without the added frames, each generated one is held on
 * `held`, which lies over the video, until the next comes; the player's own controls are away for that time. Undefined
 * where the browser does not tell which frame is on.
 */
export function createFrameView(video: HTMLVideoElement, held: HTMLCanvasElement, clip: Clip): FrameView | undefined {
  if (!('requestVideoFrameCallback' in video)) return undefined;
  const context = held.getContext('2d')!;
  const closed = new AbortController();
  let frame = 0;
  let generatedOnly = false;

  const position = element('span', { class: 'position' }, positionText(0, clip));
  const button = (label: string, onclick: () => void, title = label) =>
    element('button', { type: 'button', 'aria-label': title, onclick }, label);
  const playing = button('Pause', () => (video.paused ? void video.play().catch(() => undefined) : video.pause()));
  const toggle = element('input', { type: 'checkbox', onchange: () => compare(toggle.checked) });

  const draw = (): void => {
    held.width = video.videoWidth;
    held.height = video.videoHeight;
    context.drawImage(video, 0, 0);
  };
  const seek = (next: number): void => {
    video.pause();
    video.currentTime = timeOf(next, clip);
  };
  const step = (by: 1 | -1) => () => seek(stepFrom(frame, by, generatedOnly, clip));
  function compare(without: boolean): void {
    generatedOnly = without;
    video.controls = !without;
    held.hidden = !without;
    if (!without) return;
    draw();
    if (video.paused) seek(generatedFrame(frame, clip));
  }
  const onFrame: VideoFrameRequestCallback = (_, { mediaTime }) => {
    if (closed.signal.aborted) return;
    frame = frameAt(mediaTime, clip);
    const shown = generatedOnly ? generatedFrame(frame, clip) : frame;
    setText(position, positionText(shown, clip));
    if (generatedOnly && shown === frame) draw();
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
  const showState = (): void => {
    setText(playing, video.paused ? 'Play' : 'Pause');
    playing.setAttribute('aria-label', video.paused ? 'Play' : 'Pause');
  };
  for (const event of ['play', 'pause']) video.addEventListener(event, showState, { signal: closed.signal });
  showState();

  const root = element(
    'div',
    { class: 'row frames', role: 'group', 'aria-label': 'Frames' },
    playing,
    button('‹', step(-1), 'Previous frame'),
    button('›', step(1), 'Next frame'),
    position,
    clip.between > 0 ? element('label', {}, toggle, ' Without added frames') : undefined,
  );
  return {
    root,
    close() {
      closed.abort();
      compare(false);
    },
  };
}
