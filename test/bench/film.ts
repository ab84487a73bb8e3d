import { openSafetensors } from '../../src/checkpoint/safetensors';
import { Film } from '../../src/interpolate/film';
import { filmMac } from '../../src/interpolate/film-mac';
import { loadFilm } from '../../src/interpolate/film-weights';
import { FILM_STYLE, type FilmConfig } from '../../src/part/film';
import { randomFilm, SMALLEST_FILM } from '../harness/film';
import { uploadFrame } from '../harness/rife';
import { movingTexture } from '../harness/texture';
import type { Bench, Row } from './registry';
import { alternate, type Variant } from './timing';

/** One frame at one size. */
interface Case {
  config: FilmConfig;
  width: number;
  height: number;
}

/**
 * The released network on a GPU. A CPU would take minutes a frame: it gets one of a sixteenth of the channels, at 256 ×
 * 256.
 */
const CASES: Record<'gpu' | 'cpu', readonly Case[]> = {
  gpu: [
    { config: FILM_STYLE, width: 256, height: 256 },
    { config: FILM_STYLE, width: 1280, height: 720 },
  ],
  cpu: [{ config: SMALLEST_FILM, width: 256, height: 256 }],
};

/**
 * Milliseconds of one frame between two alone, the features of both included; in a clip those of a frame serve both its
 * pairs. Weights are random: none are shipped, and their values do not matter to the time.
 */
export const filmBench: Bench = {
  name: 'film',
  async run({ gpu, cpuDriver }) {
    const rows: Row[] = [];
    for (const { config, width, height } of CASES[cpuDriver ? 'cpu' : 'gpu']) {
      const bytes = randomFilm(config, 1);
      const file = { sizeBytes: bytes.length, read: async (begin: number, end: number) => bytes.slice(begin, end) };
      const source = await openSafetensors(file, 'film');
      const texture = movingTexture(5, 6, 64);
      using first = uploadFrame(gpu, texture(width, height, 0, 0), [3, height, width]);
      using second = uploadFrame(gpu, texture(width, height, 6, -4), [3, height, width]);
      for (const type of gpu.f16 ? (['f32', 'f16'] as const) : (['f32'] as const)) {
        using weights = await loadFilm(gpu, source, undefined, type);
        using film = new Film(gpu, weights, { width, height });
        const run = async () => {
          using before = await film.prepare({ rgb: first, frame: 0 });
          using after = await film.prepare({ rgb: second, frame: 0 });
          (await film.at(before, after, 0.5))[Symbol.dispose]();
        };
        const variant: Variant = { name: `zoetrope ${type}`, run };
        const [timing] = await alternate(gpu, [variant], { rounds: 5, budgetMs: 20_000 });
        const { name, ...measured } = timing!;
        const gflops = (2 * filmMac(config, width, height)) / measured.medianMs / 1e6;
        rows.push({ bench: 'film', shape: `${config.name}, ${width} × ${height}`, variant: name, ...measured, gflops });
      }
    }
    return rows;
  },
};
