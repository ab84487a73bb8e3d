import type { Acceleration, MagnitudeRatios } from '../manifest';
import type { Variant } from './variants';

/** Ratios that the authors of MagCache published for Wan's models, at the noise levels of their runs. */

/** First level of the official table: 1 - 1/1000 (Wan2.2 `wan/utils/fm_solvers_unipc.py`). */
const FIRST = 0.999;

/** The official levels of a run before its last 0, to six digits. */
function officialSigmas(steps: number, shift: number): number[] {
  return Array.from({ length: steps }, (_, index) => {
    const u = FIRST * (1 - index / steps);
    return Math.round((1e6 * shift * u) / (1 + (shift - 1) * u)) / 1e6;
  });
}

/** MagCache4Wan2.2 `magcache_generate.py`, T2V A14B: 40 steps at shift 12, of which 26 are of the high-noise expert. */
const A14B_SIGMAS = officialSigmas(40, 12);
const A14B_HIGH_STEPS = 26;
// biome-ignore format: a list of numbers
const A14B_CONDITIONAL = [1, 1.00124, 0.99822, 0.99696, 0.99703, 0.9966, 0.99602, 0.99578, 0.99484, 0.99633, 0.99659, 0.99534, 0.99584, 0.99681, 0.99563, 0.9944, 0.99594, 0.99466, 0.99453, 0.99389, 0.99391, 0.99354, 0.99283, 0.99268, 0.99057, 0.99125, 0.65523, 0.98808, 0.98765, 0.9851, 0.98311, 0.9805, 0.97776, 0.97278, 0.96731, 0.95857, 0.94385, 0.92118, 0.88108, 0.80263];
// biome-ignore format: a list of numbers
const A14B_UNCONDITIONAL = [1, 1.00155, 0.99851, 0.99687, 0.99732, 0.99679, 0.99658, 0.99664, 0.9949, 0.996, 0.99683, 0.99549, 0.99577, 0.99694, 0.99554, 0.99473, 0.9964, 0.99461, 0.99481, 0.99365, 0.99406, 0.99361, 0.99278, 0.99263, 0.99091, 0.99126, 0.65252, 0.98852, 0.98736, 0.98535, 0.98339, 0.9806, 0.97771, 0.97286, 0.96728, 0.95855, 0.94385, 0.921, 0.88076, 0.80181];

/** MagCache4Wan2.1 `magcache_generate.py`, T2V 1.3B: 50 steps at Wan 2.1's default shift of 5. */
const SMALL_SIGMAS = officialSigmas(50, 5);
// biome-ignore format: a list of numbers
const SMALL_CONDITIONAL = [1, 1.0124, 1.00166, 0.99791, 0.99682, 0.99634, 0.99567, 0.99416, 0.99578, 0.9957, 0.99511, 0.99535, 0.99552, 0.99541, 0.9954, 0.99489, 0.99518, 0.99484, 0.99481, 0.99415, 0.99419, 0.99396, 0.99388, 0.99349, 0.99309, 0.9927, 0.99228, 0.99171, 0.99137, 0.99068, 0.99005, 0.98944, 0.98849, 0.98758, 0.98644, 0.98504, 0.9836, 0.98202, 0.97977, 0.97717, 0.9741, 0.97003, 0.96538, 0.9593, 0.95086, 0.94013, 0.92402, 0.90241, 0.86821, 0.81838];
// biome-ignore format: a list of numbers
const SMALL_UNCONDITIONAL = [1, 1.02213, 1.0041, 1.00061, 0.99762, 0.99685, 0.99586, 0.99422, 0.99575, 0.99563, 0.99506, 0.99531, 0.99549, 0.99539, 0.99536, 0.99485, 0.99514, 0.99478, 0.99479, 0.99413, 0.99416, 0.99393, 0.99386, 0.99349, 0.99304, 0.9927, 0.99226, 0.9917, 0.99135, 0.99063, 0.99003, 0.98942, 0.98849, 0.98757, 0.98643, 0.98503, 0.98359, 0.98201, 0.97978, 0.97718, 0.97411, 0.97002, 0.96541, 0.95933, 0.95089, 0.94019, 0.92414, 0.9026, 0.86868, 0.81939];

/** The ratios of an expert's steps. Its first step has no step of the same expert before it. */
function expertRatios(
  sigmas: number[],
  conditional: number[],
  unconditional: number[],
  begin: number,
  end: number,
): MagnitudeRatios {
  return {
    sigmas: sigmas.slice(begin, end),
    conditional: [1, ...conditional.slice(begin + 1, end)],
    unconditional: [1, ...unconditional.slice(begin + 1, end)],
  };
}

/**
 * What is published for a variant; undefined where nothing is, and `zoetrope calibrate` has to measure.
 *
 * A14B: the threshold of the authors' example, 0.06, with their default retention of 0.2; their example's 0.4 is for 40
 * steps at shift 12 and leaves too little to reuse of the endpoint's 27 at shift 5. 1.3B: the authors' recommendation.
 */
export function publishedAcceleration(variant: Variant): Acceleration | undefined {
  if (variant === 'a14b') {
    const of = (begin: number, end: number) =>
      expertRatios(A14B_SIGMAS, A14B_CONDITIONAL, A14B_UNCONDITIONAL, begin, end);
    const [high, low] = [of(0, A14B_HIGH_STEPS), of(A14B_HIGH_STEPS, A14B_SIGMAS.length)];
    return { threshold: 0.06, maxSkips: 2, retention: 0.2, high, low };
  }
  if (variant === '1.3b') {
    const high = expertRatios(SMALL_SIGMAS, SMALL_CONDITIONAL, SMALL_UNCONDITIONAL, 0, SMALL_SIGMAS.length);
    return { threshold: 0.12, maxSkips: 4, retention: 0.2, high };
  }
  return undefined;
}
