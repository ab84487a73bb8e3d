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
