import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { diskFolder } from '../../src/cli/files';
import type { Gpu } from '../../src/gpu/device';
import type { GpuTensor } from '../../src/gpu/memory';
import { loadRife, type RifeWeights } from '../../src/interpolate/rife-weights';
import { openPart } from '../../src/store/verified';

/** RIFE for tests: the shipped weights and the stored cases of the network. */

/** The part's folder that comes with the repository. */
export const rifeFolder = resolve(import.meta.dirname, '../../public/models/rife');

/** Folder with the original weights and the reference outputs. */
export const rifeReference = resolve(import.meta.dirname, '../../../shared/data/rife');
export const hasRifeReference = existsSync(resolve(rifeReference, 'golden.bin'));

/** The shipped weights on a device. */
export async function shippedRife(gpu: Gpu, type?: 'f16' | 'f32'): Promise<RifeWeights> {
  const part = await openPart(diskFolder(rifeFolder), 'rife');
  return loadRife(gpu, part.open(), undefined, type);
}

/** The stored tensors of the reference outputs, by name, planes of f32. */
export function rifeGolden(folder = rifeReference): Map<string, { shape: number[]; values: Float32Array }> {
  const { tensors } = JSON.parse(readFileSync(resolve(folder, 'golden.json'), 'utf8')) as {
    tensors: Record<string, { shape: number[]; offset: number; bytes: number }>;
  };
  const bytes = readFileSync(resolve(folder, 'golden.bin'));
  return new Map(
    Object.entries(tensors).map(([name, { shape, offset, bytes: length }]) => [
      name,
      {
        shape,
        values: new Float32Array(bytes.buffer.slice(bytes.byteOffset + offset, bytes.byteOffset + offset + length)),
      },
    ]),
  );
}

/** Planes [3, h, w] in 0..1 as a frame of a clip, in -1..1. */
export function uploadFrame(gpu: Gpu, values: Float32Array, [, height, width]: readonly number[]): GpuTensor {
  return gpu.memory.upload(
    'frame',
    'float32',
    [3, 1, height!, width!],
    values.map((value) => 2 * value - 1),
  );
}

/** Values of a frame of a clip, in 0..1. */
export async function readFrame(gpu: Gpu, rgb: GpuTensor): Promise<Float32Array> {
  return (await gpu.memory.readFloats(rgb)).map((value) => (value + 1) / 2);
}
