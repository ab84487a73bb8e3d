import { RIFE_HEAD_PLANES, RIFE_RESIDUALS, type RifeConfig, rifeInputs, rifeShapes } from '../part';

/** Sizes and work of RIFE, apart from its kernels, which a plan does not need. */

/** Pixels [height, width]. */
export type Size = readonly [height: number, width: number];

/** Pixels of a side, extended to what the network takes. */
export function padded(side: number, { multiple }: RifeConfig): number {
  return Math.ceil(side / multiple) * multiple;
}

/** Sizes of a block's tensors without their borders. */
export function blockSizes(size: Size, scale: number): { input: Size; half: Size; quarter: Size } {
  const at = (divisor: number): Size => [size[0] / divisor, size[1] / divisor];
  return { input: at(scale), half: at(2 * scale), quarter: at(4 * scale) };
}

/** Multiply-adds of one frame between two: 3 × 3 convolutions, and 4 × 4 to the head's planes of 2 × 2 pixels. */
export function rifeMac(config: RifeConfig, width: number, height: number): number {
  const size: Size = [padded(height, config), padded(width, config)];
  return config.channels.reduce((sum, channels, block) => {
    const { half, quarter } = blockSizes(size, config.scales[block]!);
    const conv = (at: Size, into: number, out: number) => at[0] * at[1] * into * out * 9;
    return (
      sum +
      conv(half, rifeInputs(block), channels / 2) +
      conv(quarter, channels / 2, channels) +
      RIFE_RESIDUALS * conv(quarter, channels, channels) +
      quarter[0] * quarter[1] * 16 * channels * 4 * RIFE_HEAD_PLANES
    );
  }, 0);
}

const ELEMENT_BYTES = { f16: 2, f32: 4 } as const;

/** What RIFE holds for a clip, as the ledger counts it. */
export interface RifeBytes {
  /** While the next frame is decoded: its scratch memory and the picture of the last frame. */
  waiting: number;
  /** At most while it makes the frames between two. */
  working: number;
  /** Largest tensor, weights aside. */
  largest: number;
}

/** Bytes for clips of `width` × `height` pixels. Follows `Rife` tensor by tensor. */
export function rifeBytes(config: RifeConfig, width: number, height: number, type: 'f16' | 'f32'): RifeBytes {
  const size: Size = [padded(height, config), padded(width, config)];
  const pixels = size[0] * size[1];
  const bordered = ([high, wide]: Size, channels: number) => (high + 2) * (wide + 2) * channels * ELEMENT_BYTES[type];
  const picture = 16 * pixels;
  const tensors = [16 * pixels, 4 * pixels, 12 * width * height]; // flow, mask, colours
  for (const [block, channels] of config.channels.entries()) {
    const { input, half, quarter } = blockSizes(size, config.scales[block]!);
    const features = bordered(quarter, channels);
    const entry = bordered(input, Math.ceil(rifeInputs(block) / 4) * 4);
    tensors.push(entry, bordered(half, channels / 2), features, features, 4 * RIFE_HEAD_PLANES * input[0] * input[1]);
  }
  const scratch = tensors.reduce((sum, bytes) => sum + Math.ceil(bytes / 16) * 16, 0);
  return { waiting: scratch + picture, working: scratch + 2 * picture, largest: Math.max(picture, ...tensors) };
}

/** Bytes of the weights, packed as `RifeWeights` packs them: convolutions in `type`, biases in 32 bits. */
export function rifeWeightBytes(config: RifeConfig, type: 'f16' | 'f32'): number {
  let total = 0;
  for (const [name, [first, second, ...kernel]] of rifeShapes(config)) {
    // Channels that are read come in fours, but those of the transposed last layer, which have their count.
    const channels = first! * (name.includes('.lastconv.') ? second! : Math.ceil(second! / 4) * 4);
    if (name.endsWith('.bias')) total += 4 * first!;
    else total += channels * kernel.reduce((product, side) => product * side, 1) * ELEMENT_BYTES[type];
  }
  return total;
}
