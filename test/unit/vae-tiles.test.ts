import { describe, expect, it } from 'vitest';
import { WAN_VAE } from '../../src/checkpoint/released';
import { type VaeConfig, vaeLevels } from '../../src/config';
import { packConv } from '../../src/vae/decoder';
import { decoderBytes } from '../../src/vae/memory';
import { planTiles, type Region } from '../../src/vae/tiles';

const end = ({ top, height }: Region) => top + height;

/** Which rows of every level a range of output rows depends on, convolution by convolution. */
function dependence(config: VaeConfig, latents: number, [begin, stop]: [number, number]): [number, number][] {
  const levels = vaeLevels(config);
  let rows = new Set(Array.from({ length: stop - begin }, (_, i) => begin + i));
  const convolve = (size: number) => {
    rows = new Set([...rows].flatMap((row) => [row - 1, row, row + 1]).filter((row) => row >= 0 && row < size));
  };
  const spans: [number, number][] = [];
  for (let level = levels.length - 1; level >= 0; level--) {
    const size = latents * 2 ** level;
    if (level === levels.length - 1)
      convolve(size); // head
    else {
      convolve(2 * size); // resample, in doubled rows
      rows = new Set([...rows].map((row) => row >> 1));
    }
    for (let i = 0; i < 2 * levels[level]!.blocks.length; i++) convolve(size);
    spans.unshift([Math.min(...rows), Math.max(...rows) + 1]);
  }
  return spans;
}

describe('planTiles', () => {
  it('leaves whole frames whole', () => {
    const [tile, ...others] = planTiles(WAN_VAE, 60, 104, null);
    expect(others).toEqual([]);
    expect(tile!.core).toEqual({ top: 0, left: 0, height: 480, width: 832 });
    expect(tile!.levels).toEqual([0, 1, 2, 3].map((l) => ({ top: 0, left: 0, height: 60 << l, width: 104 << l })));
    expect(planTiles(WAN_VAE, 60, 104, 104)).toHaveLength(1);
  });

  it.each([
    [WAN_VAE, 60, 104, 26],
    [WAN_VAE, 90, 160, 27],
    [WAN_VAE, 7, 5, 3],
    [{ ...WAN_VAE, numResBlocks: 1 }, 31, 17, 8],
  ])('covers every pixel once and asks for what it depends on (case %#)', (config, height, width, side) => {
    const tiles = planTiles(config, height, width, side);
    const covered = new Uint8Array(64 * height * width);
    for (const { core, levels } of tiles) {
      expect(core.height).toBeLessThanOrEqual(8 * side);
      expect(core.width).toBeLessThanOrEqual(8 * side);
      for (let row = core.top; row < end(core); row++) {
        const at = row * 8 * width + core.left;
        covered.subarray(at, at + core.width).forEach((_, i, part) => {
          part[i]! += 1;
        });
      }
      const needed = dependence(config, height, [core.top, end(core)]);
      for (let level = 1; level < levels.length; level++) {
        expect([levels[level]!.top, end(levels[level]!)]).toEqual(needed[level]);
      }
      expect(levels[0]).toEqual({ top: 0, left: 0, height, width });
    }
    expect(covered.every((count) => count === 1)).toBe(true);
  });

  it('needs a halo of 5.75 latent positions after the coarsest level, 12.25 with it', () => {
    const [, middle] = planTiles(WAN_VAE, 100, 1, 20);
    // Rows 160..320 of 800 are the core; 5.75 positions are 11.5 rows of level 1, whose core is 40..80.
    expect(middle!.levels.map(({ top, height }) => [top, height])).toEqual([
      [0, 100],
      [28, 64],
      [70, 100],
      [153, 174],
    ]);
    // The whole chain: 20..40 of the latent rows and 13 on each side.
    expect(dependence(WAN_VAE, 100, [160, 320])[0]).toEqual([7, 53]);
  });
});

describe('decoderBytes', () => {
  it('counts the Wan 2.1 decoder', () => {
    const bytes = decoderBytes(WAN_VAE, 60, 104, null, 21);
    // 73,295,331 parameters and conv2's 272; the head's fourth colour adds 2,593, the latent statistics 32.
    expect(bytes.weights).toBe(4 * (73_295_331 + 272 + 96 * 27 + 1 + 32));
    // Four frames at full size with a border, 96 channels, f32.
    expect(bytes.largest).toBe(4 * 482 * 834 * 96 * 4);
  });

  it('needs less for a still image and less at once in tiles', () => {
    const still = decoderBytes(WAN_VAE, 60, 104, null, 1);
    const moving = decoderBytes(WAN_VAE, 60, 104, null, 2);
    const tiled = decoderBytes(WAN_VAE, 60, 104, 26, 2);
    expect(still.histories).toBe(moving.histories);
    expect(still.peak).toBeLessThan(moving.peak);
    expect(tiled.peak - tiled.histories).toBeLessThan(moving.peak - moving.histories);
    expect(tiled.histories).toBeGreaterThan(moving.histories); // halos overlap
    expect(decoderBytes(WAN_VAE, 60, 104, null, 21)).toEqual(moving);
  });
});

describe('packConv', () => {
  it('orders taps, groups of four inputs, pixels, inputs of the group, outputs', () => {
    const shape = [4, 8, 3, 3, 3];
    const values = Float32Array.from({ length: 4 * 8 * 27 }, (_, i) => i);
    const { weight, ...rest } = packConv(values, shape);
    expect(rest).toEqual({ into: 8, out: 4, taps: 3, kernel: 3 });
    const [o, i, tap, y, x] = [3, 6, 1, 2, 0];
    const from = (((o * 8 + i) * 3 + tap) * 3 + y) * 3 + x;
    expect(weight[(((tap * 2 + 1) * 9 + y * 3 + x) * 4 + 2) * 4 + o]).toBe(from);
    expect([...weight].sort((a, b) => a - b)).toEqual([...values]);
  });

  it('fills up to four outputs with zeros', () => {
    const { weight, out } = packConv(new Float32Array(3 * 4).fill(1), [3, 4, 1, 1]);
    expect(out).toBe(4);
    expect([...weight]).toEqual([1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0]);
  });
});
