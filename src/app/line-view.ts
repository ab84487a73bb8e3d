import './line.css';
import type { StoredJob } from '../index';
import { element, isDouble, setText } from './element';
import { promptText, standingText } from './line-text';

/** Videos that are not finished, below the form: interrupted ones to continue, and those that wait in line. */
export interface LineView {
  readonly root: HTMLElement;
  /**
   * @param modelId of the model that is open; jobs of others can only be removed.
   * @param busy a job has the screen, so nothing else can be started.
   * @param stopped the line does not go on by itself.
   */
  show(jobs: readonly StoredJob[], modelId: string, busy: boolean, stopped: boolean): void;
  /** A sentence about something that did not work; empty for none. */
  say(text: string): void;
}

/** What a person can do there. */
export interface LineEvents {
  onContinue(job: StoredJob): void;
  onRemove(job: StoredJob): void;
  onMove(job: StoredJob, position: number): void;
  /** Lets the line go on. */
  onStart(): void;
}

export function createLineView({ onContinue, onRemove, onMove, onStart }: LineEvents): LineView {
  const unfinished = element('ul', { class: 'jobs' });
  const waiting = element('ul', { class: 'jobs' });
  const start = element('button', { type: 'button', onclick: onStart }, 'Start the line');
  const problem = element('p', { class: 'problem', role: 'alert', hidden: true });
  const unfinishedPart = element('div', {}, element('h2', {}, 'Unfinished'), unfinished);
  const waitingPart = element(
    'div',
    {},
    element('div', { class: 'row' }, element('h2', {}, 'In line'), start),
    waiting,
  );
  const root = element(
    'section',
    { class: 'line', 'aria-label': 'Videos that are not finished' },
    problem,
    unfinishedPart,
    waitingPart,
  );

  const press = (text: string, label: string, onclick: (event: Event) => void, off = false, primary = false) =>
    element(
      'button',
      { type: 'button', 'aria-label': label, onclick, disabled: off, class: primary ? 'primary' : undefined },
      text,
    );
  /** A button that asks once more, since what it throws away took time to make. */
  const discard = (job: StoredJob) => {
    const question = 'Throw away?';
    const ask = press('Discard', `Discard ${promptText(job)}`, (event) => {
      if (isDouble(event)) return;
      if (ask.textContent === question) return onRemove(job);
      ask.textContent = question;
      ask.setAttribute('aria-label', `${question} ${promptText(job)}`);
    });
    return ask;
  };
  const item = (job: StoredJob, standing: string, ...actions: HTMLElement[]) =>
    element(
      'li',
      { 'data-id': job.id },
      element('p', { class: 'said-prompt' }, promptText(job)),
      element('p', { class: 'clock' }, standing),
      element('div', { class: 'actions' }, ...actions),
    );
  /** Fills a list; the keyboard's focus stays at the button of the same name in the same item, or in the list. */
  const fill = (list: HTMLElement, items: HTMLElement[]): void => {
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    const id = focused?.closest('li')?.dataset.id;
    const label = focused?.getAttribute('aria-label');
    list.replaceChildren(...items);
    if (!focused) return;
    const same = [...list.querySelectorAll('button')].find(
      (each) => each.closest('li')?.dataset.id === id && each.getAttribute('aria-label') === label && !each.disabled,
    );
    (same ?? list.querySelector<HTMLElement>('button:enabled'))?.focus();
  };

  return {
    root,
    show(jobs, modelId, busy, stopped) {
      const interrupted = jobs.filter(({ state }) => state === 'interrupted');
      const line = jobs.filter(({ state }) => state === 'waiting');
      fill(
        unfinished,
        interrupted.map((job) => {
          const name = promptText(job);
          const off = busy || job.model.id !== modelId;
          const go = press('Continue', `Continue ${name}`, () => onContinue(job), off, true);
          return item(job, standingText(job, 0, modelId), go, discard(job));
        }),
      );
      fill(
        waiting,
        line.map((job, index) => {
          const name = promptText(job);
          const last = index === line.length - 1;
          return item(
            job,
            standingText(job, index + 1, modelId),
            press('Up', `Up: ${name}`, () => onMove(job, index - 1), index === 0),
            press('Down', `Down: ${name}`, () => onMove(job, index + 1), last),
            press('Cancel', `Cancel ${name}`, () => onRemove(job)),
          );
        }),
      );
      unfinishedPart.hidden = interrupted.length === 0;
      waitingPart.hidden = line.length === 0;
      start.hidden = !stopped || busy || !line.some(({ model }) => model.id === modelId);
      root.hidden = jobs.length === 0 && problem.hidden;
    },
    say(text) {
      setText(problem, text);
      problem.hidden = text === '';
      if (text !== '') root.hidden = false;
    },
  };
}
