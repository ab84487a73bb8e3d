import type { Resolution } from '../manifest';
import type { ResolvedRequest } from '../request';

/** What the engine tells of a plan. */

/** A size of a request, and whether it fits. */
export interface PlannedSize {
  resolution: Resolution;
  /** Pixels. */
  width: number;
  height: number;
  /** Frames before interpolation. */
  frames: number;
  fits: boolean;
  /** Most bytes of GPU memory that a job holds; null where it does not fit. */
  peakBytes: number | null;
  /**
   * Estimated seconds, weights that are there and loading aside; null where nobody has measured the device, or it does
   * not fit.
   */
  seconds: number | null;
}

/** A stage of a job: the text encoder, the steps of an expert, the decoder with interpolation. */
export interface PlannedStage {
  name: 'text' | 'high' | 'low' | 'decode';
  /** Most bytes of GPU memory. */
  bytes: number;
  /** Floating-point operations; a multiply-add counts as two. */
  flop: number;
  seconds: number | null;
}

/**
 * What a request would take on this device, decided before anything is downloaded. Fields that say how are absent where
 * it is refused.
 */
export interface PlanReport extends PlannedSize {
  /** What a job may hold; null for no bound. */
  budgetBytes: number | null;
  /** One sentence for a person. */
  summary: string;
  /** The same with a table of the stages and what was decided, some lines of text. */
  explanation: string;
  stages: PlannedStage[];
  /** Experts' weights: `all` networks stay, `one` at a time, or blocks `streamed` through {@link slots}. */
  residency?: 'all' | 'one' | 'streamed';
  slots?: number | null;
  textEncoder?: 'whole' | 'streamed';
  /** Tokens that graphs take at once; the feed-forward network's slices too. */
  chunkTokens?: number;
  /** Groups of heads whose keys share a buffer, and the sweeps in which they are answered. */
  headGroups?: number;
  headSweeps?: number;
  /** Queries of one dispatch of attention. */
  queryRows?: number;
  branchOrder?: 'layer-major' | 'branch-major';
  textKeys?: 'kept' | 'each-block';
  /** Side of the decoder's tiles in latent positions of 8 pixels; null for whole frames. */
  vaeTile?: number | null;
  /** Pixels [height, width] of FILM's runs; null without FILM. */
  filmTile?: readonly [number, number] | null;
  flop?: number;
  /** Everything that the GPU holds, and in which stages. */
  buffers?: { name: string; count: number; bytes: number; largestBytes: number; from: string; to: string }[];
  /** The same request at lower resolutions, where those are other pixels. */
  lower: PlannedSize[];
  /**
   * Why it is refused, the least budget that would do (null: none would), and the nearest request that fits (null: none
   * does).
   */
  refused?: {
    message: string;
    needsBytes: number | null;
    nearest: Pick<ResolvedRequest, 'resolution' | 'num_frames' | 'interpolator_model' | 'aspect_ratio'> | null;
  };
}
