import {
  isRifeTransposed,
  RIFE_ENCODER_WIDTH,
  RIFE_RESIDUALS,
  type RifeConfig,
  rifeHeadPlanes,
  rifeInputs,
  rifeShapes,
} from '../part/rife';

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

/** Sizes of the encoder's tensors without their borders. */
export function encoderSizes(size: Size): { input: Size; half: Size } {
  return { input: size, half: [size[0] / 2, size[1] / 2] };
}

/** Multiply-adds of encoding one frame, which all frames made from it share; 0 for networks without an encoder. */
export function rifeEncoderMac(config: RifeConfig, width: number, height: number): number {
  if (config.encoder === 0) return 0;
  const { half } = encoderSizes([padded(height, config), padded(width, config)]);
  const inner = RIFE_ENCODER_WIDTH;
  return half[0] * half[1] * (9 * (3 * inner + 2 * inner * inner) + 16 * inner * config.encoder);
}

/**
 * Multiply-adds of one frame between two, their encoding aside: 3 × 3 convolutions, and 4 × 4 to the head's planes of 2
 * × 2 pixels.
 */
export function rifeMac(config: RifeConfig, width: number, height: number): number {
  const size: Size = [padded(height, config), padded(width, config)];
  return config.channels.reduce((sum, channels, block) => {
    const { half, quarter } = blockSizes(size, config.scales[block]!);
    const conv = (at: Size, into: number, out: number) => at[0] * at[1] * into * out * 9;
    return (
      sum +
      conv(half, rifeInputs(config, block), channels / 2) +
      conv(quarter, channels / 2, channels) +
      RIFE_RESIDUALS * conv(quarter, channels, channels) +
      quarter[0] * quarter[1] * 16 * channels * 4 * rifeHeadPlanes(config)
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
  const picture = (16 + 4 * config.encoder) * pixels;
  const tensors = [16 * pixels, 4 * pixels, 12 * width * height]; // flow, mask, colours
  for (const [block, channels] of config.channels.entries()) {
    const { input, half, quarter } = blockSizes(size, config.scales[block]!);
    const features = bordered(quarter, channels);
    const entry = bordered(input, Math.ceil(rifeInputs(config, block) / 4) * 4);
    tensors.push(
      entry,
      bordered(half, channels / 2),
      features,
      features,
      4 * rifeHeadPlanes(config) * input[0] * input[1],
    );
  }
  if (config.encoder > 0) {
    const { input, half } = encoderSizes(size);
    const inner = bordered(half, RIFE_ENCODER_WIDTH);
    tensors.push(bordered(input, 4), inner, inner);
  }
  const scratch = tensors.reduce((sum, bytes) => sum + Math.ceil(bytes / 16) * 16, 0);
  return { waiting: scratch + picture, working: scratch + 2 * picture, largest: Math.max(picture, ...tensors) };
}

/** Bytes of the weights, packed as `RifeWeights` packs them: convolutions in `type`, biases in 32 bits. */
export function rifeWeightBytes(config: RifeConfig, type: 'f16' | 'f32'): number {
  let total = 0;
  for (const [name, [first, second, ...kernel]] of rifeShapes(config)) {
    // Channels that are read come in fours, but those of transposed layers, which have their count.
    const channels = first! * (isRifeTransposed(name) ? second! : Math.ceil(second! / 4) * 4);
    if (name.endsWith('.bias')) total += 4 * first!;
    else total += channels * kernel.reduce((product, side) => product * side, 1) * ELEMENT_BYTES[type];
  }
  return total;
}
