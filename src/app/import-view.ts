import './import.css';
import {
  type ImportInput,
  type ImportOutlook,
  type ModelInfo,
  models,
  type StoreProgress,
  ZoetropeError,
} from '../index';
import { adviceFor } from './advice';
import { element, setText } from './element';
import { formatBytes } from './format';
import { createUnfinishedList } from './import-lists';
import { chooseFiles, chooseFolder } from './import-picker';
import { foundText, outlookText } from './import-text';
import { progressText } from './models-text';

/** The import part of the models screen. It is fetched when that screen is first opened. */
export interface ImportView {
  readonly root: HTMLElement;
  /** Reads anew what is unfinished and which interpolators are there. */
  refresh(): void;
}

export interface ImportEvents {
  /** Optional parts of the open model; undefined where none is open. */
  available(): ModelInfo['available'] | undefined;
  /** The store has changed: another model, or another interpolator, which an open model does not see yet. */
  onChange(change: 'model' | 'part'): void;
}

/** A source as it was chosen. */
interface Chosen {
  name: string;
  input: Exclude<ImportInput, { role: string }>;
  role: 'high' | 'low' | undefined;
}

type Quantization = 'q8' | 'q4' | 'f16';

export function createImportView(events: ImportEvents): ImportView {
  let chosen: Chosen[] = [];
  let outlook: ImportOutlook | undefined;
  let controller: AbortController | undefined;
  /** Counts what was chosen, so that an answer about earlier sources is passed over. */
  let turn = 0;

  const address = element('input', { type: 'url', id: 'import-address', 'aria-describedby': 'import-hint' });
  const addressForm = element(
    'form',
    { class: 'addressed', novalidate: true },
    address,
    element('button', { type: 'submit' }, 'Add'),
  );
  const list = element('ul', { 'aria-label': 'Chosen sources' });
  const found = element('ul', { class: 'hint', 'aria-label': 'What was recognised' });
  const verdict = element('p', { class: 'note', role: 'status', hidden: true });
  const quantization = element('select', { id: 'import-quant' });
  const name = element('input', { type: 'text', id: 'import-name', maxlength: 200 });
  const license = element('input', { type: 'text', id: 'import-license', maxlength: 200, placeholder: 'unknown' });
  const settings = element(
    'div',
    { class: 'import-settings', hidden: true },
    element('label', {}, 'Matrices', quantization),
    element('label', {}, 'Name', name),
    element('label', {}, 'Licence', license),
  );
  const start = element('button', { type: 'button', class: 'primary', onclick: () => void begin() }, 'Import');
  const pause = element('button', { type: 'button', onclick: () => controller?.abort() }, 'Pause');
  const clear = element('button', { type: 'button', onclick: () => choose([]) }, 'Clear');
  const bar = element('progress', { max: 1, hidden: true, 'aria-label': 'Progress of the import' });
  const state = element('p', { class: 'clock', role: 'status', hidden: true });
  const problem = element('p', { class: 'problem', role: 'alert', hidden: true });
  const unfinished = createUnfinishedList({
    available: events.available,
    onContinue: (id) => void work((options) => models.resume(id, options)),
    onChooseAgain(import_, advice) {
      name.value = import_.name;
      license.value = import_.license === 'unknown' ? '' : import_.license;
      fillQuantization(import_.quantization);
      say(state, advice);
    },
    onDelete: (id) => void remove(id),
  });
  const root = element(
    'section',
    { class: 'import', 'aria-labelledby': 'import-title' },
    element('h3', { id: 'import-title' }, 'Import weights'),
    element(
      'p',
      { class: 'hint', id: 'import-hint' },
      'Wan as it is published: safetensors or GGUF files, a diffusers folder, or their addresses. Also the files of an interpolator.',
    ),
    element(
      'div',
      { class: 'actions' },
      element('button', { type: 'button', onclick: () => void add(chooseFiles()) }, 'Choose files'),
      element('button', { type: 'button', onclick: () => void add(chooseFolder()) }, 'Choose a folder'),
    ),
    element('label', { class: 'label', for: 'import-address' }, 'Or an address'),
    addressForm,
    list,
    found,
    verdict,
    settings,
    bar,
    state,
    problem,
    element('div', { class: 'actions' }, start, pause, clear),
    unfinished.root,
  );
  addressForm.addEventListener('submit', (event) => {
    event.preventDefault();
    const url = address.value.trim();
    if (url === '') return;
    address.value = '';
    void add(Promise.resolve([url]));
  });
  showButtons();

  function say(target: HTMLElement, text: string): void {
    setText(target, text);
    target.hidden = text === '';
  }

  async function add(inputs: Promise<Chosen['input'][]>): Promise<void> {
    try {
      const added = (await inputs).map((input) => ({ name: nameOf(input), input, role: undefined }));
      if (added.length > 0) choose([...chosen, ...added]);
    } catch (error) {
      say(problem, sentence(error));
    }
  }

  function choose(next: Chosen[]): void {
    chosen = next;
    outlook = undefined;
    say(problem, '');
    void look();
  }

  /** Asks what the sources are, and shows it. */
  async function look(): Promise<void> {
    const mine = ++turn;
    say(verdict, chosen.length > 0 ? 'Reading the headers' : '');
    showChosen();
    showButtons();
    if (chosen.length === 0) return;
    try {
      const answer = await models.inspect(inputs());
      if (mine !== turn) return;
      outlook = answer;
      say(verdict, outlookText(answer));
      if (answer.modelBytes) fillQuantization((quantization.value || 'q8') as Quantization);
      if (name.value === '') name.placeholder = chosen[0]!.name.replace(/\.(safetensors|gguf)$/i, '');
    } catch (error) {
      if (mine !== turn) return;
      say(verdict, '');
      say(problem, sentence(error));
    }
    showChosen();
    showButtons();
  }

  function inputs(): ImportInput[] {
    return chosen.map(({ input, role }) => (role ? { from: input, role } : input));
  }

  function fillQuantization(selected: Quantization): void {
    const bytes = (form: Quantization) =>
      outlook?.modelBytes ? `, ${formatBytes(outlook.modelBytes[form])} at most` : '';
    const forms = [
      ['q8', '8 bits'],
      ['q4', '4 bits'],
      ['f16', '16 bits'],
    ] as const;
    quantization.replaceChildren(
      ...forms.map(([form, text]) =>
        element('option', { value: form, selected: form === selected }, text + bytes(form)),
      ),
    );
  }

  function showChosen(): void {
    const experts = outlook?.found.filter(({ kind }) => kind === 'dit') ?? [];
    const unclear = experts.length > 1 && (experts.some(({ role }) => !role) || chosen.some(({ role }) => role));
    // What a folder's many files are is said below; their names say little.
    const folders = new Set(chosen.map(({ name }) => name));
    list.replaceChildren(
      ...[...folders].map((own) => {
        const entry = chosen.find((each) => each.name === own)!;
        return element('li', { class: 'row' }, element('span', {}, own), unclear ? roleOf(entry) : undefined);
      }),
    );
    found.replaceChildren(...(outlook?.found ?? []).map((part) => element('li', {}, foundText(part))));
  }

  function roleOf(entry: Chosen): HTMLElement {
    const options = [
      ['', 'Expert: as named'],
      ['high', 'High-noise expert'],
      ['low', 'Low-noise expert'],
    ] as const;
    const select = element(
      'select',
      { 'aria-label': `Expert in ${entry.name}` },
      ...options.map(([value, text]) => element('option', { value, selected: value === (entry.role ?? '') }, text)),
    );
    select.addEventListener('change', () => {
      entry.role = select.value === '' ? undefined : (select.value as 'high' | 'low');
      void look();
    });
    return select;
  }

  function showButtons(): void {
    const ready = outlook?.part !== undefined || outlook?.modelBytes !== undefined;
    start.hidden = controller !== undefined || chosen.length === 0;
    start.disabled = !ready;
    pause.hidden = controller === undefined;
    clear.hidden = controller !== undefined || chosen.length === 0;
    settings.hidden = outlook?.modelBytes === undefined || controller !== undefined;
    bar.hidden = controller === undefined;
  }

  async function begin(): Promise<void> {
    const part = outlook?.part;
    const wanted = {
      name: name.value.trim() || name.placeholder,
      quantization: (quantization.value || 'q8') as Quantization,
      license: license.value.trim() || 'unknown',
    };
    const done = await work((options) => models.import(inputs(), wanted, options), part);
    if (!done) return;
    name.value = '';
    license.value = '';
    choose([]);
  }

  /** Runs an import and shows how it goes; gives whether it came to its end. */
  async function work(
    run: (options: { signal: AbortSignal; onProgress: (progress: StoreProgress) => void }) => Promise<string>,
    part?: 'film' | 'rife',
  ): Promise<boolean> {
    if (controller) return false;
    controller = new AbortController();
    say(problem, '');
    say(state, 'Starting');
    bar.removeAttribute('value');
    showButtons();
    const onProgress = (progress: StoreProgress): void => {
      bar.value = progress.doneBytes / progress.totalBytes;
      say(state, progressText(progress));
    };
    try {
      await run({ signal: controller.signal, onProgress });
      say(state, part ? `${part.toUpperCase()} was added.` : 'Imported.');
      events.onChange(part ? 'part' : 'model');
      return true;
    } catch (error) {
      const paused = error instanceof ZoetropeError && error.code === 'aborted';
      say(state, paused ? 'Paused. The same import goes on where it stopped.' : '');
      if (!paused) say(problem, sentence(error));
      return false;
    } finally {
      controller = undefined;
      showButtons();
      void unfinished.refresh();
    }
  }

  async function remove(id: string): Promise<void> {
    try {
      await models.delete(id);
      if (id.startsWith('part-')) events.onChange('part');
    } catch (error) {
      say(problem, sentence(error));
    } finally {
      void unfinished.refresh();
    }
  }

  return { root, refresh: () => void unfinished.refresh() };
}

function nameOf(input: Chosen['input']): string {
  if (typeof input === 'string' || input instanceof URL) return String(input).replace(/[?#].*$/s, '');
  if (input instanceof File) return input.webkitRelativePath.split('/')[0] || input.name;
  return input.name;
}

function sentence(error: unknown): string {
  return adviceFor(error).message;
}
