import { DIFFUSERS_DIT, diffusersVae, HUGGING_FACE_UMT5, type NameScheme } from '../../src/checkpoint/names';
import {
  ditShapes,
  parseDitConfig,
  parseUmt5Config,
  parseVaeConfig,
  type Shapes,
  umt5Shapes,
  vaeShapes,
} from '../../src/config';
import { encodeF16 } from '../../src/floats';
import { seededFloats } from './near';

/**
 * A whole checkpoint in the diffusers layout, small enough to make in a test: the architecture of Wan 2.2 with two
 * experts.
 */

export const TRANSFORMER = {
  _class_name: 'WanTransformer3DModel',
  attention_head_dim: 128,
  cross_attn_norm: true,
  eps: 1e-6,
  // Not a multiple of 32: the second feed-forward matrix cannot be quantised.
  ffn_dim: 80,
  freq_dim: 64,
  in_channels: 16,
  num_attention_heads: 1,
  num_layers: 2,
  out_channels: 16,
  patch_size: [1, 2, 2],
  qk_norm: 'rms_norm_across_heads',
  text_dim: 32,
};

export const TEXT_ENCODER = {
  d_ff: 64,
  d_kv: 8,
  d_model: 32,
  feed_forward_proj: 'gated-gelu',
  layer_norm_epsilon: 1e-6,
  num_heads: 2,
  num_layers: 1,
  relative_attention_max_distance: 128,
  relative_attention_num_buckets: 32,
  vocab_size: 40,
};

export const VAE = {
  attn_scales: [],
  base_dim: 4,
  dim_mult: [1, 2],
  latents_mean: Array.from({ length: 16 }, (_, i) => i / 16 - 0.5),
  latents_std: Array.from({ length: 16 }, (_, i) => 1 + i / 8),
  num_res_blocks: 1,
  temperal_downsample: [true],
  z_dim: 16,
};

export const MODEL_INDEX = {
  _class_name: 'WanPipeline',
  boundary_ratio: 0.875,
  expand_timesteps: false,
  transformer: ['diffusers', 'WanTransformer3DModel'],
  transformer_2: ['diffusers', 'WanTransformer3DModel'],
};

export const SCHEDULER = { prediction_type: 'flow_prediction', flow_shift: 5 };

const ditConfig = parseDitConfig(TRANSFORMER, 'test');
const vaeConfig = parseVaeConfig(VAE, 'test');

export const SHAPES = {
  transformer: ditShapes(ditConfig),
  text_encoder: umt5Shapes(parseUmt5Config(TEXT_ENCODER, 'test')),
  vae: vaeShapes(vaeConfig),
};

/** A tensor to write: F16 bits, F32 values, or any bytes with their dtype. */
export interface TestTensor {
  shape: number[];
  values: Uint16Array | Float32Array | Uint8Array;
  /** Default: F16 or F32, as the values are. */
  dtype?: string;
}

/** Writes a safetensors file the plain way: tensors in the given order, header padded to a multiple of eight. */
export function safetensors(tensors: ReadonlyMap<string, TestTensor>): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let end = 0;
  for (const [name, { shape, values, dtype }] of tensors) {
    const begin = end;
    end += values.byteLength;
    const plain = values instanceof Uint16Array ? 'F16' : 'F32';
    header[name] = { dtype: dtype ?? plain, shape, data_offsets: [begin, end] };
  }
  const json = JSON.stringify(header);
  const text = new TextEncoder().encode(json.padEnd(Math.ceil(json.length / 8) * 8));
  const file = new Uint8Array(8 + text.length + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  let at = 8 + text.length;
  for (const { values } of tensors.values()) {
    file.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), at);
    at += values.byteLength;
  }
  return file;
}

/** Seeded values of a tensor, the same whatever file they are put into. Gammas and norm weights lie round 1. */
export function tensorValues(seed: number, name: string, shape: readonly number[]): Float32Array {
  const count = shape.reduce((product, size) => product * size, 1);
  let hash = seed;
  for (const char of name) hash = (Math.imul(hash, 31) + char.charCodeAt(0)) >>> 0;
  const offset = /norm.*weight$|gamma$/.test(name) ? 1 : 0;
  return seededFloats(hash, count, 0.2).map((value) => value + offset);
}

/** Tensors of a component under their file names, in alphabetical order as diffusers writes them, rounded to f16. */
export function componentTensors(seed: number, shapes: Shapes, scheme: NameScheme): Map<string, TestTensor> {
  const tensors = Array.from(shapes, ([name, shape]): [string, TestTensor] => [
    scheme.candidates(name)[0]!,
    { shape, values: encodeF16(tensorValues(seed, name, shape)) },
  ]);
  return new Map(tensors.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The seeds of the components' values. */
export const SEEDS = { text_encoder: 1, transformer: 2, transformer_2: 3, vae: 4 };

/**
 * Tensors of every component under their file names; change them before {@link checkpointFiles} to make a bad
 * checkpoint.
 */
export function checkpointTensors(): Record<keyof typeof SEEDS, Map<string, TestTensor>> {
  const vae = componentTensors(SEEDS.vae, SHAPES.vae, diffusersVae(vaeConfig));
  vae.set('encoder.conv_in.weight', { shape: [4, 3, 3, 3, 3], values: new Uint16Array(324) });
  vae.set('quant_conv.bias', { shape: [32], values: new Uint16Array(32) });
  return {
    text_encoder: componentTensors(SEEDS.text_encoder, SHAPES.text_encoder, HUGGING_FACE_UMT5),
    transformer: componentTensors(SEEDS.transformer, SHAPES.transformer, DIFFUSERS_DIT),
    transformer_2: componentTensors(SEEDS.transformer_2, SHAPES.transformer, DIFFUSERS_DIT),
    vae,
  };
}

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

/** All files of the checkpoint by path. */
export function checkpointFiles(tensors = checkpointTensors()): Map<string, Uint8Array> {
  return new Map([
    ['model_index.json', json(MODEL_INDEX)],
    ['scheduler/scheduler_config.json', json(SCHEDULER)],
    ['tokenizer/tokenizer.json', json({ model: { type: 'Unigram', vocab: [['<pad>', 0]] } })],
    ['text_encoder/config.json', json(TEXT_ENCODER)],
    ['text_encoder/model.safetensors', safetensors(tensors.text_encoder)],
    ['transformer/config.json', json(TRANSFORMER)],
    ['transformer/diffusion_pytorch_model.safetensors', safetensors(tensors.transformer)],
    ['transformer_2/config.json', json(TRANSFORMER)],
    ['transformer_2/diffusion_pytorch_model.safetensors', safetensors(tensors.transformer_2)],
    ['vae/config.json', json(VAE)],
    ['vae/diffusion_pytorch_model.safetensors', safetensors(tensors.vae)],
  ]);
}

/** A configuration file with some members replaced. */
export function replaceJson(files: Map<string, Uint8Array>, path: string, members: Record<string, unknown>): void {
  const value = JSON.parse(new TextDecoder().decode(files.get(path)));
  files.set(path, json({ ...value, ...members }));
}
