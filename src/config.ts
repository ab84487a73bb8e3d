import { shown, ZoetropeError } from './errors';

/** Sizes of one diffusion expert (WanModel). Defaults in brackets are those of Wan 2.2 A14B. */
export interface DitConfig {
  /** Width of the residual stream, a multiple of 128 [5120]. */
  dim: number;
  /** Width of the feed-forward hidden layer [13824]. */
  ffnDim: number;
  /** Attention heads of 128 channels each; `dim / 128` [40]. */
  numHeads: number;
  /** Blocks [40]. */
  numLayers: number;
  /** Latent channels in; 16 for text-to-video (36 is image-to-video, 48 is TI2V-5B: refused). */
  inChannels: number;
  /** Latent channels out [16]. */
  outChannels: number;
  /** Width of the sinusoidal time embedding [256]. */
  freqDim: number;
  /** Width of the text encoder's output [4096]. */
  textDim: number;
  /** Rows of text attended to, real ones and padding together [512]. */
  textLen: number;
  /** Epsilon of every norm [1e-6]. */
  eps: number;
}

/** Sizes of the UMT5 encoder. Defaults in brackets are those of UMT5-XXL. */
export interface Umt5Config {
  /** Rows of the embedding table [256384]. */
  vocabSize: number;
  /** Width of the residual stream [4096]. */
  dModel: number;
  /** Channels of one head [64]. */
  dKv: number;
  /** Heads [64]. */
  numHeads: number;
  /** Width of the gated hidden layer [10240]. */
  dFf: number;
  /** Layers [24]. */
  numLayers: number;
  /** Buckets of the relative position bias [32]. */
  relativeBuckets: number;
  /** Distance from which on all positions share the last bucket [128]. */
  relativeMaxDistance: number;
  /** Epsilon of every norm [1e-6]. */
  eps: number;
}

/** Sizes of the Wan VAE decoder. Defaults in brackets are those of the Wan 2.1 VAE. */
export interface VaeConfig {
  /** Channels at full resolution [96]. */
  baseDim: number;
  /** Latent channels [16]. */
  zDim: number;
  /** Channel multipliers from full resolution down [1, 2, 4, 4]. */
  dimMult: number[];
  /** Residual blocks of an encoder level [2]; a decoder level has one more. */
  numResBlocks: number;
  /** Whether decoder level i (from the coarsest) doubles the frame rate when it upsamples [true, true, false]. */
  temporalUpsample: boolean[];
  /** Mean of every latent channel: `z * std + mean` is what the decoder takes. */
  latentsMean: number[];
  /** Standard deviation of every latent channel. */
  latentsStd: number[];
}

/** Channels of an attention head of every Wan diffusion model. */
export const HEAD_DIM = 128;
/** Latent positions per token along (t, h, w): `patch_size` of every Wan diffusion model. */
export const PATCH = [1, 2, 2] as const;

type Json = Record<string, unknown>;

function number(json: Json, key: string, what: string): number {
  const value = json[key];
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw new ZoetropeError('bad-checkpoint', `${what}: "${key}" must be a number, got ${shown(value)}.`);
  }
  return value;
}

/**
 * Largest width or count of a configuration; the largest known, UMT5's vocabulary, is 256,384. Bounds what a hostile
 * one can ask for, and keeps products of three of them within the whole numbers that a double holds.
 */
export const MAX_WIDTH = 2 ** 24;
/** Most layers, blocks or levels; the most known are 40. */
export const MAX_LAYERS = 512;

function positiveInteger(json: Json, key: string, what: string, max = MAX_WIDTH): number {
  const value = number(json, key, what);
  if (!Number.isInteger(value) || value < 1 || value > max) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what}: "${key}" must be a whole number from 1 to ${max}, got ${value}.`,
    );
  }
  return value;
}

function numbers(json: Json, key: string, what: string, length?: number): number[] {
  const value = json[key];
  if (!Array.isArray(value) || !value.every(Number.isFinite) || (length ?? value.length) !== value.length) {
    const expected = length === undefined ? 'a list of numbers' : `a list of ${length} numbers`;
    throw new ZoetropeError('bad-checkpoint', `${what}: "${key}" must be ${expected}, got ${shown(value)}.`);
  }
  return value as number[];
}

/** Refuses configurations that this runtime does not compute, by name and with what to use instead. */
export function checkDitConfig(config: DitConfig, what: string): DitConfig {
  const refuse = (message: string): never => {
    throw new ZoetropeError('bad-checkpoint', `${what}: ${message}`);
  };
  if (config.inChannels === 36) {
    refuse(
      'this is an image-to-video checkpoint (36 input channels). Zoetrope makes video from text: use the T2V files of the same release.',
    );
  }
  if (config.inChannels === 48) {
    refuse('this is TI2V-5B (48 input channels), which needs another VAE. Use Wan 2.2 T2V A14B or Wan 2.1 T2V.');
  }
  if (config.inChannels !== 16 || config.outChannels !== 16) {
    refuse(`in and out channels must be 16, got ${config.inChannels} and ${config.outChannels}.`);
  }
  if (config.dim !== config.numHeads * HEAD_DIM) {
    refuse(`width ${config.dim} is not ${config.numHeads} heads of ${HEAD_DIM} channels.`);
  }
  if (config.freqDim % 2 !== 0) refuse(`freq_dim must be even, got ${config.freqDim}.`);
  return config;
}

/** Reads the `config.json` of a diffusers `WanTransformer3DModel`. `what` names the file in errors. */
export function parseDitConfig(json: Json, what: string): DitConfig {
  const heads = positiveInteger(json, 'num_attention_heads', what);
  const headDim = positiveInteger(json, 'attention_head_dim', what);
  if (headDim !== HEAD_DIM) {
    throw new ZoetropeError('bad-checkpoint', `${what}: attention_head_dim must be ${HEAD_DIM}, got ${headDim}.`);
  }
  const patch = numbers(json, 'patch_size', what, 3);
  if (patch.some((size, axis) => size !== PATCH[axis])) {
    throw new ZoetropeError('bad-checkpoint', `${what}: patch_size must be [${PATCH}], got [${patch}].`);
  }
  if (json.qk_norm !== 'rms_norm_across_heads' || json.cross_attn_norm !== true) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what}: qk_norm must be "rms_norm_across_heads" with cross_attn_norm true, got ${shown(json.qk_norm)} and ${shown(json.cross_attn_norm)}.`,
    );
  }
  return checkDitConfig(
    {
      dim: heads * headDim,
      ffnDim: positiveInteger(json, 'ffn_dim', what),
      numHeads: heads,
      numLayers: positiveInteger(json, 'num_layers', what, MAX_LAYERS),
      inChannels: positiveInteger(json, 'in_channels', what),
      outChannels: positiveInteger(json, 'out_channels', what),
      freqDim: positiveInteger(json, 'freq_dim', what),
      textDim: positiveInteger(json, 'text_dim', what),
      // 512: `text_len` of wan/configs/shared_config.py and max_sequence_length of diffusers' WanPipeline; no config
      // holds it.
      textLen: 512,
      eps: number(json, 'eps', what),
    },
    what,
  );
}

/** Reads the `config.json` of a transformers `UMT5EncoderModel`. */
export function parseUmt5Config(json: Json, what: string): Umt5Config {
  if (json.feed_forward_proj !== 'gated-gelu') {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what}: feed_forward_proj must be "gated-gelu", got ${shown(json.feed_forward_proj)}.`,
    );
  }
  return {
    vocabSize: positiveInteger(json, 'vocab_size', what),
    dModel: positiveInteger(json, 'd_model', what),
    dKv: positiveInteger(json, 'd_kv', what),
    numHeads: positiveInteger(json, 'num_heads', what),
    dFf: positiveInteger(json, 'd_ff', what),
    numLayers: positiveInteger(json, 'num_layers', what, MAX_LAYERS),
    relativeBuckets: positiveInteger(json, 'relative_attention_num_buckets', what),
    relativeMaxDistance: positiveInteger(json, 'relative_attention_max_distance', what),
    eps: number(json, 'layer_norm_epsilon', what),
  };
}

/** Reads the `config.json` of a diffusers `AutoencoderKLWan` (its key for the temporal flags is spelled "temperal"). */
export function parseVaeConfig(json: Json, what: string): VaeConfig {
  const dimMult = numbers(json, 'dim_mult', what);
  if (dimMult.length < 1 || dimMult.length > 8 || !dimMult.every((m) => Number.isInteger(m) && m >= 1 && m <= 64)) {
    const got = shown(dimMult.length === 1 ? dimMult[0] : dimMult);
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what}: "dim_mult" must be 1 to 8 whole numbers from 1 to 64, got ${got}.`,
    );
  }
  const flags = json.temperal_downsample;
  if (!Array.isArray(flags) || flags.length !== dimMult.length - 1 || flags.some((f) => typeof f !== 'boolean')) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what}: "temperal_downsample" must be ${dimMult.length - 1} booleans, got ${shown(flags)}.`,
    );
  }
  if (Array.isArray(json.attn_scales) && json.attn_scales.length > 0) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what}: attention inside levels (attn_scales) is not part of Wan's VAE.`,
    );
  }
  const zDim = positiveInteger(json, 'z_dim', what);
  return {
    baseDim: positiveInteger(json, 'base_dim', what),
    zDim,
    dimMult,
    numResBlocks: positiveInteger(json, 'num_res_blocks', what, 64),
    temporalUpsample: [...(flags as boolean[])].reverse(),
    latentsMean: numbers(json, 'latents_mean', what, zDim),
    latentsStd: numbers(json, 'latents_std', what, zDim),
  };
}

/** Shape of every tensor by internal name. */
export type Shapes = Map<string, number[]>;

/** Every tensor of one expert, by original Wan name: 27 a block and 15 outside (1,095 for A14B). */
export function ditShapes(config: DitConfig): Shapes {
  const { dim, ffnDim, freqDim, textDim, inChannels, outChannels } = config;
  const patch = PATCH[0] * PATCH[1] * PATCH[2];
  const shapes: Shapes = new Map();
  const linear = (name: string, rows: number, columns: number) => {
    shapes.set(`${name}.weight`, [rows, columns]);
    shapes.set(`${name}.bias`, [rows]);
  };
  shapes.set('patch_embedding.weight', [dim, inChannels, ...PATCH]);
  shapes.set('patch_embedding.bias', [dim]);
  linear('text_embedding.0', dim, textDim);
  linear('text_embedding.2', dim, dim);
  linear('time_embedding.0', dim, freqDim);
  linear('time_embedding.2', dim, dim);
  linear('time_projection.1', 6 * dim, dim);
  for (let block = 0; block < config.numLayers; block++) {
    const at = `blocks.${block}`;
    shapes.set(`${at}.modulation`, [1, 6, dim]);
    for (const attention of ['self_attn', 'cross_attn']) {
      for (const part of ['q', 'k', 'v', 'o']) linear(`${at}.${attention}.${part}`, dim, dim);
      shapes.set(`${at}.${attention}.norm_q.weight`, [dim]);
      shapes.set(`${at}.${attention}.norm_k.weight`, [dim]);
    }
    shapes.set(`${at}.norm3.weight`, [dim]);
    shapes.set(`${at}.norm3.bias`, [dim]);
    linear(`${at}.ffn.0`, ffnDim, dim);
    linear(`${at}.ffn.2`, dim, ffnDim);
  }
  shapes.set('head.modulation', [1, 2, dim]);
  linear('head.head', patch * outChannels, dim);
  return shapes;
}

/** Every tensor of the text encoder, by Hugging Face name (242 for UMT5-XXL). */
export function umt5Shapes(config: Umt5Config): Shapes {
  const { dModel, dFf, numHeads, dKv } = config;
  const inner = numHeads * dKv;
  const shapes: Shapes = new Map([['shared.weight', [config.vocabSize, dModel]]]);
  for (let layer = 0; layer < config.numLayers; layer++) {
    const attention = `encoder.block.${layer}.layer.0`;
    const gated = `encoder.block.${layer}.layer.1`;
    shapes.set(`${attention}.layer_norm.weight`, [dModel]);
    for (const part of ['q', 'k', 'v']) shapes.set(`${attention}.SelfAttention.${part}.weight`, [inner, dModel]);
    shapes.set(`${attention}.SelfAttention.o.weight`, [dModel, inner]);
    shapes.set(`${attention}.SelfAttention.relative_attention_bias.weight`, [config.relativeBuckets, numHeads]);
    shapes.set(`${gated}.layer_norm.weight`, [dModel]);
    shapes.set(`${gated}.DenseReluDense.wi_0.weight`, [dFf, dModel]);
    shapes.set(`${gated}.DenseReluDense.wi_1.weight`, [dFf, dModel]);
    shapes.set(`${gated}.DenseReluDense.wo.weight`, [dModel, dFf]);
  }
  shapes.set('encoder.final_layer_norm.weight', [dModel]);
  return shapes;
}

/** One level of the VAE decoder, from the coarsest. */
export interface VaeLevel {
  /** Channels that enter the level. */
  inChannels: number;
  /** Channels inside the level. */
  channels: number;
  /** Residual blocks, by name prefix. */
  blocks: string[];
  /** The upsampling that ends the level; absent on the last one. Channels halve in it. */
  upsample?: { name: string; temporal: boolean };
}

/** The decoder's levels with their original names; `decoder.upsamples.N` counts blocks and upsamplers alike. */
export function vaeLevels(config: VaeConfig): VaeLevel[] {
  const channels = [...config.dimMult].reverse().map((multiplier) => config.baseDim * multiplier);
  let index = 0;
  return channels.map((width, level) => {
    const blocks = Array.from({ length: config.numResBlocks + 1 }, () => `decoder.upsamples.${index++}`);
    const last = level === channels.length - 1;
    const inChannels = level === 0 ? width : channels[level - 1]! / 2;
    if (last) return { inChannels, channels: width, blocks };
    return {
      inChannels,
      channels: width,
      blocks,
      upsample: { name: `decoder.upsamples.${index++}`, temporal: config.temporalUpsample[level]! },
    };
  });
}

/** Every tensor of the VAE decoder, by original Wan name (110 for the Wan 2.1 VAE, `conv2.*` included). */
export function vaeShapes(config: VaeConfig): Shapes {
  const shapes: Shapes = new Map();
  const conv = (name: string, out: number, into: number, ...kernel: number[]) => {
    shapes.set(`${name}.weight`, [out, into, ...kernel]);
    shapes.set(`${name}.bias`, [out]);
  };
  const residual = (name: string, into: number, out: number) => {
    shapes.set(`${name}.residual.0.gamma`, [into, 1, 1, 1]);
    conv(`${name}.residual.2`, out, into, 3, 3, 3);
    shapes.set(`${name}.residual.3.gamma`, [out, 1, 1, 1]);
    conv(`${name}.residual.6`, out, out, 3, 3, 3);
    if (into !== out) conv(`${name}.shortcut`, out, into, 1, 1, 1);
  };
  const levels = vaeLevels(config);
  const top = levels[0]!.channels;
  conv('conv2', config.zDim, config.zDim, 1, 1, 1);
  conv('decoder.conv1', top, config.zDim, 3, 3, 3);
  residual('decoder.middle.0', top, top);
  shapes.set('decoder.middle.1.norm.gamma', [top, 1, 1]);
  conv('decoder.middle.1.to_qkv', 3 * top, top, 1, 1);
  conv('decoder.middle.1.proj', top, top, 1, 1);
  residual('decoder.middle.2', top, top);
  for (const level of levels) {
    level.blocks.forEach((name, i) => {
      residual(name, i === 0 ? level.inChannels : level.channels, level.channels);
    });
    if (level.upsample) {
      conv(`${level.upsample.name}.resample.1`, level.channels / 2, level.channels, 3, 3);
      if (level.upsample.temporal) {
        conv(`${level.upsample.name}.time_conv`, 2 * level.channels, level.channels, 3, 1, 1);
      }
    }
  }
  const last = levels[levels.length - 1]!.channels;
  shapes.set('decoder.head.0.gamma', [last, 1, 1, 1]);
  conv('decoder.head.2', 3, last, 3, 3, 3);
  return shapes;
}

/** Channels that each latent channel of the DiT's output tokens spans: 64 = 4 positions of 16 channels. */
export function patchChannels(config: DitConfig): number {
  return PATCH[0] * PATCH[1] * PATCH[2] * config.outChannels;
}
