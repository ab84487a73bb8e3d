import type { QuantizedRows } from './quantize';

/** One tensor of somebody's file, whatever its storage. */
export interface FileTensor {
  /** PyTorch axis order. */
  shape: number[];
  /** Storage in the words of the file's format, e.g. "F16", "Q4_K", "F8_E4M3 scaled by row". */
  storage: string;
  /** Bytes in the file, scales included. */
  sizeBytes: number;
  /**
   * Elements `begin` to `end` (exclusive), row-major, as the format defines their values. Both must lie between rows
   * for storage in blocks. Absent for what holds no floats.
   */
  readFloats?(begin: number, end: number): Promise<Float32Array>;
  /** The whole tensor's bytes, for what holds no floats. */
  readBytes?(): Promise<Uint8Array>;
  /** Present where the stored blocks are ours at these sizes, so that they are moved instead of quantised again. */
  blocks?: { bits: readonly (4 | 8)[]; read(begin: number, end: number, bits: 4 | 8): Promise<QuantizedRows> };
}
