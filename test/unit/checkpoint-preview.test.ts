import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { openDiffusers } from '../../src/checkpoint/diffusers';
import { fitPreview, publishedPreview } from '../../src/checkpoint/preview';
import { StillDecoder } from '../../src/checkpoint/still-decoder';
import type { Weights } from '../../src/checkpoint/weights';
import { diskFolder } from '../../src/cli/files';
import { parseVaeConfig, type VaeConfig, vaeShapes } from '../../src/config';
import { SHAPES, tensorValues, VAE } from '../harness/checkpoint';
import { expectNear } from '../harness/near';
import { fill, hasDemoGoldens, hasFixtures, openF32, readCase } from '../harness/sampling-fixtures';

const SHARED = new URL('../../../shared/', import.meta.url);
const DEMO = 'data/demo-model';

const countOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

/** Weights from a function of the name. */
function weightsOf(shapes: Map<string, number[]>, values: (name: string, shape: number[]) => Float32Array): Weights {
  return {
    entries: new Map(Array.from(shapes, ([name, shape]) => [name, { storage: 'F32', sizeBytes: 0, shape }])),
    readFloats: async (name, begin, end) => values(name, shapes.get(name)!).slice(begin, end),
    readBlocks: () => undefined,
  };
}

const config = parseVaeConfig(VAE, 'test');
const weights = weightsOf(SHAPES.vae, (name, shape) => tensorValues(4, name, shape));

describe('the preview matrix', () => {
  it('is the published one for Wan’s latents and only for them', () => {
    const mean = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508];
    const rest = [0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921];
    const published = publishedPreview({ ...config, latentsMean: [...mean, ...rest] });
    expect(published?.weights[6]).toEqual([-0.3477, -0.4059, -0.2925]);
    expect(published?.weights).toHaveLength(16);
    expect(published?.bias).toEqual([-0.1835, -0.0868, -0.336]);
    expect(publishedPreview({ ...config, latentsMean: [...mean, ...rest.slice(1), 0] })).toBeUndefined();
    expect(publishedPreview(config)).toBeUndefined();
  });

  it('is fitted reproducibly, to four decimals', async () => {
    const first = await fitPreview(config, weights);
    expect(await fitPreview(config, weights)).toEqual(first);
    expect(first.weights).toHaveLength(16);
    expect(first.weights.flat().some((value) => value !== 0)).toBe(true);
    for (const value of [...first.weights.flat(), ...first.bias]) expect(value).toBe(Number(value.toFixed(4)));
  });

  it('is a bare bias, clamped as pixels are, for a decoder that paints everything one colour', async () => {
    const constant = weightsOf(SHAPES.vae, (name, shape) =>
      name === 'decoder.head.2.bias' ? Float32Array.of(0.25, -0.5, 2) : new Float32Array(countOf(shape)),
    );
    const fitted = await fitPreview(config, constant);
    expect(fitted.bias).toEqual([0.25, -0.5, 1]);
    expect(fitted.weights.flat().every((value) => value === 0)).toBe(true);
  });

  it('stops at the signal', async () => {
    await expect(fitPreview(config, weights, AbortSignal.abort())).rejects.toMatchObject({ code: 'aborted' });
  });
});

interface DecodeCase {
  config: { dim: number; latent_mean: number[]; latent_std: number[] };
  weights: { fill_prefix: string; tensors: { name: string; shape: number[]; scale: number; offset: number }[] };
  inputs: { shape: number[]; fill: { name: string; scale: number; offset: number } }[];
  expected: { name: string; shape: number[] }[];
}

describe.skipIf(!hasFixtures)('the still decoder', () => {
  it('agrees with the reference on a frame of odd size', async () => {
    const { config: sizes, weights: rules, inputs, expected } = readCase<DecodeCase>('fixtures/vae-decode-t1');
    const vae: VaeConfig = {
      baseDim: sizes.dim,
      zDim: 16,
      dimMult: [1, 2, 4, 4],
      numResBlocks: 2,
      temporalUpsample: [true, true, false],
      latentsMean: sizes.latent_mean,
      latentsStd: sizes.latent_std,
    };
    const tensors = new Map(rules.tensors.map((tensor) => [tensor.name, tensor]));
    const source = weightsOf(vaeShapes(vae), (name, shape) => {
      const { scale, offset } = tensors.get(name)!;
      return fill(rules.fill_prefix + name, scale, countOf(shape), offset);
    });
    const { shape, fill: rule } = inputs[0]!;
    const [, , height, width] = shape as [number, number, number, number];
    const latents = fill(rule.name, rule.scale, countOf(shape), rule.offset).map((value, i) => {
      const channel = Math.floor(i / (height * width));
      return value * vae.latentsStd[channel]! + vae.latentsMean[channel]!;
    });
    const rgb = (await StillDecoder.load(vae, source)).decode(latents, height, width);
    expect(rgb).toHaveLength(countOf(expected.find(({ name }) => name === 'chunk0')!.shape));
    const reference = openF32('fixtures/vae-decode-t1/expected.safetensors')('chunk0');
    const largest = reference.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    // The case's own tolerance for f32: 2e-5 of the norm, 8e-5 of the largest value.
    expectNear(rgb, reference, { relativeL2: 2e-5, maxAbs: 8e-5 * largest }, 'chunk0');
  });
});

/**
 * Frame 0 of a golden clip: normalised latents [16, h, w] and the mean colour of each latent's 8 x 8 pixels [3, h, w].
 */
function frameZero(name: string) {
  const { latent_shape } = readCase<{ latent_shape: number[] }>(`${DEMO}/golden/${name}`);
  const [, channels, frames, height, width] = latent_shape as [number, number, number, number, number];
  const path = `${DEMO}/golden/${name}/golden.safetensors`;
  const latents = openF32(path)('latents_after_step_7');
  const area = height * width;
  const z = Float32Array.from({ length: channels * area }, (_, i) => {
    return latents[Math.floor(i / area) * frames * area + (i % area)]!;
  });
  const bytes = readFileSync(new URL(path, SHARED));
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const pixels = bytes.subarray(start + JSON.parse(bytes.toString('utf8', 8, start)).frames_u8.data_offsets[0]);
  const pooled = new Float64Array(3 * area);
  for (let y = 0; y < 8 * height; y++) {
    for (let x = 0; x < 8 * width; x++) {
      for (let c = 0; c < 3; c++) {
        const value = pixels[(y * 8 * width + x) * 3 + c]! / 127.5 - 1;
        pooled[c * area + (y >> 3) * width + (x >> 3)]! += value / 64;
      }
    }
  }
  return { z, pooled, area };
}

describe.skipIf(!hasDemoGoldens)('on the demo checkpoint', () => {
  it('previews lie nearer to the picture than its mean colour does', { timeout: 30_000 }, async () => {
    const checkpoint = await openDiffusers(diskFolder(new URL(DEMO, SHARED).pathname));
    const matrix = await fitPreview(checkpoint.vae, checkpoint.weights.vae!);
    let error = 0;
    let spread = 0;
    for (const name of ['red-circle-right', 'wide', 'negative-prompt']) {
      const { z, pooled, area } = frameZero(name);
      for (let c = 0; c < 3; c++) {
        const truth = pooled.subarray(c * area, (c + 1) * area);
        const mean = truth.reduce((a, b) => a + b) / area;
        for (let i = 0; i < area; i++) {
          let value = matrix.bias[c]!;
          for (let k = 0; k < matrix.weights.length; k++) value += matrix.weights[k]![c]! * z[k * area + i]!;
          error += (Math.max(-1, Math.min(1, value)) - truth[i]!) ** 2;
          spread += (truth[i]! - mean) ** 2;
        }
      }
    }
    // Measured 0.60. The checkpoint may be replaced, so the limit only says that a preview tells more than no preview.
    expect(Math.sqrt(error / spread)).toBeLessThan(0.8);
  });
});
