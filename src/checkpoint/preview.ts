import type { VaeConfig } from '../config';
import { throwIfAborted, ZoetropeError } from '../errors';
import type { PreviewMatrix } from '../manifest';
import { StillDecoder } from './still-decoder';
import type { Weights } from './weights';

/** Mean of each latent channel of the Wan 2.1 VAE (Wan2.2 `wan/modules/vae2_1.py`), by which that VAE is recognised. */
export const WAN_LATENTS_MEAN = [
  -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922,
  -0.9497, 0.2503, -0.2921,
];

/**
 * Latent to RGB of the Wan 2.1 VAE, applied to normalised latents: class Wan21 of ComfyUI `comfy/latent_formats.py`.
 */
const WAN_PREVIEW: PreviewMatrix = {
  weights: [
    [-0.1299, -0.1692, 0.2932],
    [0.0671, 0.0406, 0.0442],
    [0.3568, 0.2548, 0.1747],
    [0.0372, 0.2344, 0.142],
    [0.0313, 0.0189, -0.0328],
    [0.0296, -0.0956, -0.0665],
    [-0.3477, -0.4059, -0.2925],
    [0.0166, 0.1902, 0.1975],
    [-0.0412, 0.0267, -0.1364],
    [-0.1293, 0.074, 0.1636],
    [0.068, 0.3019, 0.1128],
    [0.0032, 0.0581, 0.0639],
    [-0.1251, 0.0927, 0.1699],
    [0.006, -0.0633, 0.0005],
    [0.3477, 0.2275, 0.295],
    [0.1984, 0.0913, 0.1861],
  ],
  bias: [-0.1835, -0.0868, -0.336],
};

/** Latent positions along each side of a sample. */
const SAMPLE_SIDE = 8;
/** Samples decoded for the fit; 96 instead of 24 lower the error on the demo model's golden frames by less than 2 %. */
const SAMPLES = 24;
/**
 * Spread of a channel's mean and of its four corner values; each position then has a variance near 1 or below, as
 * sampled latents have.
 */
const SPREAD = 0.7;

/** Near-normal numbers as the sum of twelve uniform ones, free of library functions that differ between engines. */
function seededNormals(seed: number): () => number {
  let state = seed;
  const uniform = () => {
    // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => {
    let sum = -6;
    for (let i = 0; i < 12; i++) sum += uniform();
    return sum;
  };
}

/** Normalised latents [channels, 8, 8]: in each channel a random level plus a bilinear ramp between random corners. */
function smoothLatents(normal: () => number, channels: number): Float32Array {
  const side = SAMPLE_SIDE;
  const latents = new Float32Array(channels * side * side);
  for (let c = 0; c < channels; c++) {
    const level = normal() * SPREAD;
    const [a, b, d, e] = [normal(), normal(), normal(), normal()].map((corner) => corner * SPREAD) as [
      number,
      number,
      number,
      number,
    ];
    for (let row = 0; row < side; row++) {
      const y = row / (side - 1);
      for (let column = 0; column < side; column++) {
        const x = column / (side - 1);
        const ramp = (a * (1 - x) + b * x) * (1 - y) + (d * (1 - x) + e * x) * y;
        latents[(c * side + row) * side + column] = level + ramp;
      }
    }
  }
  return latents;
}

/**
 * Means of `factor` x `factor` pixels of RGB [3, side * factor, side * factor], clamped to -1..1 as the pipeline does.
 */
function poolPixels(rgb: Float32Array, side: number, factor: number): Float64Array {
  const pooled = new Float64Array(3 * side * side);
  const width = side * factor;
  for (let row = 0; row < 3 * width; row++) {
    const channelRow = Math.floor(row / factor);
    for (let column = 0; column < width; column++) {
      const value = Math.max(-1, Math.min(1, rgb[row * width + column]!));
      pooled[channelRow * side + Math.floor(column / factor)]! += value / factor ** 2;
    }
  }
  return pooled;
}

/** Solves a x = b for each column of b by elimination with pivots; `rows` holds [a | b] and is used up. */
function solve(rows: number[][], unknowns: number): number[][] {
  for (let i = 0; i < unknowns; i++) {
    let pivot = i;
    for (let j = i + 1; j < unknowns; j++) if (Math.abs(rows[j]![i]!) > Math.abs(rows[pivot]![i]!)) pivot = j;
    [rows[i], rows[pivot]] = [rows[pivot]!, rows[i]!];
    for (let j = 0; j < unknowns; j++) {
      if (j === i) continue;
      const factor = rows[j]![i]! / rows[i]![i]!;
      for (let k = i; k < rows[i]!.length; k++) rows[j]![k]! -= factor * rows[i]![k]!;
    }
  }
  return rows.map((row, i) => row.slice(unknowns).map((value) => value / row[i]!));
}

/** Four decimals, as the published matrix has them; this also hides how engines differ in the last bits of exp. */
function round4(value: number): number {
  return Math.round(value * 1e4) / 1e4 + 0;
}

/**
 * Adds a sample to the normal equations [features^T features | features^T rgb]; features are the latent channels and 1.
 */
function accumulate(rows: number[][], latents: Float32Array, pooled: Float64Array, channels: number): void {
  const area = SAMPLE_SIDE ** 2;
  for (let at = 0; at < area; at++) {
    const features = Array.from({ length: channels }, (_, c) => latents[c * area + at]!);
    const row = [...features, 1, pooled[at]!, pooled[area + at]!, pooled[2 * area + at]!];
    for (let i = 0; i <= channels; i++) {
      const feature = row[i]!;
      for (let j = 0; j < row.length; j++) rows[i]![j]! += feature * row[j]!;
    }
  }
}

/**
 * Fits rgb = weights^T z + bias by least squares to what the decoder makes of 24 seeded smooth latents, one mean of 8x8
 * pixels for each latent position. On the demo model, against frame 0 of its three golden clips, the fitted matrix has
 * an RMS error of 0.17 (RGB in -1..1, which spreads by 0.28 there); a matrix fitted to those very frames has 0.10, so
 * most of what is left is not linear.
 */
export async function fitPreview(config: VaeConfig, weights: Weights, signal?: AbortSignal): Promise<PreviewMatrix> {
  const decoder = await StillDecoder.load(config, weights, signal);
  const normal = seededNormals(1);
  const channels = config.zDim;
  const area = SAMPLE_SIDE ** 2;
  const factor = 2 ** (config.dimMult.length - 1);
  const rows = Array.from({ length: channels + 1 }, () => new Array<number>(channels + 4).fill(0));
  for (let sample = 0; sample < SAMPLES; sample++) {
    throwIfAborted(signal);
    const latents = smoothLatents(normal, channels);
    const denormalised = latents.map((z, i) => {
      const channel = Math.floor(i / area);
      return z * config.latentsStd[channel]! + config.latentsMean[channel]!;
    });
    const rgb = decoder.decode(denormalised, SAMPLE_SIDE, SAMPLE_SIDE);
    accumulate(rows, latents, poolPixels(rgb, SAMPLE_SIDE, factor), channels);
  }
  const matrix = solve(rows, channels + 1).map((row) => row.map(round4));
  if (!matrix.flat().every(Number.isFinite)) {
    throw new ZoetropeError(
      'bad-checkpoint',
      'vae: the decoder gives no finite pixels. Download the checkpoint again.',
    );
  }
  return { weights: matrix.slice(0, channels), bias: matrix[channels]! };
}

/** The published matrix when the latents are those of the Wan 2.1 VAE; undefined for others, which are to be fitted. */
export function publishedPreview(config: VaeConfig): PreviewMatrix | undefined {
  const isWan =
    config.latentsMean.length === WAN_LATENTS_MEAN.length &&
    config.latentsMean.every((mean, channel) => mean === WAN_LATENTS_MEAN[channel]);
  return isWan ? WAN_PREVIEW : undefined;
}
