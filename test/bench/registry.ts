import type { Gpu } from '../../src/gpu/device';
import type { Ort } from '../../src/gpu/ort';

/** What a bench gets. */
export interface BenchContext {
  readonly gpu: Gpu;
  readonly ort: Ort;
  /** The adapter computes on the CPU: sizes that a GPU does in a second take it minutes. */
  readonly cpuDriver: boolean;
}

/** One variant at one size. */
export interface Row {
  /** Name of the bench. */
  bench: string;
  /** The size, e.g. `1024 tokens × 2 heads × 128`. Rows of one shape are compared. */
  shape: string;
  /** Whose code and element type, e.g. `zoetrope f32`. */
  variant: string;
  /** Milliseconds of a run: median, fastest and slowest of `rounds`. */
  medianMs: number;
  minMs: number;
  maxMs: number;
  rounds: number;
  /** Speed against the shape's first variant: the median over the rounds of its time divided by this one's. */
  ratio: number;
  /** Floating-point operations of a run, in 1e9 a second of the median. */
  gflops: number;
  /** Largest relative L2 error and error of an element against float64, where the bench has a reference. */
  error?: { relativeL2: number; maxAbs: number };
}

/** A measurement of ours beside what else could do the work. Throws when a result is wrong. */
export interface Bench {
  readonly name: string;
  run(context: BenchContext): Promise<Row[]>;
}
