import type { Gpu } from '../gpu/device';
import type { TensorSource } from '../manifest';
import { isRifeTransposed, type RifeConfig, rifeConfig, rifeShapes } from '../part/rife';
import { ConvWeights, loadConvs, type PackedConv } from './conv-weights';

/** RIFE's weights in GPU buffers; flow, mask and pictures are f32. */
export class RifeWeights extends ConvWeights {
  constructor(
    gpu: Gpu,
    readonly config: RifeConfig,
    type: 'f16' | 'f32',
  ) {
    super(gpu, 'RIFE', type);
  }

  override add(name: string, values: Float32Array, shape: readonly number[], bias: Float32Array): void {
    const packed = isRifeTransposed(name) ? packDeconv(values, shape) : packConv(values, shape);
    this.upload(name, packed, bias, this.type);
  }
}

/** torch's [out, into, 3, 3] in the order of `kernels/image-conv`: [into / 4, 9, 4, out]. */
export function packConv(values: Float32Array, shape: readonly number[]): PackedConv {
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
 * torch's transposed [into, out, 4, 4] in the order of `kernels/deconv-shuffle` and `kernels/image-deconv`:
 * [into / 4, 4 pixels, 4, 4 phases × out]. Output row 2 i + py takes input row i - 1 + py + j with kernel row 3 - py -
 * 2 j, and columns alike.
 */
export function packDeconv(values: Float32Array, shape: readonly number[]): PackedConv {
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
 * Reads RIFE's tensors one by one and uploads them, as half floats where the device has them. Frees what it made when
 * it throws: `bad-checkpoint` for another network, `aborted`, and what the source throws.
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
