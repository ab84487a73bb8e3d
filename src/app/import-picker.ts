import type { ImportInput } from '../index';
import { element } from './element';

/**
 * How a person points at files and folders: with handles, which outlive the page, where the browser has them, else with
 * an input.
 */

type Picked = File | FileSystemFileHandle | FileSystemDirectoryHandle;

/** The pickers of Chromium; TypeScript's library lacks them. */
interface Pickers {
  showOpenFilePicker?(options: { multiple: boolean }): Promise<FileSystemFileHandle[]>;
  showDirectoryPicker?(): Promise<FileSystemDirectoryHandle>;
}

const pickers = (): Pickers => globalThis as Pickers;

/** A person who closes a picker chooses nothing. */
async function orNothing(picked: Promise<Picked[]>): Promise<Picked[]> {
  try {
    return await picked;
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') return [];
    throw error;
  }
}

function fromInput(attributes: { multiple?: boolean; webkitdirectory?: boolean }): Promise<Picked[]> {
  const input = element('input', { type: 'file', ...attributes });
  return new Promise((resolve) => {
    input.addEventListener('change', () => resolve([...(input.files ?? [])]));
    input.addEventListener('cancel', () => resolve([]));
    input.click();
  });
}

/** Lets a person choose files. */
export function chooseFiles(): Promise<Exclude<ImportInput, { role: string }>[]> {
  const picker = pickers().showOpenFilePicker;
  return orNothing(picker ? picker.call(globalThis, { multiple: true }) : fromInput({ multiple: true }));
}

/** Lets a person choose a folder; where there are no handles, its files, whose paths begin with its name. */
export function chooseFolder(): Promise<Exclude<ImportInput, { role: string }>[]> {
  const picker = pickers().showDirectoryPicker;
  return orNothing(picker ? picker.call(globalThis).then((handle) => [handle]) : fromInput({ webkitdirectory: true }));
}
