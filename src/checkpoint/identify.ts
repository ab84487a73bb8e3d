import { checkDitConfig, type DitConfig, HEAD_DIM, PATCH, type Umt5Config, type VaeConfig } from '../config';
import { ZoetropeError } from '../errors';
import type { FileTensors } from './file-tensors';
import {
  DIFFUSERS_DIT,
  diffusersVae,
  HUGGING_FACE_UMT5,
  LLAMA_UMT5,
  type NameScheme,
  ORIGINAL_DIT,
  ORIGINAL_UMT5,
  ORIGINAL_VAE,
} from './names';
import { WAN_VAE } from './released';

/** What a file's tensors are, with the sizes that their shapes tell. */
export type Part =
  | { kind: 'dit'; config: DitConfig; scheme: NameScheme }
  | { kind: 'text_encoder'; config: Umt5Config; scheme: NameScheme }
  /** The file does not hold the latents' statistics, so the configuration is known for Wan's own VAE alone. */
  | { kind: 'vae'; config: VaeConfig | undefined; scheme: (config: VaeConfig) => NameScheme; baseDim: number };

/** `eps` of every configuration that Wan published, which weights alone do not tell; likewise UMT5's. */
const EPS = 1e-6;
/** `text_len` of wan/configs/shared_config.py. */
const TEXT_LEN = 512;
/** `relative_attention_max_distance` of google/umt5-xxl. */
const MAX_DISTANCE = 128;

/** Names of which one tells a kind of model that this runtime does not run, and what to say about it. */
const OTHERS: readonly [pattern: RegExp, what: string][] = [
  [/(^|\.)(lora_|lora_unet_)|\.lora_(down|up|A|B)\b/, 'a LoRA, not a model. Import the model that it belongs to'],
  [
    /^(condition_embedder\.image_embedder|img_emb)\.|\.(k_img|v_img|add_k_proj|add_v_proj)\./,
    'an image-to-video checkpoint. Use the T2V files of the same release',
  ],
  [/^vace_/, 'a VACE checkpoint. Use Wan 2.2 T2V A14B or Wan 2.1 T2V'],
  [/^(control_adapter|ref_conv)\./, 'a Fun-Control checkpoint. Use Wan 2.2 T2V A14B or Wan 2.1 T2V'],
  [/^(casual_audio_encoder|audio_injector|audio_proj)\./, 'a speech-to-video checkpoint. Use Wan 2.2 T2V A14B'],
  [/^(motion_encoder|face_encoder|face_adapter|pose_patch_embedding)\b/, 'an Animate checkpoint. Use Wan 2.2 T2V A14B'],
  [/\.weight\._(data|scale)$/, 'in the quanto int8 layout. Use the fp16, fp8_scaled or GGUF file'],
];

function refuse(what: string, why: string): never {
  throw new ZoetropeError('bad-checkpoint', `${what}: ${why}`);
}

/** Shape of an internal tensor by the file's name for it. */
function shapeOf({ tensors, what }: FileTensors, scheme: NameScheme, internal: string, axes: number): number[] {
  const names = scheme.candidates(internal);
  const name = names.find((candidate) => tensors.has(candidate));
  if (name === undefined) return refuse(what, `"${names[0]}" is missing. Use the files of one complete release.`);
  const { shape } = tensors.get(name)!;
  if (shape.length !== axes) refuse(what, `"${name}" has shape [${shape}]; expected ${axes} axes.`);
  return shape;
}

/** How many numbered blocks there are; `pattern`'s first group is the number. */
function blocksOf({ tensors, what }: FileTensors, pattern: RegExp): number {
  let count = 0;
  for (const name of tensors.keys()) {
    const match = pattern.exec(name);
    if (match) count = Math.max(count, Number(match[1]) + 1);
  }
  // A wild number must not make a list of that many tensors.
  if (count > tensors.size) refuse(what, `it has ${tensors.size} tensors, and one of block ${count - 1}.`);
  return count;
}

/** Refuses sizes that no model has: each is a whole number from 1 on, but for the epsilon. */
function checkSizes<T extends DitConfig | Umt5Config>(config: T, what: string): T {
  for (const [name, value] of Object.entries(config)) {
    if (name !== 'eps' && !(Number.isSafeInteger(value) && value > 0))
      refuse(what, `its shapes give ${name} ${value}.`);
  }
  return config;
}

function dit(source: FileTensors, scheme: NameScheme): Part {
  const [dim, inChannels] = shapeOf(source, scheme, 'patch_embedding.weight', 5) as [number, number];
  const [outValues] = shapeOf(source, scheme, 'head.head.weight', 2) as [number];
  const config: DitConfig = {
    dim,
    ffnDim: shapeOf(source, scheme, 'blocks.0.ffn.0.weight', 2)[0]!,
    numHeads: dim / HEAD_DIM,
    numLayers: blocksOf(source, /^blocks\.(\d+)\./),
    inChannels,
    outChannels: outValues / (PATCH[0] * PATCH[1] * PATCH[2]),
    freqDim: shapeOf(source, scheme, 'time_embedding.0.weight', 2)[1]!,
    textDim: shapeOf(source, scheme, 'text_embedding.0.weight', 2)[1]!,
    textLen: TEXT_LEN,
    eps: EPS,
  };
  if (!Number.isInteger(config.numHeads)) refuse(source.what, `width ${dim} is not a multiple of ${HEAD_DIM}.`);
  return { kind: 'dit', config: checkDitConfig(checkSizes(config, source.what), source.what), scheme };
}

function textEncoder(source: FileTensors, scheme: NameScheme): Part {
  const block = 'encoder.block.0.layer';
  const [vocabSize, dModel] = shapeOf(source, scheme, 'shared.weight', 2) as [number, number];
  const bias = `${block}.0.SelfAttention.relative_attention_bias.weight`;
  const [relativeBuckets, numHeads] = shapeOf(source, scheme, bias, 2) as [number, number];
  const [inner] = shapeOf(source, scheme, `${block}.0.SelfAttention.q.weight`, 2) as [number];
  const numLayers = blocksOf(source, /^(?:encoder\.block|blocks|enc\.blk)\.(\d+)\./);
  const second = 'encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight';
  if (numLayers > 1 && !scheme.candidates(second).some((name) => source.tensors.has(name))) {
    refuse(source.what, 'this is a T5 encoder (one position table for all layers). Wan needs UMT5-XXL.');
  }
  const config: Umt5Config = {
    vocabSize,
    dModel,
    dKv: inner / numHeads,
    numHeads,
    dFf: shapeOf(source, scheme, `${block}.1.DenseReluDense.wi_0.weight`, 2)[0]!,
    numLayers,
    relativeBuckets,
    relativeMaxDistance: MAX_DISTANCE,
    eps: EPS,
  };
  if (!Number.isInteger(config.dKv)) refuse(source.what, `${inner} rows of q are not ${numHeads} equal heads.`);
  return { kind: 'text_encoder', config: checkSizes(config, source.what), scheme };
}

function vae(source: FileTensors, names: 'original' | 'diffusers'): Part {
  const scheme = names === 'original' ? () => ORIGINAL_VAE : diffusersVae;
  const known = scheme(WAN_VAE);
  const [zDim] = shapeOf(source, known, 'conv2.weight', 5) as [number];
  if (zDim === 48) {
    refuse(source.what, 'this is the VAE of Wan 2.2 TI2V-5B (48 channels). Use the Wan 2.1 VAE, which A14B has too.');
  }
  const [baseDim] = shapeOf(source, known, 'decoder.head.0.gamma', 4) as [number];
  const config = baseDim === WAN_VAE.baseDim && zDim === WAN_VAE.zDim ? WAN_VAE : undefined;
  return { kind: 'vae', config, scheme, baseDim };
}

/**
 * Recognises a diffusion expert, a text encoder or a VAE by its tensors' names, whatever program wrote them, and reads
 * its sizes from their shapes. Throws `bad-checkpoint` for anything else; what is close to these is refused by name.
 */
export function identify(source: FileTensors): Part {
  const has = (name: string) => source.tensors.has(name);
  const architecture = source.keys.get('general.architecture');
  if (architecture !== undefined && !['wan', 't5', 't5encoder'].includes(String(architecture))) {
    refuse(source.what, `this is a GGUF file for "${String(architecture)}"; read are wan and t5encoder.`);
  }
  for (const [pattern, what] of OTHERS) {
    for (const name of source.tensors.keys()) {
      if (pattern.test(name)) refuse(source.what, `"${name.slice(0, 120)}": this is ${what}.`);
    }
  }
  if (has('patch_embedding.weight')) {
    return dit(source, has('blocks.0.attn1.to_q.weight') ? DIFFUSERS_DIT : ORIGINAL_DIT);
  }
  if (has('encoder.block.0.layer.0.SelfAttention.q.weight')) return textEncoder(source, HUGGING_FACE_UMT5);
  if (has('enc.blk.0.attn_q.weight')) return textEncoder(source, LLAMA_UMT5);
  if (has('token_embedding.weight')) return textEncoder(source, ORIGINAL_UMT5);
  if (has('post_quant_conv.weight')) return vae(source, 'diffusers');
  if (has('conv2.weight') && has('decoder.conv1.weight')) return vae(source, 'original');
  const first = [...source.tensors.keys()].slice(0, 3).map((name) => JSON.stringify(name.slice(0, 80)));
  return refuse(
    source.what,
    `none of Wan's models has these tensors (${first.join(', ') || 'none at all'}). Give diffusion experts, a UMT5 text encoder, and the Wan 2.1 VAE.`,
  );
}
