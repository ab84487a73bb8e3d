import type { Request } from '../index';
import type { Advice } from './advice';
import { fieldOf } from './advice';
import { element } from './element';
import { labelOf } from './fields';

/** An error with the way out: title, what to do, the library's message with its code, and problems of single fields. */
export function createNotice(advice: Advice, again?: { text: string; onclick: () => void }): HTMLElement {
  const { title, message, code, steps, detail } = advice;
  return element(
    'div',
    { class: 'notice', role: 'alert', tabindex: -1 },
    element('h2', {}, title),
    detail.length > 0
      ? element('ul', { class: 'detail' }, ...detail.map((problem) => detailLine(fieldOf(problem), problem.msg)))
      : element('p', {}, message),
    steps.length > 0 ? element('ul', {}, ...steps.map((step) => element('li', {}, step))) : undefined,
    element('p', { class: 'code' }, 'Code ', element('code', {}, code ?? 'unknown')),
    again && element('button', { type: 'button', onclick: again.onclick }, again.text),
  );
}

function detailLine(field: string | undefined, problem: string): HTMLElement {
  if (field === undefined) return element('li', {}, problem);
  return element(
    'li',
    {},
    element('strong', {}, labelOf(field as keyof Request)),
    ' ',
    element('code', {}, field),
    `: ${problem}`,
  );
}
