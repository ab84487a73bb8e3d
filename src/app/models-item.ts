import type { StoredModel, StoreProgress } from '../index';
import { element, isDouble, setText } from './element';
import { ACTION_TEXTS, actionsFor, type ModelAction, type ModelWork, progressText, stateText } from './models-text';

/** What an entry shows. */
export interface ItemState {
  model: StoredModel;
  working: ModelWork | undefined;
  progress: StoreProgress | undefined;
  /** Outcome of the last work, or its error. */
  said: string;
}

/**
 * An entry of the list of models. Its buttons stay the same elements as long as they mean the same, so that focus
 * stays.
 */
export interface ModelItem {
  readonly root: HTMLElement;
  show(state: ItemState): void;
}

/** @param onAction is called with an action once it is confirmed, where it needs to be. */
export function createModelItem(onAction: (action: ModelAction, model: StoredModel) => void): ModelItem {
  const name = element('h3');
  const state = element('p', { class: 'clock' });
  const address = element('p', { class: 'address' });
  const bar = element('progress', { max: 1, hidden: true });
  const said = element('p', { class: 'note', role: 'status', hidden: true });
  const actions = element('div', { class: 'actions' });
  const root = element(
    'li',
    { class: 'stored' },
    element('div', { class: 'row' }, name, state),
    bar,
    address,
    said,
    actions,
  );
  let current: StoredModel;
  let shown = '';

  const showActions = (wanted: readonly ModelAction[]): void => {
    if (wanted.join() === shown) return;
    shown = wanted.join();
    const focused = actions.contains(document.activeElement);
    actions.replaceChildren(...wanted.map((action) => button(action)));
    // Not to the link, which a second press of the key would follow.
    if (focused) (actions.querySelector('button') as HTMLElement | null)?.focus();
  };
  const button = (action: ModelAction): HTMLElement => {
    const text = ACTION_TEXTS[action];
    const label = `${text} ${current.name}`;
    if (action === 'open') {
      const href = `?model=${encodeURIComponent(current.url ?? `stored:${current.id}`)}`;
      return element('a', { class: 'primary', href, 'aria-label': label }, text);
    }
    const act = () => onAction(action, current);
    if (action !== 'delete' && action !== 'cancel') {
      return element('button', { type: 'button', onclick: act, 'aria-label': label }, text);
    }
    const question = action === 'delete' ? 'Delete for good?' : 'Throw away?';
    const ask = element('button', {
      type: 'button',
      'aria-label': label,
      onclick: (event) => {
        if (isDouble(event)) return;
        if (ask.textContent === question) return act();
        ask.textContent = question;
        ask.setAttribute('aria-label', `${question} ${current.name}`);
      },
      onblur: () => {
        ask.textContent = text;
        ask.setAttribute('aria-label', label);
      },
    });
    ask.textContent = text;
    return ask;
  };

  return {
    root,
    show({ model, working, progress, said: outcome }) {
      current = model;
      setText(name, model.name);
      setText(state, working ? (progress ? progressText(progress) : 'Starting') : stateText(model));
      setText(address, model.url ?? (model.state === 'damaged' ? 'Unknown address' : 'Imported here'));
      bar.hidden = working === undefined;
      bar.setAttribute('aria-label', `Progress of ${model.name}`);
      if (progress && progress.totalBytes > 0) bar.value = progress.doneBytes / progress.totalBytes;
      else bar.removeAttribute('value');
      setText(said, outcome);
      said.hidden = outcome === '';
      showActions(actionsFor(model, working));
    },
  };
}
