import { type VaeConfig, vaeShapes } from '../../src/config';
import { encodeF16 } from '../../src/floats';
import type { TensorSource } from '../../src/manifest';
import { seededFloats } from './near';

/** A decoder of the real architecture with the fewest channels that the kernels take. */
export const TINY_VAE: VaeConfig = {
  baseDim: 4,
  zDim: 8,
  dimMult: [1, 2, 4, 4],
  numResBlocks: 1,
  temporalUpsample: [true, true, false],
  latentsMean: Array.from({ length: 8 }, (_, i) => i / 8 - 0.5),
  latentsStd: Array.from({ length: 8 }, (_, i) => 0.5 + i / 8),
};

/** A tensor in torch's order. */
export interface TinyTensor {
  shape: number[];
  values: Float32Array;
}

/** Random weights that keep activations near 1: convolutions scaled by their inputs, gammas about 1. */
export function tinyVaeTensors(config: VaeConfig, seed: number): Map<string, TinyTensor> {
  return new Map(
    [...vaeShapes(config)].map(([name, shape], i) => {
      const count = shape.reduce((product, size) => product * size, 1);
      const inputs = count / shape[0]!;
      const scale = name.endsWith('.weight') ? 1 / Math.sqrt(inputs) : 0.2;
      const values = seededFloats(1000 * seed + i, count, scale);
      return [name, { shape, values: name.endsWith('.gamma') ? values.map((value) => 1 + value) : values }];
    }),
  );
}

/** Tensors as a model folder holds them. */
export function tinySource(tensors: ReadonlyMap<string, TinyTensor>, dtype: 'F32' | 'F16' = 'F32'): TensorSource {
  return {
    entries: new Map([...tensors].map(([name, { shape }]) => [name, { dtype, shape }])),
    async read(name) {
      const { values } = tensors.get(name)!;
      const { buffer, byteOffset, byteLength } = dtype === 'F16' ? encodeF16(values) : values;
      return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
    },
  };
}
