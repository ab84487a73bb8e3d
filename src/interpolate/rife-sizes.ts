import { RIFE_HEAD_PLANES, RIFE_RESIDUALS, type RifeConfig, rifeInputs } from '../part';

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
