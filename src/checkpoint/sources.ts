import { parseVaeConfig, type VaeConfig } from '../config';
import { throwIfAborted, ZoetropeError } from '../errors';
import type { ByteSource, Folder } from '../manifest';
import { partsAsSource } from './byte-parts';
import { checkTokenizer, MAX_CONFIG_BYTES, MAX_TOKENIZER_BYTES, readSmall } from './diffusers';
import { type FileTensors, fromSafetensors, openTensors } from './file-tensors';
import { identify, type Part } from './identify';
import { parseObject } from './json';
import { openIfThere, openSharded } from './safetensors';
import { hasVocabulary, tokenizerFromGguf, tokenizerFromSentencePiece } from './sentencepiece';

/** Something that a person points at: a file or a folder, on a disk, a server or in a browser. */
export interface ImportSource {
  /** Path or URL: for messages, and because nothing but its name tells the high-noise expert from the low-noise one. */
  path: string;
  file?: ByteSource;
  folder?: Folder;
  /** What the person says it is, where the name does not. */
  role?: 'high' | 'low' | undefined;
}

/** A component as it was found. */
export interface FoundPart {
  path: string;
  part: Part;
  tensors: FileTensors;
  role: 'high' | 'low' | undefined;
  /** Whether it was named as a file of its own: such a part goes before one that a folder happens to hold. */
  explicit: boolean;
}

/** A vocabulary, as `tokenizer.json`; made or checked only when it is needed. */
export interface FoundTokenizer {
  path: string;
  /** 2 named as a file, 1 in a folder, 0 carried along by a text encoder. */
  rank: 0 | 1 | 2;
  open(): Promise<ByteSource>;
}

/** Everything that was found in the sources. */
export interface Found {
  parts: FoundPart[];
  tokenizers: FoundTokenizer[];
  vaeConfig: VaeConfig | undefined;
}

/** Largest SentencePiece model read; UMT5's has 4.5 MB. */
const MAX_SENTENCEPIECE_BYTES = 32 * 1024 * 1024;

/** Where folders keep their parts: diffusers pipelines and their subfolders, and Wan's own release. */
const PLACES: readonly [directory: string, stem: string][] = [
  ['', 'diffusion_pytorch_model'],
  ['', 'model'],
  ['transformer', 'diffusion_pytorch_model'],
  ['transformer_2', 'diffusion_pytorch_model'],
  ['high_noise_model', 'diffusion_pytorch_model'],
  ['low_noise_model', 'diffusion_pytorch_model'],
  ['text_encoder', 'model'],
  ['vae', 'diffusion_pytorch_model'],
];
const ROLES: Readonly<Record<string, 'high' | 'low'>> = {
  transformer: 'high',
  transformer_2: 'low',
  high_noise_model: 'high',
  low_noise_model: 'low',
};
const TOKENIZERS = ['tokenizer.json', 'tokenizer/tokenizer.json', 'google/umt5-xxl/tokenizer.json'];
const SENTENCEPIECES = ['spiece.model', 'tokenizer/spiece.model', 'google/umt5-xxl/spiece.model'];

/** Words of a name: "Wan2.2-T2V-HighNoise_Q4" has "high" and "noise". */
function words(name: string): string[] {
  return name
    .replace(/([a-z])([A-Z])/g, '$1 $2')
    .toLowerCase()
    .split(/[^a-z]+/);
}

/**
 * The expert that a path names: its last part that is a known folder, or has exactly one of the words "high" and "low",
 * decides.
 */
export function roleOf(path: string): 'high' | 'low' | undefined {
  for (const name of path.split(/[\\/]/).reverse()) {
    if (Object.hasOwn(ROLES, name)) return ROLES[name];
    const all = words(name);
    const high = all.includes('high');
    if (high !== all.includes('low')) return high ? 'high' : 'low';
  }
  return undefined;
}

/**
 * Weight files that lie in a folder one by one, by the names in it; none where the folder has a layout of its own, and
 * its parts are found by {@link findParts}.
 */
export function looseWeights(names: readonly string[]): string[] {
  const known = names.some((name) => /^(model_index|config|tokenizer|.*\.index)\.json$|^spiece\.model$/.test(name));
  const parts = names.some((name) => /^(transformer|high_noise_model|text_encoder|vae|tokenizer)$/.test(name));
  const files = names.filter((name) => /\.(safetensors|gguf)$/i.test(name)).sort();
  const plain = files.some((name) => /^(diffusion_pytorch_)?model\.safetensors$/.test(name));
  return known || parts || plain ? [] : files;
}

function addTensors(found: Found, tensors: FileTensors, at: Omit<FoundPart, 'part' | 'tensors'>): void {
  const part = identify(tensors);
  found.parts.push({ ...at, part, tensors });
  if (part.kind !== 'text_encoder') return;
  const embedded = tensors.tensors.get('spiece_model');
  if (embedded?.readBytes && embedded.sizeBytes <= MAX_SENTENCEPIECE_BYTES) {
    const open = async () =>
      partsAsSource(tokenizerFromSentencePiece(await embedded.readBytes!(), `${at.path}: "spiece_model"`));
    found.tokenizers.push({ path: at.path, rank: 0, open });
  }
  if (hasVocabulary(tensors.keys)) {
    const open = async () => partsAsSource(tokenizerFromGguf(tensors.keys, at.path));
    found.tokenizers.push({ path: at.path, rank: 0, open });
  }
}

function addTokenizer(found: Found, file: ByteSource, path: string, rank: 1 | 2): void {
  const open = async () => {
    if (!path.endsWith('.model')) return checkTokenizer(await readSmall(file, path, MAX_TOKENIZER_BYTES), path);
    return partsAsSource(tokenizerFromSentencePiece(await readSmall(file, path, MAX_SENTENCEPIECE_BYTES), path));
  };
  found.tokenizers.push({ path, rank, open });
}

async function addJson(found: Found, file: ByteSource, path: string): Promise<void> {
  const json = parseObject(await readSmall(file, path, MAX_TOKENIZER_BYTES), path);
  if (json._class_name === 'AutoencoderKLWan') found.vaeConfig = parseVaeConfig(json, path);
  else if (json.model !== undefined) addTokenizer(found, file, path, 2);
  else {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${path} is neither a tokenizer.json nor the config.json of a VAE. Other JSON files are not needed; give the folder instead of its index.`,
    );
  }
}

async function addFolder(found: Found, { path, folder, role }: ImportSource, signal?: AbortSignal): Promise<void> {
  const before = found.parts.length + found.tokenizers.length;
  for (const [directory, stem] of PLACES) {
    throwIfAborted(signal);
    const within = directory === '' ? '' : `${directory}/`;
    const first = `${within}${stem}.safetensors`;
    if (!(await openIfThere(folder!, first)) && !(await openIfThere(folder!, `${first}.index.json`))) continue;
    const where = `${path.replace(/\/$/, '')}/${directory}`.replace(/\/$/, '');
    const tensors = await fromSafetensors(await openSharded(folder!, directory, stem, signal), where);
    addTensors(found, tensors, { path: where, role: role ?? roleOf(where), explicit: false });
    const config = await openIfThere(folder!, `${within}config.json`);
    if (config && found.parts[found.parts.length - 1]!.part.kind === 'vae') {
      const text = await readSmall(config, `${where}/config.json`, MAX_CONFIG_BYTES);
      found.vaeConfig ??= parseVaeConfig(parseObject(text, `${where}/config.json`), `${where}/config.json`);
    }
  }
  for (const name of [...TOKENIZERS, ...SENTENCEPIECES]) {
    const file = await openIfThere(folder!, name);
    if (file) addTokenizer(found, file, `${path.replace(/\/$/, '')}/${name}`, 1);
  }
  if (found.parts.length + found.tokenizers.length > before) return;
  throw new ZoetropeError(
    'unreadable-source',
    `${path} holds no part of a Wan checkpoint in a known place (${PLACES.map(([directory, stem]) => `${directory === '' ? '' : `${directory}/`}${stem}.safetensors`).join(', ')}). Name its files one by one.`,
  );
}

/**
 * Opens the sources and recognises what they hold, without reading weights. Throws `bad-checkpoint` and
 * `unreadable-source`.
 */
export async function findParts(sources: readonly ImportSource[], signal?: AbortSignal): Promise<Found> {
  const found: Found = { parts: [], tokenizers: [], vaeConfig: undefined };
  for (const source of sources) {
    throwIfAborted(signal);
    const { path, file } = source;
    if (!file) await addFolder(found, source, signal);
    else if (/\.json$/i.test(path)) await addJson(found, file, path);
    else if (/\.model$/i.test(path)) addTokenizer(found, file, path, 2);
    else {
      const tensors = await openTensors(file, path, signal);
      addTensors(found, tensors, { path, role: source.role ?? roleOf(path), explicit: true });
    }
  }
  return found;
}
