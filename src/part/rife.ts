import type { Shapes } from '../config';
import { ZoetropeError } from '../errors';
import type { TensorEntry } from '../manifest';

/** The flow networks of the RIFE 4 family: what tells them apart, and the tensors that they are made of. */

/** The pictures' size divided by that which a block works at. */
export type RifeScale = 1 | 2 | 4 | 8 | 16 | 32;

/** A network of the family; Practical-RIFE, `IFNet_HDv3.py` of the version. */
export interface RifeConfig {
  /** Name for people. */
  name: string;
  /** Channels of each block, in order. Multiples of 8: a block's first layer makes half of them. */
  channels: readonly number[];
  /** Scale of each block. */
  scales: readonly RifeScale[];
  /** Pictures are extended to multiples of this: the coarsest block works at a fourth of its scale. */
  multiple: number;
  /**
   * Channels that the encoder makes of a picture, a multiple of 4, or 0 without one. Networks with one replace the mask
   * in each block, and pass {@link RIFE_PASSED} channels on from block to block; those without add to the mask.
   */
  encoder: number;
}

/** RIFE 4.6: four blocks, no image encoder. */
export const RIFE_46: RifeConfig = {
  name: 'RIFE 4.6',
  channels: [192, 128, 96, 64],
  scales: [8, 4, 2, 1],
  multiple: 32,
  encoder: 0,
};

/** Residual convolutions of a block. */
export const RIFE_RESIDUALS = 8;
/** Channels of the encoder's three inner layers. */
export const RIFE_ENCODER_WIDTH = 16;
/** Channels that a block of a network with an encoder passes on to the next. */
export const RIFE_PASSED = 8;
/** Channels of the last block by which 4.25.lite differs from 4.25: it works at other scales. */
const LITE_CHANNELS = 24;
/** Blocks of the networks that are read; the fifth came with 4.25. */
const [LEAST_BLOCKS, MOST_BLOCKS] = [4, 5];

/** Versions by encoder and blocks' channels. 4.25 and 4.26 differ in their training alone. */
const NAMES: Readonly<Record<string, string>> = {
  '0: 192,128,96,64': RIFE_46.name,
  '8: 192,128,64,32': 'RIFE 4.22.lite',
  '4: 192,128,96,64,32': 'RIFE 4.25/4.26',
  '4: 192,128,96,64,24': 'RIFE 4.25.lite',
  '4: 384,256,192,128,64': 'RIFE 4.25.heavy',
  '16: 192,128,96,64,32': 'RIFE 4.26.heavy',
};

/**
 * Channels that a block reads: pictures, what the encoder made of them, and time; from the second one on mask, what is
 * passed on, and flow too.
 */
export function rifeInputs({ encoder }: RifeConfig, block: number): number {
  const first = 7 + 2 * encoder;
  return block === 0 ? first : first + 1 + rifePassed({ encoder }) + 4;
}

/** Channels that a block passes on to the next one. */
export function rifePassed({ encoder }: Pick<RifeConfig, 'encoder'>): number {
  return encoder > 0 ? RIFE_PASSED : 0;
}

/**
 * Planes of a block's head behind its pixel shuffle: four of flow, the mask, and what is passed on, where RIFE 4.6 has
 * one plane that nothing reads.
 */
export function rifeHeadPlanes(config: RifeConfig): number {
  return 5 + Math.max(1, rifePassed(config));
}

/**
 * Every tensor of the network, by its PyTorch name, in the order of use. `convblock.K.beta` is not among them: it is
 * multiplied into weight and bias, as ncnn's files have it.
 */
export function rifeShapes(config: RifeConfig): Shapes {
  const shapes: Shapes = new Map();
  const conv = (name: string, bias: number, ...weight: number[]) => {
    shapes.set(`${name}.weight`, weight);
    shapes.set(`${name}.bias`, [bias]);
  };
  const { channels, encoder } = config;
  if (encoder > 0) {
    const width = RIFE_ENCODER_WIDTH;
    conv('encode.cnn0', width, width, 3, 3, 3);
    conv('encode.cnn1', width, width, width, 3, 3);
    conv('encode.cnn2', width, width, width, 3, 3);
    conv('encode.cnn3', encoder, width, encoder, 4, 4);
  }
  const head = 4 * rifeHeadPlanes(config);
  channels.forEach((width, block) => {
    const name = `block${block}`;
    const half = width / 2;
    conv(`${name}.conv0.0.0`, half, half, rifeInputs(config, block), 3, 3);
    conv(`${name}.conv0.1.0`, width, width, half, 3, 3);
    for (let k = 0; k < RIFE_RESIDUALS; k++) conv(`${name}.convblock.${k}.conv`, width, width, width, 3, 3);
    conv(`${name}.lastconv.0`, head, width, head, 4, 4);
  });
  return shapes;
}

/** Tensors of the part's shard, in the order of use: weights in half floats, biases in 32 bits. */
export function rifeEntries(config: RifeConfig): Map<string, TensorEntry> {
  const entry = (name: string, shape: number[]): TensorEntry => ({
    dtype: name.endsWith('.bias') ? 'F32' : 'F16',
    shape,
  });
  return new Map(Array.from(rifeShapes(config), ([name, shape]) => [name, entry(name, shape)]));
}

/** Whether the weights of this name are those of a transposed convolution, [into, out, 4, 4]. */
export function isRifeTransposed(name: string): boolean {
  return name.includes('.lastconv.') || name.startsWith('encode.cnn3');
}

/**
 * The network that these tensors are of, by the sizes of its first layers; whether all the others fit is for whoever
 * compares them with {@link rifeShapes}. Throws `bad-checkpoint` for tensors that are no RIFE's, and for versions that
 * are not read: 4.0 to 4.5, whose blocks end otherwise, and 4.7 to 4.21, whose encoder or head does.
 */
export function rifeConfig(entries: ReadonlyMap<string, TensorEntry>): RifeConfig {
  const refuse = (why: string): never => {
    throw new ZoetropeError(
      'bad-checkpoint',
      `The interpolator is no RIFE that this build runs: ${why}. Use RIFE 4.6, 4.22.lite, 4.25 or 4.26.`,
    );
  };
  const channels: number[] = [];
  for (let block = 0; block <= MOST_BLOCKS; block++) {
    const name = `block${block}.conv0.1.0.weight`;
    const width = entries.get(name)?.shape[0];
    if (width === undefined) break;
    if (!(width >= 8 && width % 8 === 0 && width <= 4096))
      refuse(`"${name}" makes ${width} channels, not eights of them`);
    channels.push(width);
  }
  if (channels.length < LEAST_BLOCKS || channels.length > MOST_BLOCKS) {
    refuse(`it has ${channels.length} blocks, ${LEAST_BLOCKS} or ${MOST_BLOCKS} were expected`);
  }
  const encoder = encoderChannels(entries, refuse);
  const name =
    NAMES[`${encoder}: ${channels}`] ?? `RIFE of ${channels} channels${encoder > 0 ? `, ${encoder} encoded` : ''}`;
  return { name, channels, encoder, ...rifeScales(channels) };
}

/** Channels that the encoder makes, 0 without one. */
function encoderChannels(entries: ReadonlyMap<string, TensorEntry>, refuse: (why: string) => never): number {
  const encoding = [...entries.keys()].find((name) => name.startsWith('encode.'));
  if (encoding === undefined) return 0;
  const last = 'encode.cnn3.weight';
  const made = entries.get(last)?.shape[1];
  if (made === undefined) return refuse(`it has "${encoding}" and no "${last}", as versions 4.7 to 4.21 do`);
  if (made < 4 || made % 4 !== 0 || made > 64) refuse(`"${last}" makes ${made} channels, fours up to 64 were expected`);
  return made;
}

/** Scales of the blocks, and what the pictures' sides are multiples of. */
function rifeScales(channels: readonly number[]): Pick<RifeConfig, 'scales' | 'multiple'> {
  if (channels.length === LEAST_BLOCKS) return { scales: [8, 4, 2, 1], multiple: 32 };
  if (channels.at(-1) === LITE_CHANNELS) return { scales: [32, 16, 8, 4, 1], multiple: 128 };
  return { scales: [16, 8, 4, 2, 1], multiple: 64 };
}
