import type { Preview, Progress } from '../index';
import type { Advice } from './advice';
import type { Strip } from './drum-picture';
import { createDrum } from './drum-view';
import { element, prefersReducedMotion, setText } from './element';
import { createFrameView, type FrameView } from './frame-view';
import { createGallery } from './gallery';
import { createJobView } from './job-view';
import { createNotice } from './notice';
import { type Outline, outlineText } from './outline';
import { BALL_TOP, ballStrip, emptyStrip, previewStrip, takePicture } from './pictures';
import { createResult, type Result } from './result';

/** The right side of the page: screen, drum, and below them what belongs to the present state. */
export interface Stage {
  readonly root: HTMLElement;
  /** The model is being opened. */
  showOpening(model: string): void;
  /** No model is open. Why, the page says above. */
  showClosed(): void;
  /** Ready for a job, with what it would make. While something else is shown, it is kept for later. */
  showReady(outline: Outline): void;
  showJob(outline: Outline): void;
  showProgress(progress: Progress): void;
  showPreview(preview: Preview): void;
  showCancelling(): void;
  showResult(result: Result): void;
  showError(advice: Advice): void;
  showCancelled(): void;
}

export interface StageEvents {
  /** URL of the model folder. */
  model: string;
  onCancel(): void;
  onUseSeed(seed: number): void;
}

/** Pictures per second of the drum while there is nothing to see yet. */
const BALL_RATE = 10;
/** Pictures of a finished video that the drum holds at most. */
const STRIP_LIMIT = 48;

export function createStage({ model, onCancel, onUseSeed }: StageEvents): Stage {
  const words = element('p', { class: 'words' });
  const still = element('canvas', { class: 'picture', hidden: true, role: 'img', 'aria-label': 'Preview' });
  const video = element('video', { class: 'picture', hidden: true, controls: true, loop: true, playsinline: true });
  video.muted = true;
  /** Lies over the video where single frames are held. */
  const held = element('canvas', { class: 'picture held', hidden: true, 'aria-hidden': true });
  const screen = element('div', { class: 'screen' }, words, still, video, held);
  const live = element('p', { class: 'spoken', role: 'status' });
  const speak = (sentence: string): void => setText(live, sentence);
  const panel = element('div', { class: 'panel' });
  const job = createJobView(onCancel, speak);
  const gallery = createGallery((result) => play(result));
  let ball = ballStrip(1);
  let ballAspect = 1;
  let outline: Outline | undefined;
  let running = false;
  let frameView: FrameView | undefined;
  /** Whether the running job has shown a preview. */
  let previewed = false;

  const context = still.getContext('2d', { willReadFrequently: true })!;
  const drum = createDrum(ball, (strip, index) => {
    const picture = strip.pictures[index];
    if (still.hidden || strip === ball || !picture) return;
    still.width = strip.width;
    still.height = strip.height;
    context.drawImage(picture, 0, 0);
  });
  const root = element(
    'section',
    { class: 'stage', 'aria-label': 'Video' },
    element('div', { class: 'theatre' }, screen, drum.root),
    panel,
    gallery.root,
    live,
  );

  /** Puts one of the three on the screen. */
  const onScreen = (shown: HTMLElement): void => {
    for (const each of [words, still, video]) each.hidden = each !== shown;
    frameView?.close();
    frameView = undefined;
    if (shown !== video) video.pause();
  };
  const insertBall = (turning: boolean): void => {
    const aspect = outline ? outline.width / outline.height : 1;
    words.style.setProperty('--aspect', String(aspect));
    if (aspect !== ballAspect) {
      ball = ballStrip(aspect);
      ballAspect = aspect;
    }
    drum.insert(ball);
    if (turning) drum.turn(BALL_RATE);
    else drum.stop(BALL_TOP);
  };
  const ready = (): void => {
    onScreen(words);
    insertBall(false);
    gallery.unmark();
    setText(words, outline ? `The next video: ${outlineText(outline)}.` : '');
    if (outline) drum.light(0, outline.steps);
  };
  const end = (): void => {
    job.stop();
    running = false;
    gallery.lock(false);
  };
  /** Fills the panel. If that takes away what has the keyboard's focus, `next` gets it. */
  const fillPanel = (content: HTMLElement, next: HTMLElement): void => {
    const focused = panel.contains(document.activeElement);
    panel.replaceChildren(content);
    if (focused) next.focus();
  };

  /** Lets the drum hold the frames of the video and turn with it, where the browser tells which frame is on. */
  const follow = (strip: Strip): void => {
    if (!('requestVideoFrameCallback' in video)) return;
    const source = video.src;
    const onFrame: VideoFrameRequestCallback = (_, { mediaTime }) => {
      if (video.hidden || video.src !== source) return;
      const count = strip.pictures.length;
      const index = Math.min(count - 1, Math.floor((mediaTime / video.duration) * count));
      takePicture(strip, index, video);
      drum.insert(strip);
      drum.stop(index);
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
  };
  const play = (result: Result): void => {
    const { video: file, prompt, request, frameCount, framesPerSecond } = result.generation;
    const [width, height] = result.size;
    video.src = file.url;
    video.setAttribute('aria-label', prompt ? `Video: ${prompt}` : 'Video');
    drum.light(request.num_inference_steps, request.num_inference_steps);
    drum.stop(0);
    onScreen(video);
    follow(emptyStrip(width, height, Math.min(request.num_frames, STRIP_LIMIT)));
    if (!prefersReducedMotion()) void video.play().catch(() => undefined); // Without autoplay there are the controls.
    const between = request.interpolator_model === 'none' ? 0 : request.num_interpolated_frames;
    frameView = createFrameView(video, held, { count: frameCount, framesPerSecond, between });
    fillPanel(createResult(result, { model, onUseSeed }, frameView?.root), video);
  };

  return {
    root,
    showOpening(url) {
      onScreen(words);
      insertBall(true);
      setText(words, `Opening the model at ${url}`);
      speak('Opening the model');
      panel.replaceChildren();
    },
    showClosed() {
      end();
      onScreen(words);
      insertBall(false);
      setText(words, 'No model is open.');
      panel.replaceChildren();
    },
    showReady(next) {
      outline = next;
      if (running || !video.hidden) return;
      ready();
    },
    showJob(next) {
      outline = next;
      running = true;
      previewed = false;
      gallery.lock(true);
      onScreen(words);
      insertBall(true);
      setText(words, outlineText(next));
      drum.light(0, next.steps);
      panel.replaceChildren(job.root);
      job.start();
    },
    showProgress(progress) {
      if (!running) return;
      job.report(progress);
      if (progress.stage === 'diffusion') drum.light(progress.done, progress.total);
    },
    showPreview(preview) {
      if (!running || !outline) return;
      onScreen(still);
      still.setAttribute('aria-label', `Preview after step ${preview.step}`);
      drum.insert(previewStrip(preview));
      const lengthSeconds = outline.frames / outline.framesPerSecond;
      if (!previewed) drum.turn(preview.frames.length / lengthSeconds);
      previewed = true;
    },
    showCancelling: () => job.cancelling(),
    showResult(result) {
      end();
      play(result);
      gallery.add(result);
      speak('The video is ready');
    },
    showError(advice) {
      end();
      ready();
      const notice = createNotice(advice);
      fillPanel(notice, notice);
    },
    showCancelled() {
      end();
      ready();
      const sentence = element('p', { class: 'quiet', tabindex: -1 }, 'Cancelled. Nothing was kept.');
      fillPanel(sentence, sentence);
      speak('Cancelled');
    },
  };
}
