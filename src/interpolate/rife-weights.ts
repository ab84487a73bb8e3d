import { ZoetropeError } from '../errors';
import { encodeF16 } from '../floats';
import type { Gpu } from '../gpu/device';
import type { GpuTensor } from '../gpu/memory';
import type { TensorSource } from '../manifest';
import { isRifeTransposed, type RifeConfig, rifeConfig, rifeShapes } from '../part/rife';
import { loadConvs } from './conv-weights';

/** A convolution's weights, packed as its kernel takes them. */
export interface RifeConv {
  weight: GpuTensor;
  /** f32 [out]. */
  bias: GpuTensor;
  /** Channels read, rounded up to a multiple of 4 by weights that are zero. */
  into: number;
  out: number;
}

/** RIFE's weights in GPU buffers; whoever loaded them disposes them. */
export class RifeWeights implements Disposable {
  private readonly convs = new Map<string, RifeConv>();

  constructor(
    private readonly gpu: Gpu,
    readonly config: RifeConfig,
    /** Element type of weights and activations; flow, mask and pictures are f32. */
    readonly type: 'f16' | 'f32',
  ) {}

  /** The convolution of that name. */
  conv(name: string): RifeConv {
    const conv = this.convs.get(name);
    if (!conv) throw new ZoetropeError('internal', `Weight "${name}" of RIFE is not loaded.`);
    return conv;
  }

  /** Packs and uploads a convolution of a torch tensor. Called by {@link loadRife}. */
  add(name: string, values: Float32Array, shape: readonly number[], bias: Float32Array): void {
    const { memory } = this.gpu;
    const packed = isRifeTransposed(name) ? packDeconv(values, shape) : packConv(values, shape);
    const weight =
      this.type === 'f16'
        ? memory.upload(name, 'float16', [packed.weight.length], encodeF16(packed.weight))
        : memory.upload(name, 'float32', [packed.weight.length], packed.weight);
    this.convs.set(name, {
      weight,
      bias: memory.upload(`${name}.bias`, 'float32', [bias.length], bias),
      into: packed.into,
      out: packed.out,
    });
  }

  /** Frees every buffer. Safe to call twice. */
  [Symbol.dispose](): void {
    for (const { weight, bias } of this.convs.values()) {
      weight[Symbol.dispose]();
      bias[Symbol.dispose]();
    }
    this.convs.clear();
  }
}

/** torch's [out, into, 3, 3] in the order of `kernels/image-conv`: [into / 4, 9, 4, out]. */
export function packConv(
  values: Float32Array,
  shape: readonly number[],
): { weight: Float32Array; into: number; out: number } {
  const [out, channels] = shape as [number, number];
  const into = Math.ceil(channels / 4) * 4;
  const weight = new Float32Array(into * 9 * out);
  let from = 0;
  for (let o = 0; o < out; o++) {
    for (let i = 0; i < channels; i++) {
      for (let pixel = 0; pixel < 9; pixel++) {
        weight[(((i >> 2) * 9 + pixel) * 4 + (i & 3)) * out + o] = values[from++]!;
      }
    }
  }
  return { weight, into, out };
}

/**
 * torch's transposed [into, out, 4, 4] in the order of `kernels/deconv-shuffle` and `kernels/image-deconv`: [into / 4, 4 pixels, 4, 4 phases × out]. Output row
 * 2 i + py takes input row i - 1 + py + j with kernel row 3 - py - 2 j, and columns alike.
 */
export function packDeconv(
  values: Float32Array,
  shape: readonly number[],
): { weight: Float32Array; into: number; out: number } {
  const [into, out] = shape as [number, number];
  const weight = new Float32Array(into * 16 * out);
  for (let i = 0; i < into; i++) {
    for (let o = 0; o < out; o++) {
      for (let phase = 0; phase < 4; phase++) {
        for (let pixel = 0; pixel < 4; pixel++) {
          const ky = 3 - (phase >> 1) - 2 * (pixel >> 1);
          const kx = 3 - (phase & 1) - 2 * (pixel & 1);
          const at = (((i >> 2) * 4 + pixel) * 4 + (i & 3)) * 4 * out + phase * out + o;
          weight[at] = values[((i * out + o) * 4 + ky) * 4 + kx]!;
        }
      }
    }
  }
  return { weight, into, out };
}

/**
 * Reads RIFE's tensors one by one and uploads them, as half floats where the device has them. Frees what it made when it throws:
 * `bad-checkpoint` for another network, `aborted`, and what the source throws.
 * @param type default: f16 where the device has it.
 */
export async function loadRife(
  gpu: Gpu,
  source: TensorSource,
  signal?: AbortSignal,
  type: 'f16' | 'f32' = gpu.f16 ? 'f16' : 'f32',
): Promise<RifeWeights> {
  const config = rifeConfig(source.entries);
  const shapes = rifeShapes(config);
  return loadConvs(source, shapes, config.name, new RifeWeights(gpu, config, type), signal);
}
