import { element } from './element';
import type { Result } from './result';

/** Videos that are kept; an older one's memory is given back. */
const KEPT = 12;

/** The results of this visit, newest first. */
export interface Gallery {
  readonly root: HTMLElement;
  /** Takes a new result in and marks it as the one that is shown. */
  add(result: Result): void;
  /** Marks no result as shown. */
  unmark(): void;
  /** Lets nothing be chosen, while a job has the screen. */
  lock(locked: boolean): void;
}

/** @param onChoose is called with the result that the person wants to see again. */
export function createGallery(onChoose: (result: Result) => void): Gallery {
  const list = element('ul');
  const root = element(
    'section',
    { class: 'gallery', hidden: true, 'aria-label': 'Videos of this visit' },
    element('h2', {}, 'This visit'),
    list,
  );
  const shown: { result: Result; item: HTMLElement; button: HTMLButtonElement }[] = [];
  const mark = (chosen?: Result): void => {
    for (const { result, button } of shown) button.setAttribute('aria-current', String(result === chosen));
  };
  return {
    root,
    add(result) {
      const { video, prompt, seed } = result.generation;
      const picture = element('video', { src: `${video.url}#t=0.5`, preload: 'auto', muted: true, tabindex: -1 });
      const choose = (): void => {
        mark(result);
        onChoose(result);
      };
      const label = `${prompt || 'Empty prompt'}, seed ${seed}`;
      const button = element('button', { type: 'button', title: label, 'aria-label': label, onclick: choose }, picture);
      const item = element('li', {}, button);
      list.prepend(item);
      shown.unshift({ result, item, button });
      for (const old of shown.splice(KEPT)) {
        old.item.remove();
        URL.revokeObjectURL(old.result.generation.video.url);
      }
      mark(result);
      root.hidden = false;
    },
    unmark: () => mark(),
    lock(locked) {
      root.inert = locked;
    },
  };
}
