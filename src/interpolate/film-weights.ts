import type { Gpu } from '../gpu/device';
import type { TensorSource } from '../manifest';
import {
  FILM_FLOW_CONVS,
  FILM_FUSION_LEVELS,
  type FilmConfig,
  filmConfig,
  filmFeatures,
  filmShapes,
} from '../part/film';
import { ConvWeights, loadConvs, type PackedConv } from './conv-weights';
import { filmFusionLayout } from './film-tiles';

/** Which channels a layer's input has in our layout: for each of torch's, its place. */
interface Channels {
  places: readonly number[];
  /** A multiple of 4. */
  total: number;
}

const roundUp = (count: number) => Math.ceil(count / 4) * 4;

/** Channels that lie as torch has them. */
function plain(count: number): Channels {
  return { places: Array.from({ length: count }, (_, i) => i), total: roundUp(count) };
}

/** Torch's order of the same channels: no zeros behind the pictures. */
function fusionChannels(config: FilmConfig, level: number, more: number): Channels {
  const { total, ...layout } = filmFusionLayout(config, level, more);
  const range = (begin: number, count: number) => Array.from({ length: count }, (_, i) => begin + i);
  const features = filmFeatures(config, level);
  const places = [0, 1].flatMap((i) => [...range(layout.pictures[i]!, 3), ...range(layout.features[i]!, features)]);
  return { places: [...places, ...range(layout.flows, 4), ...range(layout.more, more)], total };
}

/** The layout that a layer reads. */
function channelsOf(config: FilmConfig, name: string, into: number): Channels {
  const fused = /^fuse\.convs\.(\d)\.(\d)\.0$/.exec(name);
  if (!fused) return plain(into);
  const level = FILM_FUSION_LEVELS - 2 - Number(fused[1]);
  if (fused[2] === '1') return fusionChannels(config, level, config.filters * 2 ** level);
  if (fused[2] === '0' && level === FILM_FUSION_LEVELS - 2) return fusionChannels(config, level + 1, 0);
  return plain(into);
}

/** torch's [out, into, kernel, kernel] in the order of `kernels/pyramid-conv`: [total / 4, kernel², 4, out]. */
export function packPyramidConv(
  values: ArrayLike<number>,
  [out, into, kernel]: readonly [number, number, number],
  { places, total }: Channels = plain(into),
): PackedConv {
  const pixels = kernel ** 2;
  const wide = roundUp(out);
  const weight = new Float32Array(total * pixels * wide);
  let from = 0;
  for (let o = 0; o < out; o++) {
    for (let i = 0; i < into; i++) {
      const place = places[i]!;
      for (let pixel = 0; pixel < pixels; pixel++) {
        weight[(((place >> 2) * pixels + pixel) * 4 + (place & 3)) * wide + o] = values[from++]!;
      }
    }
  }
  return { weight, into: total, out: wide };
}

/**
 * torch's [out, into] of a last layer as [into, columns], the order of `kernels/flow-residual` and
 * `kernels/tile-output`.
 */
export function packColumns(values: ArrayLike<number>, out: number, into: number, columns: number): Float32Array {
  const packed = new Float32Array(roundUp(into) * columns);
  for (let o = 0; o < out; o++) {
    for (let i = 0; i < into; i++) packed[i * columns + o] = values[o * into + i]!;
  }
  return packed;
}

/** FILM's weights in GPU buffers; flows are f32. */
export class FilmWeights extends ConvWeights {
  constructor(
    gpu: Gpu,
    readonly config: FilmConfig,
    type: 'f16' | 'f32',
  ) {
    super(gpu, 'FILM', type);
  }

  override add(name: string, values: Float32Array, shape: readonly number[], bias: Float32Array): void {
    const [out, into, kernel] = shape as [number, number, number];
    const flow = name.startsWith('predict_flow.') && name.endsWith(`.${FILM_FLOW_CONVS + 1}.0`);
    const columns = flow ? 2 : name === 'fuse.output_conv' ? 4 : null;
    // Weights of last layers are read once for each pixel and stay f32.
    const packed =
      columns === null
        ? packPyramidConv(values, [out, into, kernel], channelsOf(this.config, name, into))
        : { weight: packColumns(values, out, into, columns), into: roundUp(into), out: columns };
    const biases = new Float32Array(packed.out);
    biases.set(bias);
    this.upload(name, packed, biases, columns === null ? this.type : 'f32');
  }
}

/**
 * Reads FILM's tensors one by one and uploads them, as half floats where the device has them. Frees what it made when
 * it throws: `bad-checkpoint` for another network, `aborted`, and what the source throws.
 * @param type default: f16 where the device has it.
 */
export async function loadFilm(
  gpu: Gpu,
  source: TensorSource,
  signal?: AbortSignal,
  type: 'f16' | 'f32' = gpu.f16 ? 'f16' : 'f32',
): Promise<FilmWeights> {
  const config = filmConfig(source.entries);
  const shapes = filmShapes(config);
  return loadConvs(source, shapes, config.name, new FilmWeights(gpu, config, type), signal);
}
