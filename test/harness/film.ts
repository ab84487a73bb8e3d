import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { openSafetensors } from '../../src/checkpoint/safetensors';
import { diskFolder } from '../../src/cli/files';
import type { RangedTensorSource } from '../../src/manifest';
import { type FilmConfig, filmShapes } from '../../src/part/film';
import { readTensors } from '../fixtures/case';
import { seededFloats } from './near';

/** FILM for tests: a tiny random network, with the outputs that the reference has for it, or of our own. */

/** Folder with the tiny network and its reference outputs. */
export const filmReference = resolve(import.meta.dirname, '../../../shared/data/film');
export const FILM_WEIGHTS = 'tiny-random.safetensors';
export const hasFilmReference = existsSync(resolve(filmReference, FILM_WEIGHTS));

/** The tiny network's tensors. */
export async function tinyFilm(folder = filmReference): Promise<RangedTensorSource> {
  return openSafetensors(await diskFolder(folder).open(FILM_WEIGHTS), FILM_WEIGHTS);
}

/** What the reference computes with it: planes of f32, without the batch axis. */
export function filmGolden(folder = filmReference): Map<string, { shape: number[]; values: Float32Array }> {
  const tensors = readTensors(resolve(folder, 'tiny-golden.safetensors'));
  return new Map(
    [...tensors].map(([name, { shape, values }]) => [name, { shape: shape.slice(1), values: values as Float32Array }]),
  );
}

/** Channels-last pixels, without their border of `border` pixels, as planes. */
export function planesOf(values: Float32Array, shape: readonly number[], border: number): Float32Array {
  const [height, width, channels] = shape as [number, number, number];
  const [high, wide] = [height - 2 * border, width - 2 * border];
  const planes = new Float32Array(high * wide * channels);
  for (let channel = 0; channel < channels; channel++) {
    for (let row = 0; row < high; row++) {
      for (let column = 0; column < wide; column++) {
        const from = ((row + border) * width + column + border) * channels + channel;
        planes[(channel * high + row) * wide + column] = values[from]!;
      }
    }
  }
  return planes;
}

/** The smallest network of the architecture. */
export const SMALLEST_FILM: FilmConfig = { name: 'FILM of 4 filters', filters: 4, flowFilters: [4, 4, 4, 4] };

/** Standard deviation of a tensor's values. Each finer level doubles the flow's bias. */
function scale(name: string, fan: number): number {
  if (name.endsWith('._convs.4.0.bias')) return 0.15;
  return name.endsWith('.bias') ? 0.05 : 1 / Math.sqrt(fan);
}

/** A safetensors file of random weights, scaled so that values neither vanish nor grow, and flows reach some pixels. */
export function randomFilm(config: FilmConfig, seed: number): Uint8Array {
  const header: Record<string, unknown> = {};
  const parts: Float32Array[] = [];
  let at = 0;
  for (const [name, shape] of filmShapes(config)) {
    const count = shape.reduce((product, size) => product * size, 1);
    const fan = shape.slice(1).reduce((product, size) => product * size, 1);
    const values = seededFloats(seed + parts.length, count, scale(name, fan));
    header[name] = { dtype: 'F32', shape, data_offsets: [at, at + 4 * count] };
    at += 4 * count;
    parts.push(values);
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return new Uint8Array(Buffer.concat([length, text, ...parts.map((part) => Buffer.from(part.buffer))]));
}
