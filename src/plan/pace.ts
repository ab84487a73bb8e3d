/** How fast a device is, and how long a stage's work then takes. */

/** Rates of a device, each above 0, as its probe measured them on this project's own graphs and kernels. */
export interface Pace {
  /** Operations a second of matrix products, as graphs of 4-bit weights do them. */
  products: number;
  /** Of attention. */
  attention: number;
  /** Of the decoder's and the interpolators' convolutions. */
  convolutions: number;
  /** Bytes a second that weights are written to the GPU. */
  upload: number;
}

/** Operations of a stage by what does them (a multiply-add counts as two), and the weights that it needs. */
export interface StageWork {
  products: number;
  attention: number;
  convolutions: number;
  /** Bytes of weights that are written to the GPU, every time that they are. */
  uploadBytes: number;
  /** Whether they are written while others compute. */
  overlapped: boolean;
}

/** All operations of a stage. */
export function operations({ products, attention, convolutions }: StageWork): number {
  return products + attention + convolutions;
}

/** Seconds that a stage takes at a pace. Reading weights from network or disk is not in it. */
export function stageSeconds(work: StageWork, pace: Pace): number {
  const compute =
    work.products / pace.products + work.attention / pace.attention + work.convolutions / pace.convolutions;
  const upload = work.uploadBytes / pace.upload;
  return work.overlapped ? Math.max(compute, upload) : compute + upload;
}

/** A device that does everything at one rate, for estimates without one. @param flops operations a second. */
export function evenPace(flops: number): Pace {
  // 5 GB/s: half of what a PCIe 3.0 slot of 16 lanes moves.
  return { products: flops, attention: flops, convolutions: flops, upload: 5e9 };
}

/** Seconds that a dispatch may take. Windows ends those of two seconds; people wait for a cancel. */
const DISPATCH_SECONDS = 0.1;

/** Multiply-adds in one dispatch where the pace is not known: 100 ms of a GPU of 1 TFLOP/s. */
const MAC_GPU = 5e10;
/** The same on CPU drivers, where no watchdog waits: SwiftShader at about 1 GFLOP/s does it in 400 ms. */
const MAC_CPU = 2e8;

/**
 * The same for the convolutions of decoder and interpolators; undefined leaves it to them (`gpu/dispatch-queue.ts`).
 * @param flops their rate.
 */
export function convolutionMac(cpu: boolean, flops: number | undefined): number | undefined {
  return cpu || flops === undefined ? undefined : (DISPATCH_SECONDS * flops) / 2;
}

/**
 * Multiply-adds that one dispatch may have on a device.
 * @param flops its rate for such dispatches; undefined: not measured.
 */
export function dispatchMac(cpu: boolean, flops: number | undefined): number {
  if (cpu) return MAC_CPU;
  return flops === undefined ? MAC_GPU : (DISPATCH_SECONDS * flops) / 2;
}
