import { flowDouble } from '../../kernels/flow-double';
import { flowResidual } from '../../kernels/flow-residual';
import { flowSlice } from '../../kernels/flow-slice';
import { pyramidConv, pyramidConvMac } from '../../kernels/pyramid-conv';
import { pyramidPool } from '../../kernels/pyramid-pool';
import { warpSlice } from '../../kernels/warp-slice';
import type { Gpu } from '../gpu/device';
import { type DispatchOptions, DispatchQueue } from '../gpu/dispatch-queue';
import { type GpuTensor, Scope } from '../gpu/memory';
import {
  FILM_FLOW_CONVS,
  FILM_FUSION_LEVELS,
  FILM_LEVELS,
  FILM_STAGES,
  filmFeatures,
  filmFusion,
  filmPredictor,
  filmStageChannels,
} from '../part/film';
import { filmFusionLayout, levelSize, type Size } from './film-tiles';
import type { FilmWeights } from './film-weights';

/** Slope of LeakyReLU below zero; `frame_interpolation`, `options.py` and the layers of `models/film_net`. */
const SLOPE = 0.2;

/** A picture and its features at every level, finest first; channels last with a border of zeros. */
export interface FilmPyramid extends Disposable {
  /** [h + 2, w + 2, 4], colours in 0..1 and a zero. */
  pictures: readonly GpuTensor[];
  /** [h + 2, w + 2, channels of the level]. */
  features: readonly GpuTensor[];
}

/** A flow at every level, f32 [h, w, 2] in pixels of the level, x then y. */
export interface FilmFlows extends Disposable {
  levels: readonly GpuTensor[];
}

/**
 * FILM's layers on pictures of one size, a multiple of 64 on each side. What its methods give back belongs to the
 * caller.
 */
export class FilmNetwork {
  private readonly queue: DispatchQueue;

  constructor(
    private readonly gpu: Gpu,
    private readonly weights: FilmWeights,
    private readonly size: Size,
    options: DispatchOptions,
  ) {
    this.queue = new DispatchQueue(gpu, options);
  }

  /**
   * Pyramids of a picture. The extractor begins at every level of the picture, each time with its first stage, and a
   * level's features are what all the stages make that come to lie there.
   * @param fill fills the picture of the finest level.
   */
  async pyramid(fill: (picture: GpuTensor) => Promise<void>): Promise<FilmPyramid> {
    const { gpu, weights } = this;
    const { config, type } = weights;
    const scope = new Scope();
    try {
      const levels = Array.from({ length: FILM_LEVELS }, (_, level) => level);
      const pictures = levels.map((level) => scope.own(this.picture('picture', level, 4)));
      const features = levels.map((level) => scope.own(this.picture('features', level, filmFeatures(config, level))));
      await this.queue.submit(0, () => fill(pictures[0]!));
      for (const level of levels.slice(1)) {
        const shape = { type, size: levelSize(this.size, level), channels: 4, slice: [4, 0] } as const;
        await this.queue.submit(0, () => pyramidPool.run(gpu, shape, { x: pictures[level - 1]!, y: pictures[level]! }));
      }
      for (const begin of levels) await this.extract(pictures[begin]!, begin, features);
      return { pictures, features, [Symbol.dispose]: () => scope[Symbol.dispose]() };
    } catch (error) {
      scope[Symbol.dispose]();
      throw error;
    }
  }

  /** The extractor from one level of the picture on, as deep as it goes. */
  private async extract(picture: GpuTensor, begin: number, features: readonly GpuTensor[]): Promise<void> {
    const { type, config } = this.weights;
    let before = 0; // channels of the stages before this one
    for (let stage = 0; stage < FILM_STAGES && begin + stage < FILM_LEVELS; stage++) {
      const level = begin + stage;
      const name = `extract.extract_sublevels.convs.${stage}`;
      const channels = filmStageChannels(config, stage);
      const target = features[level]!;
      using scope = new Scope();
      let input = picture;
      if (stage > 0) {
        input = scope.own(this.picture('pooled', level, channels / 2));
        const slice = [filmFeatures(config, level - 1), before - channels / 2] as const;
        const shape = { type, size: levelSize(this.size, level), channels: channels / 2, slice };
        const pooled = { x: features[level - 1]!, y: input };
        await this.queue.submit(0, () => pyramidPool.run(this.gpu, shape, pooled));
      }
      const middle = scope.own(this.picture('stage', level, channels));
      await this.convolve(input, `${name}.0.0`, middle, level, 3);
      await this.convolve(middle, `${name}.1.0`, target, level, 3, before);
      before += channels;
    }
  }

  /**
   * Flow from the first picture to the second, coarse to fine: where in the second one each pixel of the first is.
   * Each level doubles that of the coarser one and adds what its predictor still finds.
   */
  async flows(first: FilmPyramid, second: FilmPyramid): Promise<FilmFlows> {
    const { gpu, weights } = this;
    const { config, type } = weights;
    const scope = new Scope();
    try {
      const levels: GpuTensor[] = [];
      for (let level = FILM_LEVELS - 1; level >= 0; level--) {
        const size = levelSize(this.size, level);
        const coarsest = level === FILM_LEVELS - 1;
        const flow = scope.own(gpu.memory.tensor(`film flow ${level}`, 'float32', [...size, 2]));
        const coarse = levels[level + 1];
        if (coarse) await this.queue.submit(0, () => flowDouble.run(gpu, { size }, { coarse, fine: flow }));
        levels[level] = flow;

        const channels = filmFeatures(config, level);
        using own = new Scope();
        const input = own.own(this.picture('flow input', level, 2 * channels));
        await this.warp(first.features[level]!, flow, input, level, 0, null);
        await this.warp(second.features[level]!, flow, input, level, channels, coarsest ? null : 1);
        const name = filmPredictor(level);
        const filters = weights.conv(`${name}.0.0`).out;
        const layers = [0, 1].map(() => own.own(this.picture('flow layer', level, filters))) as [GpuTensor, GpuTensor];
        let x = input;
        for (let i = 0; i < FILM_FLOW_CONVS; i++) {
          await this.convolve(x, `${name}.${i}.0`, layers[i % 2]!, level, 3);
          x = layers[i % 2]!;
        }
        const half = own.own(this.picture('flow layer', level, weights.conv(`${name}.${FILM_FLOW_CONVS}.0`).out));
        await this.convolve(x, `${name}.${FILM_FLOW_CONVS}.0`, half, level, 1);
        const { weight, bias, into } = weights.conv(`${name}.${FILM_FLOW_CONVS + 1}.0`);
        const shape = { type, size, into, first: coarsest };
        await this.queue.submit(0, () => flowResidual.run(gpu, shape, { x: half, weight, bias, flow }));
      }
      return { levels, [Symbol.dispose]: () => scope[Symbol.dispose]() };
    } catch (error) {
      scope[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * The last features of the frame at `time`, [h + 2, w + 2, filters]: both pictures and their features moved there,
   * and fused from coarse to fine.
   * @param forward flow from the first picture to the second, which moves the second one towards the first.
   * @param backward flow from the second to the first.
   */
  async fuse(
    [first, second]: readonly [FilmPyramid, FilmPyramid],
    forward: FilmFlows,
    backward: FilmFlows,
    time: number,
  ): Promise<GpuTensor> {
    const { config } = this.weights;
    let net: GpuTensor | undefined;
    for (let level = FILM_FUSION_LEVELS - 1; level >= 0; level--) {
      const coarser: GpuTensor | undefined = net;
      using scope = new Scope();
      if (coarser) scope.own(coarser);
      net = undefined;
      const channels = coarser ? filmStageChannels(config, level) : 0;
      const layout = filmFusionLayout(config, level, channels);
      const input = this.picture('fusion', level, layout.total);
      if (coarser) scope.own(input);
      else net = input; // The coarsest level is passed on as it is.
      try {
        const name = filmFusion(level);
        if (coarser) {
          await this.convolve(coarser, `${name}.0.0`, input, level, 2, layout.more);
          coarser[Symbol.dispose]();
        }
        const sides = [
          [first, backward, time],
          [second, forward, 1 - time],
        ] as const;
        for (const [i, [pyramid, { levels }, scale]] of sides.entries()) {
          await this.warp(pyramid.pictures[level]!, levels[level]!, input, level, layout.pictures[i]!, scale);
          await this.warp(pyramid.features[level]!, levels[level]!, input, level, layout.features[i]!, scale);
        }
        await this.placeFlows(backward, forward, time, input, level, layout.flows);
        if (!coarser) continue;
        const middle = scope.own(this.picture('fused', level, channels));
        await this.convolve(input, `${name}.1.0`, middle, level, 3);
        input[Symbol.dispose]();
        net = this.picture('fused', level, channels);
        await this.convolve(middle, `${name}.2.0`, net, level, 3);
      } catch (error) {
        net?.[Symbol.dispose]();
        throw error;
      }
    }
    return net!;
  }

  private async placeFlows(
    { levels: backwards }: FilmFlows,
    { levels: forwards }: FilmFlows,
    time: number,
    y: GpuTensor,
    level: number,
    offset: number,
  ): Promise<void> {
    const slice = [y.shape[2]!, offset] as const;
    const shape = { type: this.weights.type, size: levelSize(this.size, level), slice, time };
    const [backward, forward] = [backwards[level]!, forwards[level]!];
    await this.queue.submit(0, () => flowSlice.run(this.gpu, shape, { backward, forward, y }));
  }

  /** Moves a picture into channels of `y`; a scale of null copies it. */
  private async warp(
    x: GpuTensor,
    flow: GpuTensor,
    y: GpuTensor,
    level: number,
    offset: number,
    scale: number | null,
  ): Promise<void> {
    const { type } = this.weights;
    const slice = [y.shape[2]!, offset] as const;
    const shape = { type, size: levelSize(this.size, level), channels: x.shape[2]!, slice, scale };
    await this.queue.submit(0, () => warpSlice.run(this.gpu, shape, { x, flow, y }));
  }

  /** A convolution into channels of `y`, in bands of rows where it is long. Kernels of 2 have no activation. */
  private async convolve(
    x: GpuTensor,
    name: string,
    y: GpuTensor,
    level: number,
    kernel: 1 | 2 | 3,
    offset = 0,
  ): Promise<void> {
    const { gpu, weights } = this;
    const { weight, bias, into, out } = weights.conv(name);
    const size = levelSize(this.size, level);
    const slice = [y.shape[2]!, offset] as const;
    const shape = { type: weights.type, size, kernel, into, out, slice, slope: kernel === 2 ? 1 : SLOPE } as const;
    const mac = pyramidConvMac(shape);
    const rows = Math.max(4, Math.floor((size[0] * this.queue.maxMac) / mac / 4) * 4);
    for (let begin = 0; begin < size[0]; begin += rows) {
      const end = Math.min(size[0], begin + rows);
      const band = { ...shape, rows: [begin, end] as const };
      await this.queue.submit((mac * (end - begin)) / size[0], () =>
        pyramidConv.run(gpu, band, { x, weight, bias, y }),
      );
    }
  }

  private picture(label: string, level: number, channels: number): GpuTensor {
    const [height, width] = levelSize(this.size, level);
    const element = this.weights.type === 'f16' ? 'float16' : 'float32';
    return this.gpu.memory.tensor(`film ${label} ${level}`, element, [height + 2, width + 2, channels]);
  }
}
