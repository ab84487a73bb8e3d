import {
  checkDitConfig,
  type DitConfig,
  ditShapes,
  parseDitConfig,
  parseUmt5Config,
  parseVaeConfig,
  type Umt5Config,
  umt5Shapes,
  type VaeConfig,
  vaeShapes,
} from '../config';
import { shown, ZoetropeError } from '../errors';
import { type ByteSource, checkLayers, type Folder } from '../manifest';
import { type FileTensors, fromSafetensors } from './file-tensors';
import { parseObject } from './json';
import { DIFFUSERS_DIT, diffusersVae, HUGGING_FACE_UMT5 } from './names';
import { openSharded } from './safetensors';
import { type Checkpoint, nameWeights, type Weights } from './weights';

/** Largest configuration file read; real ones have a few kB. */
export const MAX_CONFIG_BYTES = 1024 * 1024;
/** Largest `tokenizer.json` read; UMT5's has 16,837,417 bytes. */
export const MAX_TOKENIZER_BYTES = 64 * 1024 * 1024;

type Json = Record<string, unknown>;

function refuse(message: string): never {
  throw new ZoetropeError('bad-checkpoint', message);
}

/** The whole of a small file. Throws `bad-checkpoint` when it is larger than allowed. */
export async function readSmall(file: ByteSource, path: string, limitBytes: number): Promise<Uint8Array> {
  if (file.sizeBytes > limitBytes) refuse(`${path} has ${file.sizeBytes} bytes; at most ${limitBytes} are read.`);
  return file.read(0, file.sizeBytes);
}

async function readBounded(folder: Folder, path: string, limitBytes: number): Promise<Uint8Array> {
  return readSmall(await folder.open(path), path, limitBytes);
}

async function readJson(folder: Folder, path: string): Promise<Json> {
  return parseObject(await readBounded(folder, path, MAX_CONFIG_BYTES), path);
}

/** Whether model_index.json lists a part; diffusers writes an absent one as null or [null, null]. */
function hasPart(index: Json, part: string): boolean {
  const value = index[part];
  return Array.isArray(value) ? value.some((entry) => entry !== null) : value !== undefined && value !== null;
}

/** Reads boundary_ratio, and refuses pipelines for other inputs by name. */
function readBoundary(index: Json): number | null {
  const pipeline = index._class_name;
  if (pipeline !== 'WanPipeline') {
    const image = pipeline === 'WanImageToVideoPipeline';
    const what = image ? 'an image-to-video model' : `a pipeline of class ${shown(pipeline)}`;
    refuse(`model_index.json: this is ${what}; Zoetrope runs WanPipeline, text to video. Use the T2V release.`);
  }
  if (index.expand_timesteps === true) {
    refuse('model_index.json: this is TI2V-5B (expand_timesteps). Use Wan 2.2 T2V A14B or Wan 2.1 T2V.');
  }
  if (!hasPart(index, 'transformer')) refuse('model_index.json lists no transformer.');
  const boundary = index.boundary_ratio ?? null;
  if (!hasPart(index, 'transformer_2')) {
    if (boundary !== null) refuse(`model_index.json: boundary_ratio is ${shown(boundary)} without a transformer_2.`);
    return null;
  }
  if (typeof boundary !== 'number' || !(boundary > 0 && boundary < 1)) {
    refuse(`model_index.json: two experts need a boundary_ratio between 0 and 1, got ${shown(boundary)}.`);
  }
  return boundary;
}

async function readShift(folder: Folder): Promise<number> {
  const path = 'scheduler/scheduler_config.json';
  const config = await readJson(folder, path);
  if (config.prediction_type !== 'flow_prediction') {
    const got = shown(config.prediction_type);
    refuse(`${path}: prediction_type must be "flow_prediction", got ${got}.`);
  }
  if (typeof config.flow_shift !== 'number' || !(config.flow_shift > 0)) {
    refuse(`${path}: flow_shift must be a number above 0, got ${shown(config.flow_shift)}.`);
  }
  return config.flow_shift;
}

/** What a pipeline's own configuration says, which no weights tell. Throws as {@link openDiffusers} does. */
export async function readPipeline(folder: Folder): Promise<Pick<Checkpoint, 'boundary' | 'shift'>> {
  return { boundary: readBoundary(await readJson(folder, 'model_index.json')), shift: await readShift(folder) };
}

/** Refuses image-to-video tensors with a sentence about what they are, before their names count as merely unknown. */
function refuseImageInput({ tensors }: FileTensors, dit: DitConfig, what: string): void {
  const inChannels = tensors.get('patch_embedding.weight')?.shape[1];
  if (inChannels !== undefined) checkDitConfig({ ...dit, inChannels }, what);
  for (const name of tensors.keys()) {
    if (name.startsWith('condition_embedder.image_embedder.') || name.includes('.add_k_proj.')) {
      refuse(`${what}: "${name}" belongs to an image-to-video checkpoint. Use the T2V files of the same release.`);
    }
  }
}

async function openPart(folder: Folder, directory: string, stem: string, signal?: AbortSignal): Promise<FileTensors> {
  return fromSafetensors(await openSharded(folder, directory, stem, signal), directory);
}

type Configs = Pick<Checkpoint, 'dit' | 'umt5' | 'vae'>;

async function openExpert(folder: Folder, directory: string, configs: Configs, signal?: AbortSignal): Promise<Weights> {
  const source = await openPart(folder, directory, 'diffusion_pytorch_model', signal);
  refuseImageInput(source, configs.dit, directory);
  checkLayers(configs, 'high', source.tensors.size, directory);
  return nameWeights(source, ditShapes(configs.dit), DIFFUSERS_DIT, directory);
}

/** Refuses parts whose widths do not meet. */
export function checkParts(dit: DitConfig, umt5: Umt5Config, vae: VaeConfig): void {
  if (dit.textDim === umt5.dModel && dit.inChannels === vae.zDim) return;
  refuse(
    `The parts do not fit together: the transformer takes ${dit.textDim} text and ${dit.inChannels} latent channels, the text encoder gives ${umt5.dModel} and the VAE takes ${vae.zDim}. Use the files of one release.`,
  );
}

/** Both experts have the same shapes, so a file copied to the wrong place shows only in its values. */
export async function refuseSameExperts(high: Weights, low: Weights): Promise<void> {
  for (const name of ['head.head.bias', 'patch_embedding.bias', 'blocks.0.modulation']) {
    const count = high.entries.get(name)!.shape.reduce((product, size) => product * size, 1);
    const [a, b] = await Promise.all([high.readFloats(name, 0, count), low.readFloats(name, 0, count)]);
    if (a.some((value, i) => value !== b[i])) return;
  }
  refuse('Both experts hold the same weights. Give the high-noise and the low-noise file of one release.');
}

/** A `tokenizer.json` after a look at its model. */
export function checkTokenizer(bytes: Uint8Array, path: string): ByteSource {
  const model = parseObject(bytes, path).model as Json | null | undefined;
  if (model?.type !== 'Unigram') refuse(`${path}: the model type must be "Unigram", got ${shown(model?.type)}.`);
  return { sizeBytes: bytes.length, read: async (begin, end) => bytes.subarray(begin, end) };
}

/**
 * Opens a folder in the diffusers layout (`WanPipeline`: Wan 2.2 T2V A14B, Wan 2.1 T2V, or the same architecture in
 * other sizes) and checks every configuration, tensor name, shape and dtype without reading the weights. Throws
 * `bad-checkpoint` for what does not fit and `unreadable-source` for missing files.
 */
export async function openDiffusers(folder: Folder, signal?: AbortSignal): Promise<Checkpoint> {
  const index = await readJson(folder, 'model_index.json');
  const boundary = readBoundary(index);
  const shift = await readShift(folder);
  const dit = parseDitConfig(await readJson(folder, 'transformer/config.json'), 'transformer/config.json');
  const umt5 = parseUmt5Config(await readJson(folder, 'text_encoder/config.json'), 'text_encoder/config.json');
  const vae = parseVaeConfig(await readJson(folder, 'vae/config.json'), 'vae/config.json');
  checkParts(dit, umt5, vae);
  if (boundary !== null) {
    const path = 'transformer_2/config.json';
    const low = parseDitConfig(await readJson(folder, path), path);
    if (JSON.stringify(low) !== JSON.stringify(dit)) {
      refuse(`${path} differs from transformer/config.json; both experts must have the same sizes.`);
    }
  }
  const tokenizerPath = 'tokenizer/tokenizer.json';
  const tokenizer = checkTokenizer(await readBounded(folder, tokenizerPath, MAX_TOKENIZER_BYTES), tokenizerPath);
  const configs = { dit, umt5, vae };
  const text = await openPart(folder, 'text_encoder', 'model', signal);
  checkLayers(configs, 'text_encoder', text.tensors.size, 'text_encoder');
  const textEncoder = nameWeights(text, umt5Shapes(umt5), HUGGING_FACE_UMT5, 'text_encoder');
  const high = await openExpert(folder, 'transformer', configs, signal);
  const low = boundary === null ? undefined : await openExpert(folder, 'transformer_2', configs, signal);
  if (low) await refuseSameExperts(high, low);
  const frames = await openPart(folder, 'vae', 'diffusion_pytorch_model', signal);
  checkLayers(configs, 'vae', frames.tensors.size, 'vae');
  const decoder = nameWeights(frames, vaeShapes(vae), diffusersVae(vae), 'vae');
  const weights = { text_encoder: textEncoder, high, vae: decoder, ...(low && { low }) };
  return { dit, umt5, vae, boundary, shift, tokenizer, weights };
}
