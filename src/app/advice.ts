/** What went wrong and the way out, in the words of the page. Pure. */
import { type ErrorDetail, ZoetropeError, type ZoetropeErrorCode } from '../index';

/** An error as the page shows it. */
export interface Advice {
  title: string;
  /** The library's own message. */
  message: string;
  /** Absent for errors that are not the library's. */
  code: ZoetropeErrorCode | undefined;
  /** What a person can do, one sentence each. */
  steps: readonly string[];
  /** Problems of single fields. */
  detail: readonly ErrorDetail[];
}

const WORDS: Partial<Record<ZoetropeErrorCode, { title: string; steps: string[] }>> = {
  'bad-request': { title: 'Some settings cannot be used', steps: [] },
  'missing-component': {
    title: 'The model lacks a part',
    steps: ['Interpolators are added under Models, from a file or an address.'],
  },
  'content-policy-violation': { title: 'The prompt was refused', steps: [] },
  'unsupported-device': {
    title: 'No usable WebGPU here',
    steps: [
      'Use Chrome or Edge 123 or newer, Safari 26, or Firefox 141 or newer on Windows and 145 on Apple silicon.',
      'On Linux, Chrome needs version 144 and a recent driver, or the flag chrome://flags/#enable-unsafe-webgpu.',
      'Open the page over https:// or from localhost; browsers hide WebGPU from other addresses.',
      'Turn on graphics acceleration in the browser’s system settings and restart it.',
    ],
  },
  'unsupported-codec': {
    title: 'No video encoder fits',
    steps: [
      'Use a desktop version of Chrome, Edge, Safari or Firefox; Firefox for Android has no video encoder.',
      'Try a smaller resolution or a lower frame rate.',
    ],
  },
  'unreadable-source': {
    title: 'The model cannot be read',
    steps: [
      'Check that the address after ?model= is a folder that holds zoetrope.json, and that its server allows this page.',
    ],
  },
  'corrupt-data': {
    title: 'The model’s files are damaged',
    steps: [
      'If the model is stored in this browser, open Models and press Verify, then Resume.',
      'Otherwise reload the page; if it happens again, put the model folder in place again.',
    ],
  },
  'bad-checkpoint': {
    title: 'The model cannot be used',
    steps: ['Import the checkpoint again with “npx zoetrope import”.'],
  },
  'storage-full': {
    title: 'Not enough storage',
    steps: ['Delete another model under Models, or free space on the disk.'],
  },
  'storage-unavailable': { title: 'No storage here', steps: [] },
  'model-in-use': { title: 'The model is in use', steps: [] },
  'device-lost': {
    title: 'The GPU went away',
    steps: ['Restart the browser, open this page again and press Continue: what was computed is kept.'],
  },
  'out-of-memory': {
    title: 'The GPU is out of memory',
    steps: ['Choose fewer frames or a smaller resolution.', 'Close other tabs and programs that use the GPU.'],
  },
  'encoding-failed': {
    title: 'The video could not be encoded',
    steps: ['Press Generate again, with another quality if it repeats.'],
  },
  'worker-died': { title: 'The engine stopped', steps: [] },
  internal: { title: 'A fault of Zoetrope', steps: ['Please report it with the message above.'] },
};

/** Explains anything that was thrown. */
export function adviceFor(error: unknown): Advice {
  if (!(error instanceof ZoetropeError)) {
    const message = error instanceof Error ? error.message : String(error);
    return { title: 'Something went wrong', message, code: undefined, steps: [], detail: [] };
  }
  const { code, message, detail } = error;
  const { title, steps } = WORDS[code] ?? { title: 'Something went wrong', steps: [] };
  return { title, message, code, steps, detail };
}

/**
 * The field that a problem is about: `num_frames` of `['body', 'num_frames']`; undefined for the request as a whole.
 */
export function fieldOf({ loc }: ErrorDetail): string | undefined {
  const [, name] = loc;
  return typeof name === 'string' ? name : undefined;
}
