import { type ErrorDetail, ZoetropeError } from '../errors';
import type { AspectRatio, Resolution } from '../manifest';
import type { ResolvedRequest } from '../request';

/** Labels from the largest on. */
const RESOLUTIONS: readonly Resolution[] = ['720p', '580p', '480p'];
const RATIOS: readonly AspectRatio[] = ['16:9', '9:16', '1:1'];
/** Fewest frames that the endpoint takes. */
const LEAST_FRAMES = 17;

/** Fields in which the nearest request may differ. */
export type NearestFields = Pick<ResolvedRequest, 'resolution' | 'num_frames' | 'interpolator_model' | 'aspect_ratio'>;

/**
 * The request nearest to one that does not fit: all else equal a lower resolution; else fewer frames, as many as
 * possible; then the same without frames in between; then another aspect ratio. Undefined where nothing fits.
 * @param fits tells whether a request does; of one with fewer frames, all else equal, it must not be false where more
 * frames fit.
 */
export function nearestRequest(
  request: ResolvedRequest,
  fits: (request: ResolvedRequest) => boolean,
): ResolvedRequest | undefined {
  const ratios = [request.aspect_ratio, ...RATIOS.filter((ratio) => ratio !== request.aspect_ratio)];
  const resolutions = RESOLUTIONS.slice(RESOLUTIONS.indexOf(request.resolution));
  for (const aspect_ratio of ratios) {
    for (const interpolator_model of new Set([request.interpolator_model, 'none'] as const)) {
      const sized = resolutions.map((resolution) => ({ ...request, aspect_ratio, interpolator_model, resolution }));
      const lower = sized.find(fits);
      if (lower) return lower;
      const shorter = sized.map((each) => mostFrames(each, fits)).filter((each) => each !== undefined);
      const [longest] = shorter.sort((a, b) => b.num_frames - a.num_frames); // of equal length the highest resolution
      if (longest) return longest;
    }
  }
  return undefined;
}

/** The most frames below a request's own that fit, of those that the model makes: 4k + 1. */
function mostFrames(
  request: ResolvedRequest,
  fits: (request: ResolvedRequest) => boolean,
): ResolvedRequest | undefined {
  const framed = (k: number) => ({ ...request, num_frames: 4 * k + 1 });
  let least = (LEAST_FRAMES - 1) / 4;
  let beyond = Math.ceil((request.num_frames - 1) / 4);
  if (least >= beyond || !fits(framed(least))) return undefined;
  while (beyond - least > 1) {
    const middle = (least + beyond) >> 1;
    if (fits(framed(middle))) least = middle;
    else beyond = middle;
  }
  return framed(least);
}

/** What a refusal says in `detail`'s `ctx`. */
export interface Refusal {
  /** Least budget that would do; null where the device's bindings are too small for any. */
  needsBytes: number | null;
  budgetBytes: number;
  /** Fields of the nearest request that fits; null where none does. */
  nearest: NearestFields | null;
}

/** The error for a request that does not fit. @param leastBytes see {@link Refusal.needsBytes}; Infinity for null. */
export function refusal(
  request: ResolvedRequest,
  nearest: ResolvedRequest | undefined,
  leastBytes: number,
  budgetBytes: number,
): ZoetropeError {
  const needsBytes = Number.isFinite(leastBytes) ? leastBytes : null;
  const why =
    needsBytes === null
      ? `${named(request)} has tensors that exceed what this device binds at once.`
      : `${named(request)} needs ${bytesText(needsBytes, Math.ceil)} of GPU memory at least, the budget is ${bytesText(budgetBytes, Math.floor)}.`;
  const way = nearest ? ` ${named(nearest)} fits.` : ' No other size of this model fits either.';
  const more = needsBytes === null ? '' : ' Use that, or a larger budget.';
  const { resolution, num_frames, interpolator_model, aspect_ratio } = nearest ?? request;
  const ctx: Refusal = {
    needsBytes,
    budgetBytes,
    nearest: nearest ? { resolution, num_frames, interpolator_model, aspect_ratio } : null,
  };
  const msg = `${why}${way}${nearest ? more : ' Use a larger budget or a smaller model.'}`;
  const detail: ErrorDetail[] = [
    { loc: ['body', 'resolution'], msg, type: 'out_of_memory', ctx: { ...ctx }, input: request.resolution },
  ];
  return new ZoetropeError('out-of-memory', msg, { detail });
}

/** A request by what decides its memory. */
export function named({
  resolution,
  aspect_ratio,
  num_frames,
  interpolator_model,
  num_interpolated_frames,
}: ResolvedRequest): string {
  const between = num_interpolated_frames > 0 && interpolator_model !== 'none' ? ` with ${interpolator_model}` : '';
  return `${resolution} ${aspect_ratio} with ${num_frames} frames${between}`;
}

/** `9.8 GB`: one digit behind the point from a gigabyte on. @param round to the next digit, up for what is needed. */
export function bytesText(bytes: number, round: (value: number) => number = Math.round): string {
  if (bytes >= 1e9) return `${(round(bytes / 1e8) / 10).toFixed(1)} GB`;
  return bytes >= 1e6 ? `${round(bytes / 1e6)} MB` : `${Math.max(1, round(bytes / 1e3))} kB`;
}
