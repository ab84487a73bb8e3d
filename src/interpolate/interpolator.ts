import type { DispatchOptions } from '../gpu/dispatch-queue';
import type { GpuTensor } from '../gpu/memory';

/** A frame of a clip on the GPU. Whoever made the tensor disposes it. */
export interface RgbFrame {
  /** Colours [3, frames, height, width] f32, about -1 to 1, not clamped. */
  rgb: GpuTensor;
  /** Which of the tensor's frames this is. */
  frame: number;
}

/** Makes the frames between two, for one size of picture. Holds scratch memory until it is disposed. */
export interface Interpolator<Prepared extends Disposable = Disposable> extends Disposable {
  /**
   * A frame as the network reads it, with whatever can be computed from it alone, so that both pairs that it belongs to
   * share that. It does not refer to the frame's tensor any more; the caller disposes it.
   */
  prepare(frame: RgbFrame): Promise<Prepared>;
  /**
   * The `count` frames between two, at equal distances, in the order of time. Each is valid until the next is asked
   * for. Calls must not overlap. Throws `aborted`, `out-of-memory`, `device-lost`.
   */
  between(before: Prepared, after: Prepared, count: number): AsyncGenerator<RgbFrame>;
}

/** A clip that frames are made for. */
export interface Clip extends DispatchOptions {
  /** Pixels of a frame. */
  width: number;
  height: number;
  /** Pixels [height, width] of a run, for networks that run in tiles. Default: chosen by the network. */
  tile?: readonly [number, number] | undefined;
}

/** A network on the GPU, ready for clips of any size. */
export interface InterpolatorModel {
  start(clip: Clip): Interpolator;
}
