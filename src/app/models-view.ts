import './models.css';
import { type ModelInfo, models, type StoredModel, type StoreProgress, ZoetropeError } from '../index';
import { adviceFor } from './advice';
import { element, setText } from './element';
import type { ImportView } from './import-view';
import { createModelItem, type ItemState, type ModelItem } from './models-item';
import { type ModelAction, type ModelWork, storageText, verificationText } from './models-text';

/** The screen of stored models, a dialog over the page. */
export interface ModelsView {
  readonly root: HTMLDialogElement;
  open(): void;
}

export interface ModelsEvents {
  /** URL of the model that the page uses, absolute, to be proposed for a download. */
  model: string;
  /** A model is about to be deleted: the page stops using it if it does. Gives what to call afterwards. */
  onDelete(id: string): () => void;
  /** Optional parts of the open model; undefined where none is open. */
  available(): ModelInfo['available'] | undefined;
  /** An interpolator came or went, which an open model does not see yet. */
  onPart(): void;
}

/** What this page is doing with a model. */
interface Working {
  kind: ModelWork;
  controller: AbortController;
  progress: StoreProgress | undefined;
}

export function createModelsView({ model: proposed, onDelete, available, onPart }: ModelsEvents): ModelsView {
  /** By id; a download whose manifest has not come yet has its URL in place of it. */
  const working = new Map<string, Working>();
  const outcomes = new Map<string, string>();
  const items = new Map<string, ModelItem>();
  let stored: StoredModel[] = [];
  /** The import part, fetched when the screen is first opened. */
  let imports: Promise<ImportView> | undefined;

  const storage = element('p', { class: 'quiet' });
  const list = element('ul', { class: 'models' });
  const empty = element('p', { class: 'quiet' }, 'No model is stored yet. A stored model opens without network.');
  const problem = element('p', { class: 'problem', role: 'alert', hidden: true });
  const address = element('input', {
    type: 'url',
    id: 'model-address',
    required: true,
    'aria-describedby': 'model-address-hint',
  });
  if (/^https?:/.test(proposed)) address.value = proposed;
  const form = element(
    'form',
    { class: 'field', novalidate: true },
    element('label', { class: 'label', for: 'model-address' }, 'Download from an address'),
    element(
      'div',
      { class: 'addressed' },
      address,
      element('button', { type: 'submit', class: 'primary' }, 'Download'),
    ),
    element(
      'p',
      { class: 'hint', id: 'model-address-hint' },
      'The folder that holds zoetrope.json. Every piece is verified before it is kept, and a download can be continued.',
    ),
    problem,
  );
  const close = element('button', { type: 'button', onclick: () => root.close() }, 'Close');
  const heading = element('h2', { id: 'models-title' }, 'Models in this browser');
  const root = element(
    'dialog',
    { class: 'models-view', 'aria-labelledby': heading.id },
    element('div', { class: 'row' }, heading, close),
    storage,
    form,
    empty,
    list,
  );

  async function showImports(): Promise<void> {
    imports ??= import('./import-view').then(({ createImportView }) => {
      const onChange = (change: 'model' | 'part') => (change === 'part' ? onPart() : void refresh());
      const view = createImportView({ available, onChange });
      root.append(view.root);
      return view;
    });
    (await imports).refresh();
  }
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void run(address.value.trim(), 'download', address.value.trim());
  });

  const say = (text: string): void => {
    setText(problem, text);
    problem.hidden = text === '';
  };

  async function refresh(): Promise<void> {
    try {
      const [next, use] = await Promise.all([models.list(), models.storage()]);
      stored = next;
      setText(storage, storageText(use));
    } catch (error) {
      say(sentence(error));
    }
    show();
  }

  function show(): void {
    const ids = new Set<string>();
    for (const model of [...stored, ...coming()]) {
      ids.add(model.id);
      const item = items.get(model.id) ?? createModelItem((action, chosen) => act(action, chosen));
      if (!items.has(model.id)) list.append(item.root);
      items.set(model.id, item);
      showItem(model);
    }
    for (const [id, { root: gone }] of items) {
      if (ids.has(id)) continue;
      // A button that vanishes under the keyboard leaves the focus at the dialog's way out.
      if (gone.contains(document.activeElement)) close.focus();
      gone.remove();
      items.delete(id);
    }
    empty.hidden = ids.size > 0;
  }

  function showItem(model: StoredModel): void {
    const work = working.get(model.id);
    const state: ItemState = {
      model,
      working: work?.kind,
      progress: work?.progress,
      said: outcomes.get(model.id) ?? '',
    };
    items.get(model.id)?.show(state);
  }

  /** Downloads that the list does not know yet. */
  function coming(): StoredModel[] {
    const known = new Set(stored.map(({ id }) => id));
    return [...working].flatMap(([id, { progress }]) => {
      if (known.has(id)) return [];
      const bytes = { sizeBytes: progress?.totalBytes ?? 0, storedBytes: progress?.doneBytes ?? 0 };
      const name = progress?.name ?? 'Reading the manifest';
      return [{ id, name, url: id, license: '', quantization: '', ...bytes, state: 'partial' as const, busy: true }];
    });
  }

  /** Does something with a model and shows how it goes. `key` is its id, or the URL of one that is new. */
  async function run(key: string, kind: ModelWork, url: string): Promise<void> {
    if (working.has(key)) return;
    say('');
    outcomes.delete(key);
    const controller = new AbortController();
    const work: Working = { kind, controller, progress: undefined };
    let current = key;
    working.set(key, work);
    const { signal } = controller;
    const onProgress = (progress: StoreProgress): void => {
      work.progress = progress;
      const known = stored.find(({ id }) => id === progress.id);
      if (current === progress.id && known) {
        showItem(known);
        return;
      }
      working.delete(current);
      current = progress.id;
      working.set(current, work);
      void refresh();
    };
    show();
    try {
      if (kind === 'download') await models.download(url, { signal, onProgress });
      else {
        const found = await models[kind](key, { signal, onProgress });
        outcomes.set(current, kind === 'repair' ? 'Repaired.' : verificationText(found));
      }
    } catch (error) {
      if (!(error instanceof ZoetropeError && error.code === 'aborted')) {
        // A download that failed before its first byte has no entry to show the reason at.
        if (stored.some(({ id }) => id === current)) outcomes.set(current, sentence(error));
        else say(sentence(error));
      }
    } finally {
      working.delete(current);
      await refresh();
    }
  }

  function act(action: ModelAction, model: StoredModel): void {
    const { id, url } = model;
    const work = working.get(id);
    switch (action) {
      case 'pause':
      case 'stop':
        work?.controller.abort();
        break;
      case 'cancel':
        work?.controller.abort();
        void remove(id);
        break;
      case 'resume':
        void run(id, 'download', url!);
        break;
      case 'verify':
      case 'repair':
        void run(id, action, url!);
        break;
      case 'delete':
        void remove(id);
        break;
    }
  }

  async function remove(id: string): Promise<void> {
    const afterwards = onDelete(id);
    try {
      if ((await models.list()).some((model) => model.id === id)) await models.delete(id);
      outcomes.delete(id);
    } catch (error) {
      outcomes.set(id, sentence(error));
    } finally {
      await refresh();
      afterwards();
    }
  }

  return {
    root,
    open() {
      if (!root.open) root.showModal();
      void refresh();
      showImports().catch((error: unknown) => {
        imports = undefined;
        say(sentence(error));
      });
    },
  };
}

function sentence(error: unknown): string {
  return adviceFor(error).message;
}
