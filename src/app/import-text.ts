/** Imports in words. Pure. */
import type { ImportOutlook, Inspection, ModelInfo, StoredPart, UnfinishedImport } from '../index';
import { formatBytes } from './format';

const VARIANTS: Readonly<Record<string, string>> = {
  a14b: 'Wan 2.2 A14B',
  '14b': 'Wan 2.1 14B',
  '1.3b': 'Wan 2.1 1.3B',
  custom: 'Wan’s architecture in other sizes',
};

/** What a part was recognised as: `a.gguf: high-noise expert, Wan 2.2 A14B, GGUF, 9.65 GB`. */
export function foundText({ path, format, kind, why, role, variant, storage }: Inspection): string {
  if (kind === null) return `${path}: ${why ?? 'not recognised'}`;
  const bytes = Object.values(storage).reduce((sum, entry) => sum + entry.bytes, 0);
  const expert = role === undefined ? 'diffusion model' : `${role}-noise expert`;
  const what = kind === 'dit' ? [expert, VARIANTS[variant ?? 'custom']] : [kind === 'vae' ? 'VAE' : 'text encoder'];
  return `${path}: ${[...what, format, formatBytes(bytes)].join(', ')}`;
}

/** What the sources come to. */
export function outlookText({ part, modelBytes, experts, problem }: ImportOutlook): string {
  if (part) return `These are the weights of ${part.toUpperCase()}, for frames between frames.`;
  if (!modelBytes) return problem ?? '';
  return experts === 2 ? 'A whole model with two experts.' : 'A whole model with one expert.';
}

/** `2.40 GB of at most 9.80 GB, from Wan2.2-T2V-A14B-Diffusers`. */
export function unfinishedText({ storedBytes, sizeBytes, sources, busy }: UnfinishedImport): string {
  if (busy) return 'Being imported in another tab';
  const from = sources.length > 0 ? `, from ${sources.join(', ')}` : '';
  return `${formatBytes(storedBytes)} of at most ${formatBytes(sizeBytes)}${from}`;
}

/** What to do where the browser does not remember the sources of an import. */
export function chooseAgainText({ sources }: UnfinishedImport): string {
  return `Choose ${sources.join(', ')} again and press Import; it goes on where it stopped.`;
}

/** An interpolator on the screen. */
export interface PartState {
  part: 'film' | 'rife';
  /** In this browser's storage, where it can be deleted. */
  stored: StoredPart | undefined;
  text: string;
}

const PARTS = [
  ['film', 'FILM', 'film_net_fp16.safetensors'],
  ['rife', 'RIFE', 'rife_v4.25.safetensors, or flownet.param and flownet.bin'],
] as const;

/** Which interpolators are there, and how one that is not is added. `available` is that of the open model. */
export function partStates(stored: readonly StoredPart[], available: ModelInfo['available'] | undefined): PartState[] {
  return PARTS.map(([part, name, files]) => {
    const own = stored.find((entry) => entry.part === part);
    if (own) return { part, stored: own, text: `${own.name}: stored in this browser, ${formatBytes(own.sizeBytes)}` };
    if (available?.[part]) return { part, stored: undefined, text: `${name}: comes with the model` };
    const where = available ? 'not there' : 'not stored in this browser';
    return { part, stored: undefined, text: `${name}: ${where}. Add ${files} above, as files or by address.` };
  });
}
