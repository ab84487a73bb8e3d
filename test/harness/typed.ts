import { decodeF16, encodeF16 } from '../../src/floats';
import type { Gpu } from '../../src/gpu/device';
import type { GpuTensor } from '../../src/gpu/memory';
import type { Tolerance } from './near';

/** Element type of a kernel's tensors. */
export type FloatType = 'f16' | 'f32';

/**
 * One conversion to f16 at the end, which WGSL lets round up or down: relative 2^-10 at most, 5.6e-4 as a root mean
 * square. Halves below 64 lie 2^-5 apart at most.
 */
export const F16_STORE: Tolerance = { relativeL2: 6e-4, maxAbs: 0.032 };

/** The values as the type holds them, so that a reference sees what the kernel does. */
export function asHeld(type: FloatType, values: Float32Array): Float32Array {
  return type === 'f16' ? decodeF16(encodeF16(values)) : values;
}

/** Values in a tensor of the type, flat. */
export function uploadAs(gpu: Gpu, type: FloatType, values: Float32Array): GpuTensor {
  const half = type === 'f16';
  return gpu.memory.upload('values', half ? 'float16' : 'float32', [values.length], half ? encodeF16(values) : values);
}

/** Values of a tensor of either type. */
export async function readAs(gpu: Gpu, type: FloatType, tensor: GpuTensor): Promise<Float32Array> {
  const { buffer } = await gpu.memory.read(tensor);
  return type === 'f16' ? decodeF16(new Uint16Array(buffer)) : new Float32Array(buffer);
}
