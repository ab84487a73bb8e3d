import { type Generation, requestFields } from '../index';
import { element, setText } from './element';
import { formatBytes, formatPixels } from './format';
import { timingText } from './progress-text';
import { requestCode, requestJson } from './snippet';

/** What a finished video offers beside the player. */
export interface ResultOptions {
  /** URL of the model folder, for the code. */
  model: string;
  onUseSeed(seed: number): void;
}

/** A generation and the pixels of its video. */
export interface Result {
  generation: Generation;
  size: readonly [width: number, height: number];
}

/**
 * Download, seed, timings, and the request as JSON and as code.
 * @param frames controls of the player, shown first.
 */
export function createResult(
  { generation, size }: Result,
  { model, onUseSeed }: ResultOptions,
  frames?: HTMLElement,
): HTMLElement {
  const { video, prompt, seed, request, timings, codec } = generation;
  const download = element(
    'a',
    { class: 'primary', href: video.url, download: video.file_name },
    `Download MP4, ${formatBytes(video.file_size)}`,
  );
  const useSeed = element('button', { type: 'button', onclick: () => onUseSeed(seed) }, 'Use again');
  const facts = element(
    'dl',
    { class: 'facts' },
    fact('Seed', element('span', {}, String(seed), ' ', useSeed)),
    fact('Video', `${formatPixels(size)}, ${request.num_frames} generated frames, ${codec}`),
    fact('Time', timingText(timings)),
  );
  return element(
    'div',
    { class: 'result' },
    frames,
    element('p', { class: 'prompt' }, prompt || 'Empty prompt'),
    element('div', { class: 'row' }, download),
    facts,
    createCopy('Request as JSON', requestJson(request)),
    createCopy('Request as code', requestCode(request, requestFields, model)),
  );
}

function fact(name: string, value: Node | string): HTMLElement {
  return element('div', {}, element('dt', {}, name), element('dd', {}, value));
}

/** Text with a button that copies it. The text is there to be seen, also for when the browser refuses the clipboard. */
function createCopy(title: string, text: string): HTMLElement {
  const said = element('span', { class: 'said', role: 'status' });
  const details = element(
    'details',
    { class: 'copy' },
    element('summary', {}, title),
    element('pre', { tabindex: 0, 'aria-label': title }, text),
  );
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text);
      setText(said, 'Copied');
    } catch {
      details.open = true;
      setText(said, 'The browser refused; select the text and copy it.');
    }
  };
  const button = element(
    'button',
    { type: 'button', 'aria-label': `Copy: ${title}`, onclick: () => void copy() },
    'Copy',
  );
  return element('div', { class: 'copyable' }, details, element('div', { class: 'row' }, said, button));
}
