import { existsSync, readFileSync } from 'node:fs';
import { type FileHandle, mkdir, open, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { DIFFUSERS_DIT, diffusersVae, HUGGING_FACE_UMT5 } from '../../src/checkpoint/names';
import { ditShapes, parseDitConfig, parseUmt5Config, parseVaeConfig, umt5Shapes, vaeShapes } from '../../src/config';
import { componentTensors, MODEL_INDEX, SCHEDULER, safetensors, TEXT_ENCODER, TRANSFORMER, VAE } from './checkpoint';
import { seededFloats } from './near';

/**
 * An expert of Wan 2.2 A14B in the diffusers layout, bf16 and sharded, as a folder on disk that imports: its text
 * encoder and VAE are tiny. The weights have the true names, shapes and spread, and no two tensors begin alike.
 */

export interface FullSizeOptions {
  /** Heads of 128 channels, 40 in A14B. */
  heads: number;
  /** Blocks, 40 in A14B. */
  layers: number;
}

/** Tensor list of the real release, made by the reference implementation. */
const INDEX = resolve(import.meta.dirname, '../../../shared/fixtures/checkpoint-index/dit-a14b-diffusers.json');
/** Shards of the -Diffusers repositories end before this. */
const SHARD_BYTES = 5_000_000_000;
/** Random weights that repeat; a prime number of values, so that no two rows have the same. */
const NOISE_VALUES = 16_777_213;
/** Deviation of the weights of a trained matrix of A14B's width. */
const DEVIATION = 0.02;

/** Bytes of bf16 noise. Normal values are dear to make, so they are drawn from a list of 64 Ki. */
function noise(): Uint8Array {
  const floats = seededFloats(1, 65_536, DEVIATION);
  const normal = Uint16Array.from(new Uint32Array(floats.buffer), (bits) => bits >>> 16);
  const words = new Uint16Array(NOISE_VALUES);
  let state = 1;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[i] = normal[state >>> 16]!;
  }
  return new Uint8Array(words.buffer);
}

function expertTensors({ heads, layers }: FullSizeOptions): [name: string, shape: number[]][] {
  if (heads === 40 && layers === 40 && existsSync(INDEX)) return JSON.parse(readFileSync(INDEX, 'utf8')).tensors;
  const shapes = ditShapes(parseDitConfig(transformerConfig({ heads, layers }), 'transformer'));
  return Array.from(shapes, ([name, shape]) => [DIFFUSERS_DIT.candidates(name)[0]!, shape]);
}

function transformerConfig({ heads, layers }: FullSizeOptions) {
  return {
    ...TRANSFORMER,
    num_attention_heads: heads,
    num_layers: layers,
    // 13,824 of A14B's 5,120, in whole blocks of 32.
    ffn_dim: 32 * Math.round((heads * 128 * 2.7) / 32),
    freq_dim: 256,
    text_dim: 4096,
  };
}

const sizeOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 2);

/** Writes so many bytes of noise, going on where the last tensor ended. */
class NoiseWriter {
  readonly #noise = noise();
  #at = 0;

  async write(file: FileHandle, count: number): Promise<void> {
    for (let left = count; left > 0; ) {
      const part = this.#noise.subarray(this.#at, this.#at + left);
      await file.write(part);
      left -= part.length;
      this.#at = (this.#at + part.length) % this.#noise.length;
    }
  }
}

async function writeExpert(folder: string, options: FullSizeOptions): Promise<number> {
  const tensors = expertTensors(options);
  const total = tensors.reduce((sum, [, shape]) => sum + sizeOf(shape), 0);
  const limit = Math.min(SHARD_BYTES, total / 2);
  const shards: [name: string, shape: number[]][][] = [[]];
  let filled = 0;
  for (const tensor of tensors) {
    if (filled > 0 && filled + sizeOf(tensor[1]) > limit) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(tensor);
    filled += sizeOf(tensor[1]);
  }
  const pad = (index: number) => String(index).padStart(5, '0');
  const writer = new NoiseWriter();
  const map: Record<string, string> = {};
  for (const [index, shard] of shards.entries()) {
    const name = `diffusion_pytorch_model-${pad(index + 1)}-of-${pad(shards.length)}.safetensors`;
    const header: Record<string, unknown> = {};
    let end = 0;
    for (const [tensor, shape] of shard) {
      const begin = end;
      end += sizeOf(shape);
      header[tensor] = { dtype: 'BF16', shape, data_offsets: [begin, end] };
      map[tensor] = name;
    }
    const json = JSON.stringify(header);
    const text = Buffer.from(json.padEnd(8 * Math.ceil(json.length / 8)));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    const file = await open(join(folder, name), 'w');
    try {
      await file.write(Buffer.concat([length, text]));
      await writer.write(file, end);
    } finally {
      await file.close();
    }
  }
  await writeFile(
    join(folder, 'diffusion_pytorch_model.safetensors.index.json'),
    JSON.stringify({ metadata: { total_size: total }, weight_map: map }),
  );
  return total;
}

/** Writes the whole checkpoint and tells the bytes of its expert. */
export async function writeFullSizeCheckpoint(folder: string, options: FullSizeOptions): Promise<number> {
  const text = { ...TEXT_ENCODER, d_model: 4096, num_heads: 1 };
  const files = {
    'model_index.json': { ...MODEL_INDEX, boundary_ratio: null, transformer_2: [null, null] },
    'scheduler/scheduler_config.json': SCHEDULER,
    'tokenizer/tokenizer.json': { model: { type: 'Unigram', vocab: [['<pad>', 0]] } },
    'text_encoder/config.json': text,
    'transformer/config.json': transformerConfig(options),
    'vae/config.json': VAE,
  };
  for (const [path, value] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), JSON.stringify(value));
  }
  const umt5 = componentTensors(1, umt5Shapes(parseUmt5Config(text, 'text_encoder')), HUGGING_FACE_UMT5);
  await writeFile(join(folder, 'text_encoder/model.safetensors'), safetensors(umt5));
  const vae = parseVaeConfig(VAE, 'vae');
  const decoder = safetensors(componentTensors(2, vaeShapes(vae), diffusersVae(vae)));
  await writeFile(join(folder, 'vae/diffusion_pytorch_model.safetensors'), decoder);
  return writeExpert(join(folder, 'transformer'), options);
}
