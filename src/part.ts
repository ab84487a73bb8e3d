/** Optional parts that lie beside a model, in folders of their own: what such a folder states, and the networks it may hold. */
import type { Shapes } from './config';
import { ZoetropeError } from './errors';
import type { ManifestFile, TensorEntry } from './manifest';

/** Parts that have a folder. */
export type PartName = 'film' | 'rife';

/**
 * Contents of a part's `zoetrope.json`. A part is found at `../<part>/` of a model folder, so that models of one server share it;
 * `part` tells its manifest from a model's.
 */
export interface PartManifest {
  /** Version of this file's layout. */
  format: 1;
  part: PartName;
  /** Name for people, e.g. "RIFE 4.6". */
  name: string;
  /** SPDX identifier of the weights' licence. */
  license: string;
  /** Safetensors shards. */
  files: ManifestFile[];
}

/** A flow network of the RIFE 4 family. */
export interface RifeConfig {
  /** Name for people. */
  name: string;
  /** Channels of each block, in order. */
  channels: readonly number[];
  /** The pictures' size divided by that which each block works at. */
  scales: readonly (1 | 2 | 4 | 8 | 16)[];
  /** Pictures are extended to multiples of this: the coarsest block works at a fourth of its scale. */
  multiple: number;
}

/** Practical-RIFE 4.6, `IFNet_HDv3.py`: four blocks, no image encoder. */
export const RIFE_46: RifeConfig = {
  name: 'RIFE 4.6',
  channels: [192, 128, 96, 64],
  scales: [8, 4, 2, 1],
  multiple: 32,
};

/** Residual convolutions of a block. */
export const RIFE_RESIDUALS = 8;
/** Planes of a block's head before its pixel shuffle: four each for flow (4), mask, and one that nothing reads. */
export const RIFE_HEAD_PLANES = 6;

/** Channels that a block reads: pictures and time; from the second one on mask and flow too. */
export function rifeInputs(block: number): number {
  return block === 0 ? 7 : 12;
}

/**
 * Every tensor of the network, by its PyTorch name, in the order of use. `convblock.K.beta` is not among them: it is multiplied
 * into weight and bias, as ncnn's files have it.
 */
export function rifeShapes({ channels }: RifeConfig): Shapes {
  const shapes: Shapes = new Map();
  channels.forEach((width, block) => {
    const conv = (name: string, bias: number, ...weight: number[]) => {
      shapes.set(`block${block}.${name}.weight`, weight);
      shapes.set(`block${block}.${name}.bias`, [bias]);
    };
    const half = width / 2;
    conv('conv0.0.0', half, half, rifeInputs(block), 3, 3);
    conv('conv0.1.0', width, width, half, 3, 3);
    for (let k = 0; k < RIFE_RESIDUALS; k++) conv(`convblock.${k}.conv`, width, width, width, 3, 3);
    conv('lastconv.0', 4 * RIFE_HEAD_PLANES, width, 4 * RIFE_HEAD_PLANES, 4, 4);
  });
  return shapes;
}

/**
 * The network that these tensors are of. Throws `bad-checkpoint` for versions that this build does not run: those from 4.7 on
 * have an image encoder (`encode.*`), those from 4.25 on a fifth block.
 */
export function rifeConfig(entries: ReadonlyMap<string, TensorEntry>): RifeConfig {
  const newer = [...entries.keys()].find((name) => name.startsWith('encode.') || name.startsWith('block4.'));
  if (newer === undefined) return RIFE_46;
  throw new ZoetropeError(
    'bad-checkpoint',
    `The interpolator has "${newer}", so it is RIFE 4.7 or newer; this build runs ${RIFE_46.name}. Use the weights of that version.`,
  );
}
