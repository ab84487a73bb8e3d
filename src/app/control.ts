import type { RequestField } from '../index';
import { element, setText } from './element';
import { type FieldValue, labelOf, parseText, rangeOf } from './fields';

/** One field of the request on the page: label, input, range, and room for a note and a problem. */
export interface Control {
  readonly field: RequestField;
  readonly root: HTMLElement;
  read(): FieldValue;
  write(value: FieldValue): void;
  /** Shows what is wrong with the value, or nothing. */
  showProblem(problem: string | undefined): void;
  /**
   * Turns off the values that cannot be had, and says why in `note`. A value that is chosen stays, to be changed by the
   * person.
   */
  turnOff(values: readonly FieldValue[], note: string): void;
  /** Second line of the options of an enum, e.g. the pixels that each stands for. */
  caption(captions: ReadonlyMap<string, string>): void;
  focus(): void;
}

/** The part of a control that differs between kinds. */
type Input = Pick<Control, 'read' | 'write' | 'focus'> &
  Partial<Pick<Control, 'caption'>> & {
    /** Placed under the label, a checkbox beside it. */
    body: HTMLElement;
    /** The elements that a screen reader connects with explanation and problem. */
    described: HTMLElement;
    turnOff?(values: readonly FieldValue[]): void;
  };

/**
 * Makes the control of a field.
 *
 * @param brief keeps the description for screen readers and the label's tooltip, where space is short and names
 * suffice.
 * @param onChange is called after every change by the person.
 */
export function createControl(field: RequestField, brief: boolean, onChange: () => void): Control {
  const id = `field-${field.name}`;
  const changed = () => {
    showProblem(undefined);
    onChange();
  };
  const input = createInput(field, id, changed);
  const hint = element('p', { class: brief ? 'hint spoken' : 'hint', id: `${id}-hint` }, field.description);
  if (!brief) hint.append(' ', element('code', { 'aria-hidden': 'true' }, field.name));
  const note = element('p', { class: 'note', id: `${id}-note`, hidden: true });
  const error = element('p', { class: 'problem', id: `${id}-problem`, hidden: true });
  input.described.setAttribute('aria-describedby', `${hint.id} ${note.id} ${error.id}`);
  const showProblem = (problem: string | undefined): void => {
    setText(error, problem ?? '');
    error.hidden = problem === undefined;
    if (problem === undefined) input.described.removeAttribute('aria-invalid');
    else input.described.setAttribute('aria-invalid', 'true');
  };

  const label = labelOf(field.name);
  const range = element('span', { class: 'range' }, rangeOf(field));
  const title = brief ? field.description : undefined;
  // The label of a group of radio buttons is its legend; the row that is seen is within it.
  const grouped = field.kind === 'enum';
  const name = element(grouped ? 'span' : 'label', { class: 'label', for: grouped ? undefined : id }, label);
  const beside = field.kind === 'boolean';
  const row = element('div', { class: 'head', title }, beside ? input.body : undefined, name, range);
  const root = element(grouped ? 'fieldset' : 'div', { class: 'field' }, grouped ? element('legend', {}, row) : row);
  if (!beside) root.append(input.body);
  root.append(hint, note, error);

  return {
    field,
    root,
    read: input.read,
    write: input.write,
    focus: input.focus,
    showProblem,
    turnOff(values, text) {
      input.turnOff?.(values);
      setText(note, text);
      note.hidden = text === '';
    },
    caption: (captions) => input.caption?.(captions),
  };
}

function createInput(field: RequestField, id: string, changed: () => void): Input {
  switch (field.kind) {
    case 'string':
      return textInput(field, id, changed);
    case 'enum':
      return choiceInput(field, id, changed);
    case 'boolean':
      return switchInput(id, changed);
    default:
      return field.name === 'seed' ? numberInput(field, id, changed) : rangeInput(field, id, changed);
  }
}

function textInput(field: RequestField, id: string, changed: () => void): Input {
  const placeholder = field.name === 'prompt' ? 'a red circle moving right on a black background' : field.description;
  const rows = field.name === 'prompt' ? 3 : 1;
  const body = element('textarea', { id, rows, placeholder, spellcheck: 'true', oninput: changed });
  return {
    body,
    described: body,
    read: () => body.value,
    write: (value) => {
      body.value = String(value ?? '');
    },
    focus: () => body.focus(),
  };
}

function numberInput(field: RequestField, id: string, changed: () => void): Input {
  const { min, max, kind } = field;
  const body = element('input', {
    type: 'number',
    id,
    min,
    max,
    step: kind === 'integer' ? 1 : 0.1,
    inputmode: kind === 'integer' ? 'numeric' : 'decimal',
    placeholder: field.default === undefined ? 'random' : String(field.default),
    oninput: changed,
  });
  return {
    body,
    described: body,
    // The browser hides text that is no number; the library is told that there was some.
    read: () => (body.validity.badInput ? Number.NaN : parseText(kind, body.value)),
    write: (value) => {
      body.value = value === undefined ? '' : String(value);
    },
    focus: () => body.focus(),
  };
}

/**
 * A number with a slider beside it. The slider is for fingers and mice; keyboards and screen readers use the number.
 */
function rangeInput(field: RequestField, id: string, changed: () => void): Input {
  const step = field.kind === 'integer' ? 1 : 0.1;
  const slider = element('input', {
    type: 'range',
    min: field.min,
    max: field.max,
    step,
    tabindex: -1,
    'aria-hidden': 'true',
    oninput: () => {
      number.write(Number(slider.value));
      paint();
      changed();
    },
  });
  const paint = (): void => {
    const share = (Number(slider.value) - field.min!) / (field.max! - field.min!);
    slider.style.setProperty('--share', share.toFixed(4));
  };
  const follow = (): void => {
    slider.value = String(number.read() ?? field.default);
    paint();
  };
  const number = numberInput(field, id, () => {
    follow();
    changed();
  });
  return {
    ...number,
    body: element('div', { class: 'pair' }, slider, number.body),
    write: (value) => {
      number.write(value);
      follow();
    },
  };
}

function switchInput(id: string, changed: () => void): Input {
  const box = element('input', { type: 'checkbox', id, onchange: changed });
  return {
    body: box,
    described: box,
    read: () => box.checked,
    write: (value) => {
      box.checked = value === true;
    },
    focus: () => box.focus(),
    turnOff: (values) => {
      box.disabled = values.includes(true) && !box.checked;
    },
  };
}

/**
 * Radio buttons in a row. The interpolator has one more for "left out", which is what its absence from a request means.
 */
function choiceInput(field: RequestField, id: string, changed: () => void): Input {
  const options = field.name === 'interpolator_model' ? ['', ...field.options!] : field.options!;
  const captions = new Map<string, HTMLElement>();
  const radios = options.map((option, index) =>
    element('input', { type: 'radio', id: `${id}-${index}`, name: field.name, value: option, onchange: changed }),
  );
  const body = element('div', { class: 'segments', role: 'radiogroup', 'aria-label': labelOf(field.name) });
  for (const radio of radios) {
    const caption = element('small');
    captions.set(radio.value, caption);
    body.append(element('label', {}, radio, element('span', {}, radio.value || 'best available', caption)));
  }
  const chosen = () => radios.find((radio) => radio.checked);
  return {
    body,
    described: body,
    read: () => parseText(field.kind, chosen()?.value ?? ''),
    write: (value) => {
      for (const radio of radios) radio.checked = radio.value === String(value ?? '');
    },
    focus: () => (chosen() ?? radios[0])?.focus(),
    caption: (texts) => {
      for (const [option, caption] of captions) setText(caption, texts.get(option) ?? '');
    },
    turnOff: (values) => {
      for (const radio of radios) radio.disabled = values.includes(radio.value) && !radio.checked;
    },
  };
}
