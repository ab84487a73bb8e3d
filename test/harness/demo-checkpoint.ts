import { byteValues } from '../../src/checkpoint/fp8';
import {
  DIFFUSERS_DIT,
  diffusersVae,
  HUGGING_FACE_UMT5,
  LLAMA_UMT5,
  type NameScheme,
  ORIGINAL_DIT,
  ORIGINAL_UMT5,
  ORIGINAL_VAE,
} from '../../src/checkpoint/names';
import { decodeFloats, floatBytes, isFloatDtype } from '../../src/floats';
import { componentShapes, type Manifest, matrixStorage, QUANT_BLOCK, SCALES_SUFFIX } from '../../src/manifest';
import type { VerifiedModel } from '../../src/store/verified';
import { MODEL_INDEX, SCHEDULER, safetensors, TEXT_ENCODER, type TestTensor, TRANSFORMER, VAE } from './checkpoint';
import { fromQ4, type GgufTestTensor, ggufFile, toQ4, toQ8 } from './gguf';
import { shardFile } from './shards';

/** The weights of a model folder as floats, and the files in which other programs would have saved them. */

/** A tensor with its values. */
export interface FloatTensor {
  shape: number[];
  values: Float32Array;
  /** Whether the folder holds it in blocks; these are the ones that lossy forms round. */
  matrix: boolean;
}

/** Every weight by component and internal name. */
export type FloatWeights = Record<'text_encoder' | 'high' | 'low' | 'vae', Map<string, FloatTensor>>;
type Part = keyof FloatWeights;
const PARTS = ['text_encoder', 'high', 'low', 'vae'] as const;

/** What a checkpoint has beside its weights. */
export interface Beside {
  manifest: Manifest;
  tokenizer: Uint8Array;
}

/** Files by path. */
export type Files = Record<string, Uint8Array>;

/** The weights of an 8-bit model folder; a byte times an f16 scale is exactly an f32. */
export async function floatWeights({ manifest, component }: VerifiedModel): Promise<FloatWeights> {
  const read = async (part: Part) => {
    const source = component(part);
    const tensors = new Map<string, FloatTensor>();
    for (const [name, shape] of componentShapes(manifest, part)) {
      const bytes = await source.read(name);
      const { dtype } = source.entries.get(name)!;
      if (isFloatDtype(dtype)) {
        tensors.set(name, { shape, values: decodeFloats(bytes, dtype), matrix: false });
        continue;
      }
      if (matrixStorage(source.entries, name).bits !== 8) throw new Error(`${name} is not in 8-bit blocks.`);
      const scales = decodeFloats(await source.read(name + SCALES_SUFFIX), 'F16');
      const values = Float32Array.from(bytes, (byte, i) => (byte - 128) * scales[Math.floor(i / QUANT_BLOCK)]!);
      tensors.set(name, { shape, values, matrix: true });
    }
    return tensors;
  };
  const [text_encoder, high, low, vae] = [
    await read('text_encoder'),
    await read('high'),
    await read('low'),
    await read('vae'),
  ];
  return { text_encoder, high, low, vae };
}

/** The weights with every matrix of the experts and the text encoder put through a lossy form and back. */
export function rounded(weights: FloatWeights, round: (values: Float32Array) => Float32Array): FloatWeights {
  const through = (tensors: FloatWeights[Part]) =>
    new Map([...tensors].map(([name, t]) => [name, t.matrix ? { ...t, values: round(t.values) } : t]));
  return Object.fromEntries(PARTS.map((part) => [part, through(weights[part])])) as FloatWeights;
}

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

function vaeConfigFile({ vae }: Manifest): Uint8Array {
  return json({
    ...VAE,
    _class_name: 'AutoencoderKLWan',
    base_dim: vae.baseDim,
    dim_mult: vae.dimMult,
    latents_mean: vae.latentsMean,
    latents_std: vae.latentsStd,
    num_res_blocks: vae.numResBlocks,
    temperal_downsample: [...vae.temporalUpsample].reverse(),
    z_dim: vae.zDim,
  });
}

type Save = (name: string, tensor: FloatTensor) => [name: string, tensor: TestTensor][];
const asF32: Save = (name, { shape, values }) => [[name, { shape, values }]];

function file(tensors: FloatWeights[Part], scheme: NameScheme, save: Save = asF32, prefix = ''): Uint8Array {
  const saved = [...tensors].flatMap(([name, tensor]) => save(prefix + scheme.candidates(name)[0]!, tensor));
  return safetensors(new Map(saved.sort(([a], [b]) => (a < b ? -1 : 1))));
}

/** The diffusers layout, all tensors F32. */
export function diffusersFiles(weights: FloatWeights, { manifest, tokenizer }: Beside): Files {
  const { dit, umt5, vae } = manifest;
  const transformer = json({
    ...TRANSFORMER,
    eps: dit.eps,
    ffn_dim: dit.ffnDim,
    freq_dim: dit.freqDim,
    num_attention_heads: dit.numHeads,
    num_layers: dit.numLayers,
    text_dim: dit.textDim,
  });
  const textEncoder = json({
    ...TEXT_ENCODER,
    d_ff: umt5.dFf,
    d_kv: umt5.dKv,
    d_model: umt5.dModel,
    num_heads: umt5.numHeads,
    num_layers: umt5.numLayers,
    vocab_size: umt5.vocabSize,
  });
  return {
    'model_index.json': json({ ...MODEL_INDEX, boundary_ratio: manifest.boundary }),
    'scheduler/scheduler_config.json': json({ ...SCHEDULER, flow_shift: manifest.recommended.shift }),
    'tokenizer/tokenizer.json': tokenizer,
    'text_encoder/config.json': textEncoder,
    'text_encoder/model.safetensors': file(weights.text_encoder, HUGGING_FACE_UMT5),
    'transformer/config.json': transformer,
    'transformer/diffusion_pytorch_model.safetensors': file(weights.high, DIFFUSERS_DIT),
    'transformer_2/config.json': transformer,
    'transformer_2/diffusion_pytorch_model.safetensors': file(weights.low, DIFFUSERS_DIT),
    'vae/config.json': vaeConfigFile(manifest),
    'vae/diffusion_pytorch_model.safetensors': file(weights.vae, diffusersVae(vae)),
  };
}

/** The diffusers layout with the experts and the text encoder in three shards each. */
export function shardedFiles(weights: FloatWeights, beside: Beside): Files {
  const files: Files = {};
  for (const [path, bytes] of Object.entries(diffusersFiles(weights, beside))) {
    const [folder, name] = path.split('/') as [string, string?];
    if (folder === 'vae' || !name?.endsWith('.safetensors')) files[path] = bytes;
    else
      for (const [part, own] of shardFile(bytes, name.replace('.safetensors', ''), 3)) files[`${folder}/${part}`] = own;
  }
  return files;
}

/** What every form of single files has in common: VAE and tokenizer. */
const commonFiles = (weights: FloatWeights, { manifest, tokenizer }: Beside): Files => ({
  'wan_vae.safetensors': file(weights.vae, ORIGINAL_VAE),
  'config.json': vaeConfigFile(manifest),
  'tokenizer.json': tokenizer,
});

/** Single files under Wan's own names, all tensors F32. */
export function originalFiles(weights: FloatWeights, beside: Beside): Files {
  return {
    'wan_high_noise.safetensors': file(weights.high, ORIGINAL_DIT, asF32, 'model.diffusion_model.'),
    'wan_low_noise.safetensors': file(weights.low, ORIGINAL_DIT),
    'umt5.safetensors': file(weights.text_encoder, ORIGINAL_UMT5),
    ...commonFiles(weights, beside),
  };
}

const E4M3 = byteValues('F8_E4M3');
const E4M3_MAX = 448;
/** The magnitudes of bytes 0 to 0x7E, which ascend. */
const MAGNITUDES = E4M3.subarray(0, 0x7f);

/** A matrix in E4M3 with one scale, which puts its largest magnitude at the largest of E4M3. */
export function toFp8(values: Float32Array): { bytes: Uint8Array; scale: number } {
  const scale = Math.fround(values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / E4M3_MAX);
  const bytes = Uint8Array.from(values, (value) => {
    const magnitude = Math.abs(value) / scale;
    let [low, high] = [0, MAGNITUDES.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (MAGNITUDES[middle]! <= magnitude) low = middle;
      else high = middle;
    }
    const nearest = magnitude - MAGNITUDES[low]! <= MAGNITUDES[high]! - magnitude ? low : high;
    return value < 0 ? nearest | 0x80 : nearest;
  });
  return { bytes, scale };
}

/** What {@link toFp8} keeps of values. */
export function throughFp8(values: Float32Array): Float32Array {
  const { bytes, scale } = toFp8(values);
  return Float32Array.from(bytes, (byte) => E4M3[byte]! * scale);
}

/** What Q4_0 keeps of values. */
export const throughQ4 = (values: Float32Array): Float32Array => fromQ4(toQ4(values));

/** As ComfyUI's fp8_scaled: matrices in E4M3 with a scale each, the rest F32, and the marker. */
export function fp8Files(weights: FloatWeights, beside: Beside): Files {
  const save: Save = (name, tensor) => {
    if (!tensor.matrix) return asF32(name, tensor);
    const { bytes, scale } = toFp8(tensor.values);
    return [
      [name, { shape: tensor.shape, values: bytes, dtype: 'F8_E4M3' }],
      [name.replace(/weight$/, 'scale_weight'), { shape: [], values: Float32Array.of(scale) }],
    ];
  };
  const marked = (tensors: FloatWeights[Part], scheme: NameScheme) => {
    const saved = new Map([...tensors].flatMap(([name, tensor]) => save(scheme.candidates(name)[0]!, tensor)));
    return safetensors(saved.set('scaled_fp8', { shape: [0], values: new Uint8Array(0), dtype: 'F8_E4M3' }));
  };
  return {
    'wan_high_noise_fp8_scaled.safetensors': marked(weights.high, ORIGINAL_DIT),
    'wan_low_noise_fp8_scaled.safetensors': marked(weights.low, ORIGINAL_DIT),
    'umt5_fp8_scaled.safetensors': marked(weights.text_encoder, HUGGING_FACE_UMT5),
    ...commonFiles(weights, beside),
  };
}

/** GGUF with matrices in Q8_0 or Q4_0, the rest F32. */
export function ggufFiles(weights: FloatWeights, beside: Beside, type: 'Q8_0' | 'Q4_0'): Files {
  const blocks = type === 'Q8_0' ? { type: 8, encode: toQ8 } : { type: 2, encode: toQ4 };
  const saved = (tensors: FloatWeights[Part], scheme: NameScheme, architecture: string) => {
    const all = [...tensors].map(([name, { shape, values, matrix }]): [string, GgufTestTensor] => [
      scheme.candidates(name)[0]!,
      // ggml keeps no leading axes of length 1.
      {
        type: matrix ? blocks.type : 0,
        shape: shape[0] === 1 ? shape.slice(1) : shape,
        bytes: matrix ? blocks.encode(values) : floatBytes(values),
      },
    ]);
    return ggufFile({ 'general.architecture': { type: 8, value: architecture } }, new Map(all));
  };
  return {
    [`wan-HighNoise-${type}.gguf`]: saved(weights.high, ORIGINAL_DIT, 'wan'),
    [`wan-LowNoise-${type}.gguf`]: saved(weights.low, ORIGINAL_DIT, 'wan'),
    [`umt5-${type}.gguf`]: saved(weights.text_encoder, LLAMA_UMT5, 't5encoder'),
    ...commonFiles(weights, beside),
  };
}
