import { type ModelInfo, models, type UnfinishedImport } from '../index';
import { element } from './element';
import { chooseAgainText, partStates, unfinishedText } from './import-text';

/** Imports that were stopped, and interpolators, with what can be done about each. */

export interface UnfinishedEvents {
  available(): ModelInfo['available'] | undefined;
  onContinue(id: string): void;
  /** The sources must be chosen again; `advice` says so. */
  onChooseAgain(unfinished: UnfinishedImport, advice: string): void;
  onDelete(id: string): void;
}

export function createUnfinishedList(events: UnfinishedEvents): { root: HTMLElement; refresh(): Promise<void> } {
  const imports = element('ul', { 'aria-label': 'Imports that were stopped' });
  const parts = element('ul', { 'aria-label': 'Interpolators' });
  const root = element('div', { class: 'import-lists' }, imports, element('h3', {}, 'Interpolators'), parts);

  const remove = (id: string, label: string) =>
    element(
      'button',
      { type: 'button', 'aria-label': `Delete ${label}`, onclick: () => events.onDelete(id) },
      'Delete',
    );

  function importItem(unfinished: UnfinishedImport): HTMLElement {
    const { id, name, busy, remembered } = unfinished;
    const go = () =>
      remembered ? events.onContinue(id) : events.onChooseAgain(unfinished, chooseAgainText(unfinished));
    const buttons = busy
      ? []
      : [
          element('button', { type: 'button', 'aria-label': `Continue ${name}`, onclick: go }, 'Continue'),
          remove(id, name),
        ];
    return element(
      'li',
      {},
      element('strong', {}, name),
      element('p', { class: 'hint' }, unfinishedText(unfinished)),
      element('div', { class: 'actions' }, ...buttons),
    );
  }

  return {
    root,
    async refresh() {
      const [stopped, stored] = await Promise.all([models.unfinished(), models.parts()]).catch(() => [[], []]);
      imports.replaceChildren(...stopped.map(importItem));
      parts.replaceChildren(
        ...partStates(stored, events.available()).map(({ part, stored: own, text }) =>
          element('li', { class: 'row' }, element('span', {}, text), own && remove(own.id, part.toUpperCase())),
        ),
      );
    },
  };
}
