import type { Shapes, VaeConfig } from '../config';

/** How a family of files names our tensors. Later formats add a scheme each; nothing else depends on theirs. */
export interface NameScheme {
  /** For messages, e.g. "diffusers". */
  label: string;
  /** Names under which the file may hold the tensor, the preferred one first. */
  candidates(internal: string): readonly string[];
  /** Whether the file may hold this further tensor, which text-to-video does not use. */
  ignores(name: string): boolean;
}

/** Outside the blocks; wan-checkpoints table of diffusers' `convert_wan_to_diffusers.py`. */
const DIT_OUTSIDE: Readonly<Record<string, string>> = {
  'text_embedding.0': 'condition_embedder.text_embedder.linear_1',
  'text_embedding.2': 'condition_embedder.text_embedder.linear_2',
  'time_embedding.0': 'condition_embedder.time_embedder.linear_1',
  'time_embedding.2': 'condition_embedder.time_embedder.linear_2',
  'time_projection.1': 'condition_embedder.time_proj',
  'head.modulation': 'scale_shift_table',
  'head.head': 'proj_out',
};

/** Inside a block. Wan's `norm3` is diffusers' `norm2`; Wan's own `norm2` has no parameters. */
const DIT_BLOCK: Readonly<Record<string, string>> = {
  modulation: 'scale_shift_table',
  norm3: 'norm2',
  'ffn.0': 'ffn.net.0.proj',
  'ffn.2': 'ffn.net.2',
  'self_attn.norm_q': 'attn1.norm_q',
  'self_attn.norm_k': 'attn1.norm_k',
  'self_attn.q': 'attn1.to_q',
  'self_attn.k': 'attn1.to_k',
  'self_attn.v': 'attn1.to_v',
  'self_attn.o': 'attn1.to_out.0',
  'cross_attn.norm_q': 'attn2.norm_q',
  'cross_attn.norm_k': 'attn2.norm_k',
  'cross_attn.q': 'attn2.to_q',
  'cross_attn.k': 'attn2.to_k',
  'cross_attn.v': 'attn2.to_v',
  'cross_attn.o': 'attn2.to_out.0',
};

/**
 * Splits "blocks.3.norm3.weight" into the tensor's owner and ".weight", ".bias" or ".gamma" (empty where there is
 * none).
 */
function splitParameter(name: string): [owner: string, parameter: string] {
  const parameter = /\.(weight|bias|gamma)$/.exec(name)?.[0] ?? '';
  return [name.slice(0, name.length - parameter.length), parameter];
}

function diffusersDitName(internal: string): string {
  const [owner, parameter] = splitParameter(internal);
  const block = /^(blocks\.\d+)\.(.+)$/.exec(owner);
  if (!block) return (DIT_OUTSIDE[owner] ?? owner) + parameter;
  return `${block[1]}.${DIT_BLOCK[block[2]!] ?? block[2]}${parameter}`;
}

/** Names of diffusers' `WanTransformer3DModel`. */
export const DIFFUSERS_DIT: NameScheme = {
  label: 'diffusers',
  candidates: (internal) => [diffusersDitName(internal)],
  ignores: () => false,
};

/** Names of Wan's own `WanModel`, which ComfyUI's and GGUF files keep. They are the internal ones. */
export const ORIGINAL_DIT: NameScheme = {
  label: 'original',
  candidates: (internal) => [internal],
  ignores: () => false,
};

/** Inside a residual block of the VAE. */
const VAE_RESIDUAL: Readonly<Record<string, string>> = {
  'residual.0': 'norm1',
  'residual.2': 'conv1',
  'residual.3': 'norm2',
  'residual.6': 'conv2',
  shortcut: 'conv_shortcut',
};

const VAE_OUTSIDE: Readonly<Record<string, string>> = {
  conv2: 'post_quant_conv',
  'decoder.conv1': 'decoder.conv_in',
  'decoder.head.0': 'decoder.norm_out',
  'decoder.head.2': 'decoder.conv_out',
};

/** Prefix that diffusers gives the module `decoder.upsamples.index` or `decoder.middle.index`. */
function diffusersVaeModule(list: string, index: number, config: VaeConfig): string {
  if (list === 'middle') return `decoder.mid_block.${['resnets.0', 'attentions.0', 'resnets.1'][index]}`;
  // A level is its residual blocks, one more than in the encoder, and an upsampler.
  const perLevel = config.numResBlocks + 2;
  const level = Math.floor(index / perLevel);
  const within = index % perLevel;
  const member = within === perLevel - 1 ? 'upsamplers.0' : `resnets.${within}`;
  return `decoder.up_blocks.${level}.${member}`;
}

function diffusersVaeName(internal: string, config: VaeConfig): string {
  const [owner, parameter] = splitParameter(internal);
  const module = /^decoder\.(middle|upsamples)\.(\d+)\.(.+)$/.exec(owner);
  if (!module) return (VAE_OUTSIDE[owner] ?? owner) + parameter;
  const prefix = diffusersVaeModule(module[1]!, Number(module[2]), config);
  return `${prefix}.${VAE_RESIDUAL[module[3]!] ?? module[3]}${parameter}`;
}

/** Names of diffusers' `AutoencoderKLWan`. The encoder half and its `quant_conv` serve image input only. */
export function diffusersVae(config: VaeConfig): NameScheme {
  return {
    label: 'diffusers',
    candidates: (internal) => [diffusersVaeName(internal, config)],
    ignores: (name) => name.startsWith('encoder.') || name.startsWith('quant_conv.'),
  };
}

/**
 * Names of transformers' `UMT5EncoderModel`, which are the internal ones. The embedding table is tied, so files hold it
 * as `shared.weight`, as `encoder.embed_tokens.weight`, or as both. ComfyUI adds the SentencePiece model as
 * `spiece_model`.
 */
export const HUGGING_FACE_UMT5: NameScheme = {
  label: 'transformers',
  candidates: (internal) => (internal === 'shared.weight' ? [internal, 'encoder.embed_tokens.weight'] : [internal]),
  ignores: (name) => name === 'encoder.embed_tokens.weight' || name === 'spiece_model',
};

/**
 * Names of Wan's own `WanVAE_`, which are the internal ones. The encoder half and its `conv1` serve image input only.
 */
export const ORIGINAL_VAE: NameScheme = {
  label: 'original',
  candidates: (internal) => [internal],
  ignores: (name) => name.startsWith('encoder.') || name.startsWith('conv1.'),
};

/** Hugging Face's names inside a block of the text encoder, with those of Wan's own `T5Encoder` and of llama.cpp. */
const UMT5_BLOCK: readonly (readonly [huggingFace: string, original: string, llama: string])[] = [
  ['layer.0.layer_norm', 'norm1', 'attn_norm'],
  ['layer.0.SelfAttention.q', 'attn.q', 'attn_q'],
  ['layer.0.SelfAttention.k', 'attn.k', 'attn_k'],
  ['layer.0.SelfAttention.v', 'attn.v', 'attn_v'],
  ['layer.0.SelfAttention.o', 'attn.o', 'attn_o'],
  ['layer.0.SelfAttention.relative_attention_bias', 'pos_embedding.embedding', 'attn_rel_b'],
  ['layer.1.layer_norm', 'norm2', 'ffn_norm'],
  ['layer.1.DenseReluDense.wi_0', 'ffn.gate.0', 'ffn_gate'],
  ['layer.1.DenseReluDense.wi_1', 'ffn.fc1', 'ffn_up'],
  ['layer.1.DenseReluDense.wo', 'ffn.fc2', 'ffn_down'],
];

function umt5Scheme(label: string, column: 1 | 2, block: string, table: string, finalNorm: string): NameScheme {
  const inner = new Map(UMT5_BLOCK.map((row) => [row[0], row[column]]));
  return {
    label,
    candidates(internal) {
      const [owner, parameter] = splitParameter(internal);
      if (owner === 'shared') return [table + parameter];
      if (owner === 'encoder.final_layer_norm') return [finalNorm + parameter];
      const [, index, member] = /^encoder\.block\.(\d+)\.(.+)$/.exec(owner)!;
      return [`${block}.${index}.${inner.get(member!)}${parameter}`];
    },
    ignores: (name) => name === 'spiece_model',
  };
}

/** Names of Wan's own `T5Encoder` (wan/modules/t5.py), as Kijai's files have them. */
export const ORIGINAL_UMT5: NameScheme = umt5Scheme('original', 1, 'blocks', 'token_embedding', 'norm');

/** Names that llama.cpp gives a T5 encoder in GGUF files (gguf-py `tensor_mapping.py`). */
export const LLAMA_UMT5: NameScheme = umt5Scheme('llama.cpp', 2, 'enc.blk', 'token_embd', 'enc.output_norm');

/**
 * Which tensor of the file each of our tensors is: the first candidate that is there, else the preferred name, so that
 * what is missing is reported in the file's own words.
 */
export function resolveNames(
  present: { has(name: string): boolean },
  shapes: Shapes,
  scheme: NameScheme,
): Map<string, string> {
  const names = new Map<string, string>();
  for (const internal of shapes.keys()) {
    const candidates = scheme.candidates(internal);
    names.set(internal, candidates.find((name) => present.has(name)) ?? candidates[0]!);
  }
  return names;
}
