import { tileOutput } from '../../kernels/tile-output';
import { tilePicture } from '../../kernels/tile-picture';
import { throwIfAborted, ZoetropeError } from '../errors';
import type { Gpu } from '../gpu/device';
import type { GpuTensor } from '../gpu/memory';
import { FilmNetwork, type FilmPyramid } from './film-network';
import { type FilmStep, filmSchedule } from './film-schedule';
import { chooseFilmTile, type FilmTile, filmTiles, type Size } from './film-tiles';
import type { FilmWeights } from './film-weights';
import type { Clip, Interpolator, InterpolatorModel, RgbFrame } from './interpolator';

/**
 * Bytes that the network may take beside weights and frames, where nothing else is said. A frame of 720p as a whole
 * takes 1.9 GB in half floats.
 */
export const FILM_BUDGET_BYTES = 3 * 2 ** 30;

/** A clip that frames are made for; its `tile` is one of `filmTileSizes`, by default the largest for the budget. */
export interface FilmOptions extends Clip {
  /**
   * Bytes that the network may take beside weights and frames; it runs in tiles where a frame takes more. Default 3
   * GiB.
   */
  budgetBytes?: number | undefined;
  /**
   * Sees `features N` of the first picture, and `forward N` and `backward N` flows, from the finest level 0 on. Called
   * between dispatches.
   */
  tap?: ((name: string, tensor: GpuTensor) => Promise<void>) | undefined;
}

/** A frame as the network reads it: its pyramids, or where it runs in tiles the frame itself. */
export type FilmPicture = Disposable & ({ pyramid: FilmPyramid } | { rgb: GpuTensor });

/** FILM for clips of any size. */
export function filmModel(gpu: Gpu, weights: FilmWeights): InterpolatorModel {
  return { start: (clip) => new Film(gpu, weights, clip) };
}

/** FILM on frames of one size. Tensors are made when they are needed, so it holds none between its calls. */
export class Film implements Interpolator<FilmPicture> {
  private readonly frame: Size;
  private readonly tile: Size;
  private readonly tiles: readonly FilmTile[];
  private readonly network: FilmNetwork;

  constructor(
    private readonly gpu: Gpu,
    private readonly weights: FilmWeights,
    private readonly options: FilmOptions,
  ) {
    const { width, height, tile, budgetBytes = FILM_BUDGET_BYTES } = options;
    const { maxStorageBufferBindingSize, maxBufferSize } = gpu.device.limits;
    const bindingBytes = Math.min(maxStorageBufferBindingSize, maxBufferSize);
    this.frame = [height, width];
    this.tile = tile ?? chooseFilmTile(weights.config, this.frame, weights.type, { bindingBytes, budgetBytes });
    this.tiles = filmTiles(this.frame, this.tile);
    this.network = new FilmNetwork(gpu, weights, this.tile, options);
  }

  async prepare({ rgb, frame }: RgbFrame): Promise<FilmPicture> {
    const [tile] = this.tiles;
    if (this.tiles.length === 1) {
      const pyramid = await this.pyramid(rgb, frame, tile!);
      return { pyramid, [Symbol.dispose]: () => pyramid[Symbol.dispose]() };
    }
    const copy = this.makeFrame();
    const planeBytes = 4 * this.frame[0] * this.frame[1];
    for (let color = 0; color < 3; color++) {
      const from = (color * rgb.shape[1]! + frame) * planeBytes;
      this.gpu.memory.copy(rgb, from, copy, color * planeBytes, planeBytes);
    }
    return { rgb: copy, [Symbol.dispose]: () => copy[Symbol.dispose]() };
  }

  async *between(before: FilmPicture, after: FilmPicture, count: number): AsyncGenerator<RgbFrame> {
    yield* this.run(before, after, filmSchedule(count));
  }

  /** A step and those that follow from it, in the order of time. */
  private async *run(before: FilmPicture, after: FilmPicture, step: FilmStep): AsyncGenerator<RgbFrame> {
    using rgb = await this.at(before, after, step.time);
    const made = { rgb, frame: 0 };
    if (!step.before && !step.after) {
      yield made;
      return;
    }
    using middle = await this.prepare(made);
    if (step.before) yield* this.run(before, middle, step.before);
    yield made;
    if (step.after) yield* this.run(middle, after, step.after);
  }

  /**
   * The frame at a time strictly between 0, the first picture, and 1, the second: [3, 1, height, width]. The caller
   * disposes it.
   */
  async at(before: FilmPicture, after: FilmPicture, time: number): Promise<GpuTensor> {
    if (!(time > 0 && time < 1)) {
      throw new ZoetropeError('internal', `A frame between two lies at a time between 0 and 1, got ${time}.`);
    }
    throwIfAborted(this.options.signal);
    const rgb = this.makeFrame();
    try {
      for (const tile of this.tiles) await this.runTile(before, after, time, tile, rgb);
    } catch (error) {
      rgb[Symbol.dispose]();
      throw error;
    }
    return rgb;
  }

  private async runTile(
    before: FilmPicture,
    after: FilmPicture,
    time: number,
    tile: FilmTile,
    rgb: GpuTensor,
  ): Promise<void> {
    if ('pyramid' in before && 'pyramid' in after) {
      await this.fuse(before.pyramid, after.pyramid, time, tile, rgb);
      return;
    }
    if ('pyramid' in before || 'pyramid' in after) {
      throw new ZoetropeError('internal', 'A picture was prepared by another interpolator.');
    }
    using first = await this.pyramid(before.rgb, 0, tile);
    using second = await this.pyramid(after.rgb, 0, tile);
    await this.fuse(first, second, time, tile, rgb);
  }

  private async fuse(
    first: FilmPyramid,
    second: FilmPyramid,
    time: number,
    tile: FilmTile,
    rgb: GpuTensor,
  ): Promise<void> {
    const { network, weights, gpu, options } = this;
    using forward = await network.flows(first, second);
    using backward = await network.flows(second, first);
    for (const [name, tensors] of [
      ['features', first.features],
      ['forward', forward.levels],
      ['backward', backward.levels],
    ] as const) {
      for (const [level, tensor] of tensors.entries()) await options.tap?.(`${name} ${level}`, tensor);
    }
    using x = await network.fuse([first, second], forward, backward, time);
    const { weight, bias, into } = weights.conv('fuse.output_conv');
    const { fromAt, size, toAt, fade } = tile;
    const shape = { type: weights.type, from: this.tile, into, fromAt, size, to: this.frame, toAt, fade };
    await tileOutput.run(gpu, shape, { x, weight, bias, rgb });
  }

  private pyramid(rgb: GpuTensor, frame: number, { at }: FilmTile): Promise<FilmPyramid> {
    const { type } = this.weights;
    const shape = { type, frames: rgb.shape[1]!, frame, from: this.frame, at, size: this.tile };
    return this.network.pyramid((y) => tilePicture.run(this.gpu, shape, { rgb, y }));
  }

  private makeFrame(): GpuTensor {
    return this.gpu.memory.tensor('film frame', 'float32', [3, 1, ...this.frame]);
  }

  /** Nothing is held between calls. */
  [Symbol.dispose](): void {}
}
