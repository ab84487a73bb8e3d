import { type ErrorDetail, type ModelInfo, type Request, type ResolvedRequest, requestFields } from '../index';
import { fieldOf } from './advice';
import { type Control, createControl } from './control';
import { element, isDouble } from './element';
import {
  endpointPreset,
  type FormValues,
  groupFields,
  holdsPreset,
  limitsOf,
  recommendedPreset,
  requestOf,
} from './fields';
import { formatPixels } from './format';

/** The request's form. It is made from the library's list of fields and does no checking of its own. */
export interface RequestForm {
  readonly root: HTMLFormElement;
  request(): Request;
  /** Sets fields; those that `values` does not name stay as they are. */
  write(values: FormValues): void;
  /** Shows sizes and missing parts of a model, and starts from its recommended settings unless it was there before. */
  setModel(model: ModelInfo): void;
  /** Whether the button can be pressed, and what it says. */
  setButton(enabled: boolean, text: string): void;
  /** Shows each problem at its field and moves to the first. Without problems, clears them. */
  showProblems(detail: readonly ErrorDetail[]): void;
}

/** What a form tells. */
export interface FormEvents {
  onSubmit(): void;
  /** After every change, also by {@link RequestForm.write} and {@link RequestForm.setModel}. */
  onChange(): void;
}

export function createForm({ onSubmit, onChange }: FormEvents): RequestForm {
  let model: ModelInfo | undefined;
  const controls = new Map<string, Control>();
  const changed = (): void => {
    refresh();
    onChange();
  };
  const groups = groupFields(requestFields).map(({ title, essential, fields }) => {
    const made = fields.map((field) => createControl(field, essential, changed));
    for (const control of made) controls.set(control.field.name, control);
    // What is always in view explains itself.
    const legend = element('legend', essential ? { class: 'spoken' } : {}, title);
    return { essential, root: element('fieldset', { class: 'group' }, legend, ...made.map(({ root }) => root)) };
  });
  const essentials = groups.filter(({ essential }) => essential).map(({ root }) => root);
  const others = groups.filter(({ essential }) => !essential).map(({ root }) => root);

  const recommended = element('button', { type: 'button', onclick: () => apply(recommendedPreset) }, 'Recommended');
  const endpoint = element('button', { type: 'button', onclick: () => apply(endpointPreset) }, 'Endpoint defaults');
  const presets = element(
    'div',
    { class: 'segments', role: 'group', 'aria-label': 'Settings to start from' },
    recommended,
    endpoint,
  );
  const settings = element('details', { class: 'settings' }, element('summary', {}, 'All settings'), ...others);
  // A second click would put the same request in line.
  const once = (event: Event) => isDouble(event) && event.preventDefault();
  const button = element('button', { type: 'submit', class: 'primary', onclick: once }, 'Generate');
  const root = element(
    'form',
    { class: 'request', novalidate: true, 'aria-label': 'Request' },
    essentials[0],
    presets,
    ...essentials.slice(1),
    settings,
    element('div', { class: 'action' }, button),
  );
  root.addEventListener('submit', (event) => {
    event.preventDefault();
    if (button.getAttribute('aria-disabled') !== 'true') onSubmit();
  });
  // In a text field, Enter alone makes a new line.
  root.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.repeat && (event.ctrlKey || event.metaKey)) root.requestSubmit();
  });

  const values = (): FormValues => Object.fromEntries([...controls].map(([name, control]) => [name, control.read()]));
  const write = (next: FormValues): void => {
    for (const [name, value] of Object.entries(next)) controls.get(name)?.write(value);
    changed();
  };
  const apply = (preset: typeof endpointPreset): void => {
    showProblems([]);
    write(preset(requestFields, model?.recommended ?? {}));
  };

  /** Everything on the form that follows from its values and the model. */
  const refresh = (): void => {
    const now = values();
    recommended.disabled = endpoint.disabled = model === undefined;
    if (!model) return;
    const holds = (preset: typeof endpointPreset) =>
      String(holdsPreset(now, preset(requestFields, model?.recommended ?? {})));
    recommended.setAttribute('aria-pressed', holds(recommendedPreset));
    endpoint.setAttribute('aria-pressed', holds(endpointPreset));
    const { sizes, available } = model;
    const { resolution, aspect_ratio } = now as Pick<ResolvedRequest, 'resolution' | 'aspect_ratio'>;
    const pixelsOf = Object.entries(sizes).map(
      ([label, ratios]) => [label, formatPixels(ratios[aspect_ratio])] as const,
    );
    const pixelsAs = Object.entries(sizes[resolution]).map(([label, size]) => [label, formatPixels(size)] as const);
    controls.get('resolution')?.caption(new Map(pixelsOf));
    controls.get('aspect_ratio')?.caption(new Map(pixelsAs));
    for (const control of controls.values()) {
      const { unavailable, note } = limitsOf(control.field.name, now, available);
      control.turnOff(unavailable, note);
    }
  };

  const showProblems = (detail: readonly ErrorDetail[]): void => {
    for (const control of controls.values()) control.showProblem(undefined);
    const wrong = detail.flatMap((problem) => {
      const control = controls.get(fieldOf(problem) ?? '');
      control?.showProblem(problem.msg);
      return control ?? [];
    });
    if (wrong.some((control) => settings.contains(control.root))) settings.open = true;
    wrong[0]?.focus();
  };

  write(endpointPreset(requestFields, { negative_prompt: '' }));
  return {
    root,
    request: () => requestOf(values()),
    write,
    setModel(opened) {
      const known = model?.id === opened.id;
      model = opened;
      if (known) return changed(); // the person's settings stay
      if (values().prompt === '') controls.get('prompt')?.write(opened.recommended.prompt ?? '');
      apply(recommendedPreset);
    },
    setButton(enabled, text) {
      button.setAttribute('aria-disabled', String(!enabled));
      button.textContent = text;
    },
    showProblems,
  };
}
