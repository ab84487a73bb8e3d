import type { VaeConfig } from '../config';
import { type FilmBytes, filmBytes, filmTileSizes, filmWeightBytes, type Size } from '../interpolate/film-tiles';
import { rifeBytes, rifeWeightBytes } from '../interpolate/rife-sizes';
import { FILM_STYLE, type FilmConfig } from '../part/film';
import { RIFE_46, type RifeConfig } from '../part/rife';
import type { VideoShape } from '../shape';
import { type DecoderBytes, decoderBytes, type HistoryType } from '../vae/memory';
import type { PlannedBuffers } from './buffers';
import { Memo } from './memo';

/** Networks beside the model. Default: the released ones. */
export interface Networks {
  film?: FilmConfig | undefined;
  rife?: RifeConfig | undefined;
}

/** What makes the frames between the decoded ones. */
export type InterpolatorName = 'film' | 'rife';

/** A way to decode and to interpolate. */
export interface DecodeChoice {
  /** Side of the decoder's tiles in latent positions, or null for whole frames. */
  tile: number | null;
  /** How the decoder keeps the past: half floats only where float32 does not fit. */
  historyType: HistoryType;
  /** Pixels [height, width] that FILM runs on; null without FILM. */
  filmTile: readonly [number, number] | null;
  /** What is held beside weights. */
  buffers: PlannedBuffers[];
  /** Weights of decoder and interpolator. */
  weights: PlannedBuffers[];
}

/** Bytes of FILM beyond which it runs in tiles though there is room: a frame of 720p takes 1.9 GB in half floats. */
const FILM_MOST_BYTES = 3 * 2 ** 30;
/**
 * Least side of a decoder's tile in latent positions: a halo of 6 on each side costs more than smaller ones could save.
 */
const LEAST_TILE = 8;

/** What decoding is planned for. */
export interface DecodeTask {
  vae: VaeConfig;
  shape: VideoShape;
  interpolator: InterpolatorName | null;
  networks: Networks;
  f16: boolean;
  /** Bytes that one tensor may have. */
  bindingBytes: number;
}

/**
 * The fastest way to decode that fits bindings and budget, or the bytes that the most frugal one would take; Infinity
 * where none fits the bindings.
 * @param budgetBytes what weights and buffers may take.
 */
export function decodeChoice(task: DecodeTask, budgetBytes: number): DecodeChoice | { leastBytes: number } {
  let leastBytes = Number.POSITIVE_INFINITY;
  for (const way of decoderWays(task)) {
    const found = withInterpolator(task, way, budgetBytes);
    if ('tile' in found) return found;
    leastBytes = Math.min(leastBytes, found.leastBytes);
  }
  return { leastBytes };
}

/** A decoder's tiling and histories, and its bytes. */
interface DecoderWay {
  tile: number | null;
  historyType: HistoryType;
  bytes: DecoderBytes;
}

const decoderMemory = new Memo<VaeConfig, DecoderWay[]>();
const filmMemory = new Memo<FilmConfig, { tile: Size; bytes: FilmBytes }[]>();
const weightMemory = new Memo<FilmConfig, number>();

/**
 * Ways to decode a size: whole frames, then ever more and smaller tiles, which are slower; those that are exact come
 * first.
 */
function allWays(vae: VaeConfig, { latentHeight, latentWidth }: VideoShape): DecoderWay[] {
  return decoderMemory.of(vae, `${latentHeight} ${latentWidth}`, () => {
    const longest = Math.max(latentHeight, latentWidth);
    const tiles = new Set<number | null>([null]);
    for (let count = 2; longest / count >= LEAST_TILE; count++) tiles.add(Math.ceil(longest / count));
    return (['f32', 'f16'] as const).flatMap((historyType) =>
      [...tiles].map((tile) => ({
        tile,
        historyType,
        bytes: decoderBytes(vae, latentHeight, latentWidth, tile, 2, historyType),
      })),
    );
  });
}

/** What FILM takes with each of its tiles, largest first. */
function filmWays(config: FilmConfig, { width, height, interpolatedFrames }: VideoShape, type: 'f16' | 'f32') {
  return filmMemory.of(config, `${width} ${height} ${interpolatedFrames} ${type}`, () =>
    filmTileSizes([height, width]).map((tile) => ({
      tile,
      bytes: filmBytes(config, [height, width], tile, type, interpolatedFrames),
    })),
  );
}

/** The ways whose tensors can be bound, without those that come later and take no less than an earlier one. */
function decoderWays({ vae, shape, bindingBytes }: DecodeTask): DecoderWay[] {
  const ways: DecoderWay[] = [];
  for (const way of allWays(vae, shape)) {
    if (way.bytes.largest > bindingBytes) continue;
    if (ways.some(({ bytes }) => bytes.peak <= way.bytes.peak)) continue;
    ways.push(way);
  }
  return ways;
}

function withInterpolator(
  task: DecodeTask,
  { tile, historyType, bytes }: DecoderWay,
  budgetBytes: number,
): DecodeChoice | { leastBytes: number } {
  const { shape, interpolator, networks, f16, bindingBytes } = task;
  const { width, height } = shape;
  const type = f16 ? 'f16' : 'f32';
  const rgbBytes = 12 * width * height * (shape.latentFrames > 1 ? 4 : 1);
  const latentFrame = 4 * task.vae.zDim * shape.latentHeight * shape.latentWidth;
  const choice = (waiting: number, working: number, largest: number, weightBytes: number): DecodeChoice => {
    const activations = Math.max(bytes.peak - bytes.histories - rgbBytes + waiting, working);
    return {
      tile,
      historyType,
      filmTile: null,
      weights: [
        { name: 'decoder weights', count: 1, bytes: bytes.weights, largestBytes: bytes.largest },
        ...(weightBytes > 0
          ? [
              {
                name: 'interpolator weights',
                count: 1,
                bytes: weightBytes,
                largestBytes: Math.min(weightBytes, largest),
              },
            ]
          : []),
      ],
      buffers: [
        { name: 'decoder histories', count: 1, bytes: bytes.histories, largestBytes: bytes.largest },
        { name: 'decoded frames', count: 1, bytes: rgbBytes, largestBytes: rgbBytes },
        { name: 'decoder activations', count: 1, bytes: activations, largestBytes: Math.max(bytes.largest, largest) },
        { name: 'latent frame', count: 1, bytes: latentFrame, largestBytes: latentFrame },
        { name: 'picture', count: 1, bytes: 1.5 * width * height, largestBytes: 1.5 * width * height },
      ],
    };
  };
  const total = ({ weights, buffers }: DecodeChoice) =>
    [...weights, ...buffers].reduce((sum, group) => sum + group.bytes, 0);
  const judged = (found: DecodeChoice) => (total(found) <= budgetBytes ? found : { leastBytes: total(found) });
  if (interpolator === null) return judged(choice(0, 0, 0, 0));
  if (interpolator === 'rife') {
    const config = networks.rife ?? RIFE_46;
    const { waiting, working, largest } = rifeBytes(config, width, height, type);
    if (largest > bindingBytes) return { leastBytes: Number.POSITIVE_INFINITY };
    return judged(choice(waiting, working, largest, rifeWeightBytes(config, type)));
  }
  const config = networks.film ?? FILM_STYLE;
  let leastBytes = Number.POSITIVE_INFINITY;
  const weightBytes = weightMemory.of(config, type, () => filmWeightBytes(config, type));
  for (const { tile: filmTile, bytes: film } of filmWays(config, shape, type)) {
    if (film.largest > bindingBytes || film.working > FILM_MOST_BYTES) continue;
    const found = { ...choice(film.waiting, film.working, film.largest, weightBytes), filmTile };
    if (total(found) <= budgetBytes) return found;
    leastBytes = Math.min(leastBytes, total(found));
  }
  return { leastBytes };
}
