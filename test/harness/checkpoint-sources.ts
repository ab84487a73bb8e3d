import { ORIGINAL_DIT, ORIGINAL_UMT5, ORIGINAL_VAE } from '../../src/checkpoint/names';
import { openCheckpoint } from '../../src/checkpoint/open';
import type { ImportSource } from '../../src/checkpoint/sources';
import { checkpointFiles, componentTensors, SEEDS, SHAPES, safetensors, VAE } from './checkpoint';
import { memoryFolder } from './memory-folder';

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
/** The tokenizer.json of the small checkpoint. */
export const TOKENIZER = checkpointFiles().get('tokenizer/tokenizer.json')!;

/** Tensors of a complete model in original names. */
export function tensorsOf() {
  return {
    high: componentTensors(SEEDS.transformer, SHAPES.transformer, ORIGINAL_DIT),
    low: componentTensors(SEEDS.transformer_2, SHAPES.transformer, ORIGINAL_DIT),
    text: componentTensors(SEEDS.text_encoder, SHAPES.text_encoder, ORIGINAL_UMT5),
    vae: componentTensors(SEEDS.vae, SHAPES.vae, ORIGINAL_VAE),
  };
}
/** Contents by file name. */
export type Files = Map<string, Uint8Array>;
/** A complete set of files; change it to make a bad one. */
export function filesOf(tensors = tensorsOf()): Files {
  return new Map([
    ['t2v_high_noise.safetensors', safetensors(tensors.high)],
    ['t2v_low_noise.safetensors', safetensors(tensors.low)],
    ['umt5.safetensors', safetensors(tensors.text)],
    ['vae.safetensors', safetensors(tensors.vae)],
    ['config.json', json({ _class_name: 'AutoencoderKLWan', ...VAE })],
    ['tokenizer.json', TOKENIZER],
  ]);
}

/** Opens files as a person who names each of them does. */
export async function openFiles(files: Files, roles: Record<string, 'high' | 'low'> = {}) {
  const folder = memoryFolder(files);
  const sources = [...files.keys()].map(async (path): Promise<ImportSource> => {
    return { path, file: await folder.open(path), role: roles[path] };
  });
  return openCheckpoint(await Promise.all(sources));
}
