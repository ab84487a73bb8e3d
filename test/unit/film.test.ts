import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { flowDouble } from '../../kernels/flow-double';
import { flowResidual } from '../../kernels/flow-residual';
import { flowSlice } from '../../kernels/flow-slice';
import { pyramidConv } from '../../kernels/pyramid-conv';
import { pyramidPool } from '../../kernels/pyramid-pool';
import { tileOutput } from '../../kernels/tile-output';
import { tilePicture } from '../../kernels/tile-picture';
import { warpSlice } from '../../kernels/warp-slice';
import { importFilm } from '../../src/checkpoint/film';
import { readHeader } from '../../src/checkpoint/safetensors';
import { diskFolder } from '../../src/cli/files';
import { importCommand } from '../../src/cli/import';
import { filmMac } from '../../src/interpolate/film-mac';
import { type FilmStep, filmSchedule } from '../../src/interpolate/film-schedule';
import { chooseFilmTile, filmFusionLayout, filmMemory, filmTiles } from '../../src/interpolate/film-tiles';
import { packPyramidConv } from '../../src/interpolate/film-weights';
import type { ByteSource } from '../../src/manifest';
import { FILM_STYLE, filmAligned, filmConfig, filmFeatures, filmShapes } from '../../src/part/film';
import { openPart } from '../../src/store/verified';
import { FILM_WEIGHTS, filmReference, hasFilmReference, randomFilm, SMALLEST_FILM } from '../harness/film';
import { memoryFolder } from '../harness/memory-folder';

describe('the schedule', () => {
  /** Steps in the order in which they are run: [frame, time, the frames that it lies between]. */
  function steps(count: number): [number, number, number, number][] {
    const list: [number, number, number, number][] = [];
    const visit = (step: FilmStep | undefined, first: number, last: number) => {
      if (!step) return;
      list.push([step.frame, step.time, first, last]);
      visit(step.before, first, step.frame);
      visit(step.after, step.frame, last);
    };
    visit(filmSchedule(count), 0, count + 1);
    return list;
  }

  it.each<[number, [number, number, number, number][]]>([
    [1, [[1, 1 / 2, 0, 2]]],
    [
      2,
      [
        [2, 2 / 3, 0, 3],
        [1, 1 / 2, 0, 2],
      ],
    ],
    [
      3,
      [
        [2, 1 / 2, 0, 4],
        [1, 1 / 2, 0, 2],
        [3, 1 / 2, 2, 4],
      ],
    ],
    [
      4,
      [
        [2, 2 / 5, 0, 5],
        [1, 1 / 2, 0, 2],
        [4, 2 / 3, 2, 5],
        [3, 1 / 2, 2, 4],
      ],
    ],
  ])('of %i frames', (count, wanted) => {
    expect(steps(count)).toEqual(wanted);
  });
});

describe('the tensors', () => {
  const shapes = filmShapes(FILM_STYLE);
  const count = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

  it('are the 82 of the released network, of 34,436,667 values', () => {
    expect(shapes.size).toBe(82);
    expect([...shapes.values()].reduce((sum, shape) => sum + count(shape), 0)).toBe(34_436_667);
  });

  it('take 2.09 TMAC for a frame of 1280 × 768', () => {
    expect(filmMac(FILM_STYLE, 1280, 768) / 1e12).toBeCloseTo(2.09, 2);
    expect(filmMac(FILM_STYLE, 1280, 720)).toBe(filmMac(FILM_STYLE, 1280, 768));
  });

  it.each([
    ['fuse.convs.0.0.0', [512, 1930, 2, 2]],
    ['fuse.convs.0.1.0', [512, 2442, 3, 3]],
    ['fuse.convs.1.0.0', [256, 512, 2, 2]],
    ['fuse.convs.1.1.0', [256, 1162, 3, 3]],
    ['fuse.convs.2.1.0', [128, 522, 3, 3]],
    ['fuse.convs.3.1.0', [64, 202, 3, 3]],
    ['predict_flow._predictor._convs.0.0', [256, 1920, 3, 3]],
    ['predict_flow._predictors.0._convs.0.0', [128, 896, 3, 3]],
    ['predict_flow._predictors.2._convs.0.0', [32, 128, 3, 3]],
    ['predict_flow._predictors.2._convs.3.0', [16, 32, 1, 1]],
  ])('have the shapes of the port: %s', (name, shape) => {
    expect(shapes.get(`${name}.weight`)).toEqual(shape);
  });

  it('tell the network', () => {
    const entries = new Map([...shapes].map(([name, shape]) => [name, { dtype: 'F16', shape } as const]));
    expect(filmConfig(entries)).toEqual(FILM_STYLE);
    entries.set('predict_flow._predictor._convs.0.0.weight', { dtype: 'F16', shape: [6, 1920, 3, 3] });
    expect(() => filmConfig(entries)).toThrowError(expect.objectContaining({ code: 'bad-checkpoint' }));
  });

  it('lie in the fusion’s input without overlap, a zero behind each picture', () => {
    const { pictures, features, flows, more, total } = filmFusionLayout(FILM_STYLE, 1, 128);
    const width = filmFeatures(FILM_STYLE, 1);
    expect([...pictures, ...features, flows, more, total]).toEqual([
      0,
      4 + width,
      4,
      8 + width,
      8 + 2 * width,
      12 + 2 * width,
      140 + 2 * width,
    ]);
    expect(total).toBe(filmAligned(FILM_STYLE, 1) + 2 + 128);
  });

  it('are packed by input channels in fours, with gaps of zeros', () => {
    const values = Float32Array.from({ length: 6 }, (_, i) => i + 1);
    const { weight, into, out } = packPyramidConv(values, [2, 3, 1], { places: [0, 2, 5], total: 8 });
    expect([into, out]).toEqual([8, 4]);
    const wanted = new Float32Array(32);
    for (const [at, value] of [
      [0, 1],
      [1, 4],
      [8, 2],
      [9, 5],
      [20, 3],
      [21, 6],
    ] as const)
      wanted[at] = value;
    expect(weight).toEqual(wanted);
  });
});

describe('tiles', () => {
  const half = (bindingBytes: number, budgetBytes: number) =>
    chooseFilmTile(FILM_STYLE, [720, 1280], 'f16', { bindingBytes, budgetBytes });

  it('are the whole frame where it fits, in the middle of multiples of 64', () => {
    expect(half(2 ** 30, 3 * 2 ** 30)).toEqual([768, 1280]);
    expect(filmTiles([720, 1280], [768, 1280])).toEqual([
      { at: [-24, 0], fromAt: [24, 0], size: [720, 1280], toAt: [0, 0], fade: [0, 0, 0, 0] },
    ]);
    expect(filmTiles([33, 1], [64, 64])[0]).toMatchObject({ at: [-15, -31], fromAt: [15, 31], size: [33, 1] });
  });

  it('fit the default limits of WebGPU at 720p, and the budget', () => {
    const tile = half(128 * 2 ** 20, 2 ** 30);
    expect(tile).toEqual([512, 512]);
    const { bindingBytes, pictureBytes, scratchBytes } = filmMemory(FILM_STYLE, tile, 'f16');
    expect(bindingBytes).toBeLessThanOrEqual(128 * 2 ** 20);
    expect(half(128 * 2 ** 20, 2 * pictureBytes + scratchBytes)).toEqual(tile);
    expect(half(128 * 2 ** 20, 2 * pictureBytes + scratchBytes - 1)).toEqual([448, 448]);
  });

  it('are one less where a whole frame would hold four pictures', () => {
    const { pictureBytes, scratchBytes } = filmMemory(FILM_STYLE, [768, 1280], 'f16');
    expect(half(2 ** 30, 4 * pictureBytes + scratchBytes)).toEqual([768, 1280]);
    expect(half(2 ** 30, 4 * pictureBytes + scratchBytes - 1)).toEqual([768, 1216]);
  });

  it('are refused below 256', () => {
    expect(() => half(2 ** 20, 2 ** 30)).toThrowError(expect.objectContaining({ code: 'out-of-memory' }));
    // A frame that is smaller itself needs no tiles.
    const small = { bindingBytes: 128 * 2 ** 20, budgetBytes: 2 ** 30 };
    expect(chooseFilmTile(FILM_STYLE, [64, 64], 'f16', small)).toEqual([64, 64]);
  });

  it.each([
    [720, 1280, 512, 512],
    [720, 1280, 768, 448],
    [961, 257, 256, 256],
    [1280, 720, 256, 320],
    [385, 3840, 256, 256],
  ])('cover %i × %i in tiles of %i × %i, with shares that sum up to 1', (height, width, tall, wide) => {
    const sum = new Float64Array(height * width);
    const touched = new Uint8Array(height * width);
    const ramp = (place: number, length: number) => (length === 0 ? 1 : Math.min(1, (place + 0.5) / length));
    for (const { at, fromAt, size, toAt, fade } of filmTiles([height, width], [tall, wide])) {
      expect([at[0] + fromAt[0], at[1] + fromAt[1]]).toEqual(toAt);
      expect(fromAt[0] + size[0]).toBeLessThanOrEqual(tall);
      expect(fromAt[1] + size[1]).toBeLessThanOrEqual(wide);
      for (let y = 0; y < size[0]; y++) {
        for (let x = 0; x < size[1]; x++) {
          const share =
            ramp(y, fade[0]) * ramp(size[0] - 1 - y, fade[1]) * ramp(x, fade[2]) * ramp(size[1] - 1 - x, fade[3]);
          const pixel = (toAt[0] + y) * width + toAt[1] + x;
          // The kernel stores where a pixel does not lie in the rising part, so it has to be the first there.
          const adds = y < fade[0] || x < fade[2];
          if (touched[pixel] !== Number(adds)) expect.fail(`pixel ${y}, ${x} of the tile at ${toAt}`);
          touched[pixel] = 1;
          sum[pixel]! += share;
        }
      }
    }
    const worst = sum.reduce((most, value) => Math.max(most, Math.abs(value - 1)), 0);
    expect(worst).toBeLessThan(1e-12);
  });
});

function source(bytes: Uint8Array): ByteSource {
  return { sizeBytes: bytes.length, read: async (begin, end) => bytes.slice(begin, end) };
}

/** The file with its header changed; the bytes stay. */
async function withHeader(
  bytes: Uint8Array,
  change: (header: Record<string, { dtype: string; shape: number[] }>) => void,
) {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  change(header);
  const text = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + bytes.length - 8 - length);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  file.set(bytes.subarray(8 + length), 8 + text.length);
  return file;
}

/** Tensors under ComfyUI's names. */
const comfy = (file: Uint8Array) =>
  withHeader(file, (header) => {
    for (const [name, entry] of Object.entries(header)) {
      const other = name.replace(/\.0\.(weight|bias)$/, '.conv.$1');
      if (other === name) continue;
      delete header[name];
      header[other] = entry;
    }
  });

describe('the import', () => {
  const file = randomFilm(SMALLEST_FILM, 1);
  const run = async (bytes: Uint8Array) => {
    const sink = memoryFolder();
    const manifest = await importFilm({ file: source(bytes), what: 'film.safetensors', sink, license: 'Apache-2.0' });
    return { sink, manifest };
  };

  it('gives a part that opens, with the file’s own values, whichever names it uses', async () => {
    const { sink, manifest } = await run(file);
    expect(manifest).toMatchObject({ format: 1, part: 'film', name: 'FILM of 4 filters', license: 'Apache-2.0' });
    const part = (await openPart(sink, 'film')).open();
    expect([...part.entries.keys()]).toEqual([...filmShapes(SMALLEST_FILM).keys()]);
    const { tensors } = await readHeader(source(file), 'film.safetensors');
    for (const [name, { range }] of tensors) {
      expect(Buffer.compare(await part.read(name), file.subarray(...range)), name).toBe(0);
    }
    const renamed = await comfy(file);
    expect(new TextDecoder().decode(renamed.subarray(8, 400))).toContain('.conv.weight');
    const other = await run(renamed);
    expect(other.sink.files.get('film.safetensors')).toEqual(sink.files.get('film.safetensors'));
    expect(other.manifest).toEqual(manifest);
  });

  const first = 'extract.extract_sublevels.convs.0.0.0';
  type Header = Record<string, { dtype: string; shape: number[]; data_offsets?: number[] }>;
  const none = { dtype: 'F32', shape: [0], data_offsets: [0, 0] };
  const rename = (header: Header, from: string, to: string) => {
    header[to] = header[from]!;
    delete header[from];
  };
  it.each<[string, (header: Header) => void, RegExp]>([
    ['a missing tensor', (h) => rename(h, 'fuse.output_conv.bias', 'bias'), /"fuse.output_conv.bias" \[3\] is missing/],
    ['its first tensor missing', (h) => rename(h, `${first}.weight`, 'weight'), /no FILM network/],
    ['another tensor', (h) => (h['fuse.more.weight'] = none), /"fuse.more.weight" does not belong/],
    ['another shape', (h) => (h['fuse.convs.3.1.0.weight']!.shape = [4, 3, 22, 3]), /expected \[4,22,3,3\]/],
    ['integers', (h) => (h['fuse.output_conv.bias']!.dtype = 'I32'), /type I32/],
    ['a tensor under both names', (h) => (h[`${first.slice(0, -2)}.conv.bias`] = none), /holds both/],
  ])('refuses %s, and writes nothing', async (_, change, why) => {
    const sink = memoryFolder();
    const bytes = await withHeader(file, change);
    const importing = importFilm({ file: source(bytes), what: 'film.safetensors', sink });
    await expect(importing).rejects.toMatchObject({ code: 'bad-checkpoint', message: expect.stringMatching(why) });
    expect(sink.files.size).toBe(0);
  });

  it('refuses an infinite weight, and leaves no manifest', async () => {
    const bytes = file.slice();
    new DataView(bytes.buffer).setFloat32(bytes.length - 8, Number.POSITIVE_INFINITY, true);
    const sink = memoryFolder();
    await expect(importFilm({ file: source(bytes), what: 'film.safetensors', sink })).rejects.toMatchObject({
      code: 'bad-checkpoint',
    });
    expect(sink.files.has('zoetrope.json')).toBe(false);
  });

  it('is not one of RIFE', async () => {
    const { sink } = await run(file);
    await expect(openPart(sink, 'rife')).rejects.toMatchObject({ code: 'bad-checkpoint' });
  });

  it.skipIf(!hasFilmReference)('takes the tiny network', async () => {
    const sink = memoryFolder();
    const tiny = await diskFolder(filmReference).open(FILM_WEIGHTS);
    const manifest = await importFilm({ file: tiny, what: FILM_WEIGHTS, sink });
    expect(manifest.license).toBe('unknown');
    expect((await openPart(sink, 'film')).open().entries.size).toBe(82);
  });
});

describe('zoetrope import', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'zoetrope-'));
    await writeFile(join(folder, 'net.safetensors'), await comfy(randomFilm(SMALLEST_FILM, 1)));
  });
  afterEach(async () => {
    vi.restoreAllMocks();
    await rm(folder, { recursive: true });
  });
  const run = (...args: string[]) =>
    importCommand()
      .exitOverride()
      .configureOutput({ writeErr: () => undefined })
      .parseAsync(['--from', join(folder, 'net.safetensors'), '--to', join(folder, 'film'), ...args], { from: 'user' });

  it('knows the file by its tensors', async () => {
    const log = vi.spyOn(console, 'log').mockImplementation(() => undefined);
    await run('--license', 'MIT');
    expect(log.mock.calls.flat().join()).toMatch(/film: FILM of 4 filters, \d+\.\d MiB in film\.safetensors/);
    expect((await readdir(join(folder, 'film'))).sort()).toEqual(['film.safetensors', 'zoetrope.json']);
    const { manifest } = await openPart(diskFolder(join(folder, 'film')), 'film');
    expect(manifest.license).toBe('MIT');
  });

  it('refuses what belongs to a model', async () => {
    await expect(run('--name', 'Mine')).rejects.toMatchObject({ code: 'bad-request' });
  });
});

describe('the plans refuse', () => {
  const type = 'f32' as const;
  const conv = { type, size: [8, 8], kernel: 3, into: 8, out: 8, slice: [16, 8], slope: 0.2 } as const;
  const pool = { type, size: [4, 4], channels: 8, slice: [16, 8] } as const;
  const warp = { type, size: [4, 4], channels: 8, slice: [16, 8], scale: 1 } as const;
  const picture = { type, frames: 2, frame: 1, from: [4, 4], at: [-1, 0], size: [8, 8] } as const;
  const output = {
    type,
    from: [8, 8],
    into: 8,
    fromAt: [1, 2],
    size: [7, 6],
    to: [9, 9],
    toAt: [2, 3],
    fade: [3, 4, 6, 0],
  } as const;

  it('nothing that fits', () => {
    pyramidConv.plan(conv);
    pyramidPool.plan(pool);
    warpSlice.plan(warp);
    tilePicture.plan(picture);
    tileOutput.plan(output);
    flowSlice.plan({ type, size: [1, 1], slice: [8, 4], time: 0.5 });
    flowDouble.plan({ size: [2, 2] });
    flowResidual.plan({ type, size: [1, 1], into: 4, first: true });
  });

  it.each<[string, () => unknown]>([
    ['channels that do not come in fours', () => pyramidConv.plan({ ...conv, into: 6 })],
    ['channels that y does not have', () => pyramidConv.plan({ ...conv, slice: [16, 12] })],
    ['rows that y does not have', () => pyramidConv.plan({ ...conv, rows: [4, 9] })],
    ['rows that begin inside a square', () => pyramidConv.plan({ ...conv, rows: [2, 8] })],
    ['no rows', () => pyramidConv.plan({ ...conv, rows: [4, 4] })],
    ['odd sides of a doubled picture', () => pyramidConv.plan({ ...conv, kernel: 2, size: [7, 8] })],
    ['channels that x does not have', () => pyramidPool.plan({ ...pool, slice: [16, 12] })],
    ['a pool of no pixels', () => pyramidPool.plan({ ...pool, size: [0, 4] })],
    ['a warp beyond y', () => warpSlice.plan({ ...warp, slice: [12, 8] })],
    ['flows beyond y', () => flowSlice.plan({ type, size: [1, 1], slice: [8, 8], time: 0.5 })],
    ['odd sides of a doubled flow', () => flowDouble.plan({ size: [2, 3] })],
    ['a predictor’s odd channels', () => flowResidual.plan({ type, size: [1, 1], into: 6, first: true })],
    ['a frame that is not there', () => tilePicture.plan({ ...picture, frame: 2 })],
    ['a rectangle beyond x', () => tileOutput.plan({ ...output, fromAt: [2, 2] })],
    ['a rectangle beyond the frame', () => tileOutput.plan({ ...output, toAt: [3, 3] })],
    ['fades that meet', () => tileOutput.plan({ ...output, fade: [4, 4, 6, 0] })],
  ])('%s', (_, plan) => {
    expect(plan).toThrowError(expect.objectContaining({ code: 'internal' }));
  });
});
