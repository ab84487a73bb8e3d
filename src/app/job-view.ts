import type { Progress } from '../index';
import { element, setText } from './element';
import { clockText, quarterOf, spokenText, stageText } from './progress-text';

/** The console of a running job: stage, bar, clock, and the way out. */
export interface JobView {
  readonly root: HTMLElement;
  /** Starts the clock and moves the keyboard's focus to Cancel. */
  start(): void;
  report(progress: Progress): void;
  /** Shows that a cancel is on its way. */
  cancelling(): void;
  stop(): void;
}

/** How often the clock between two reports is written. */
const TICK_MS = 500;

/** @param speak says a sentence to screen readers. */
export function createJobView(onCancel: () => void, speak: (sentence: string) => void): JobView {
  const stage = element('p', { class: 'stage-name' });
  const bar = element('progress', { max: 1, 'aria-label': 'Progress of the video' });
  const clock = element('p', { class: 'clock' });
  const cancel = element('button', { type: 'button', onclick: onCancel, 'aria-keyshortcuts': 'Escape' }, 'Cancel');
  const root = element(
    'div',
    { class: 'job' },
    element('div', { class: 'row' }, stage, cancel),
    bar,
    element('div', { class: 'row' }, clock, element('span', { class: 'keys' }, element('kbd', {}, 'Esc'), ' cancels')),
  );
  let latest: Progress | undefined;
  let reportedAt = 0;
  let spoken = '';
  let ending = false;
  let timer: ReturnType<typeof setInterval> | undefined;

  const tick = (): void => {
    if (latest) setText(clock, clockText(latest, performance.now() - reportedAt));
  };
  return {
    root,
    start() {
      latest = { stage: 'load', done: 0, total: 0, fraction: 0, elapsedMs: 0, remainingMs: null };
      reportedAt = performance.now();
      spoken = '';
      bar.removeAttribute('value');
      setText(stage, 'Starting');
      ending = false;
      cancel.removeAttribute('aria-disabled');
      tick();
      timer = setInterval(tick, TICK_MS);
      cancel.focus();
    },
    report(progress) {
      latest = progress;
      reportedAt = performance.now();
      bar.value = progress.fraction;
      if (!ending) setText(stage, stageText(progress));
      tick();
      const part = `${progress.stage} ${quarterOf(progress)}`;
      if (part !== spoken) speak(spokenText(progress));
      spoken = part;
    },
    cancelling() {
      ending = true;
      cancel.setAttribute('aria-disabled', 'true'); // Not disabled, which would drop the keyboard's focus.
      setText(stage, 'Cancelling');
    },
    stop() {
      clearInterval(timer);
    },
  };
}
