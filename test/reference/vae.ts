import { type VaeConfig, vaeLevels } from '../../src/config';

/**
 * Wan's VAE decoder in float64 with plain loops, as one convolution over the full sequence: no chunks, no histories, no
 * tiles. Sequences are [C][T][H][W], weights torch's.
 */

/** A sequence of frames, channels first. */
export interface Clip {
  channels: number;
  frames: number;
  height: number;
  width: number;
  /** [channels, frames, height, width]. */
  values: Float64Array;
}

/** Tensors by original name. */
export type Tensors = (name: string) => { shape: readonly number[]; values: ArrayLike<number> };

function clip(channels: number, frames: number, height: number, width: number): Clip {
  return { channels, frames, height, width, values: new Float64Array(channels * frames * height * width) };
}

/** Runs over every value of a new clip. */
function make(like: Clip, value: (c: number, t: number, y: number, x: number) => number): Clip {
  let at = 0;
  for (let c = 0; c < like.channels; c++) {
    for (let t = 0; t < like.frames; t++) {
      for (let y = 0; y < like.height; y++) {
        for (let x = 0; x < like.width; x++) like.values[at++] = value(c, t, y, x);
      }
    }
  }
  return like;
}

/** The value at a place, zero before the first frame and outside the frame. */
function at(v: Clip, c: number, t: number, y: number, x: number): number {
  if (t < 0 || y < 0 || x < 0 || y >= v.height || x >= v.width) return 0;
  return v.values[((c * v.frames + t) * v.height + y) * v.width + x]!;
}

function convolve(v: Clip, tensors: Tensors, name: string): Clip {
  const { shape, values: weight } = tensors(`${name}.weight`);
  const bias = tensors(`${name}.bias`).values;
  const out = shape[0]!;
  const [taps, kernel] = [shape.length === 5 ? shape[2]! : 1, shape[shape.length - 1]!];
  const reach = (kernel - 1) / 2;
  return make(clip(out, v.frames, v.height, v.width), (o, t, y, x) => {
    let sum = bias[o]!;
    let i = o * v.channels * taps * kernel * kernel;
    for (let c = 0; c < v.channels; c++) {
      for (let tap = 0; tap < taps; tap++) {
        for (let dy = 0; dy < kernel; dy++) {
          for (let dx = 0; dx < kernel; dx++) {
            sum += weight[i++]! * at(v, c, t + tap - taps + 1, y + dy - reach, x + dx - reach);
          }
        }
      }
    }
    return sum;
  });
}

function norm(v: Clip, tensors: Tensors, name: string): Clip {
  const gamma = tensors(`${name}.gamma`).values;
  const length = make(clip(1, v.frames, v.height, v.width), (_, t, y, x) => {
    let squares = 0;
    for (let c = 0; c < v.channels; c++) squares += at(v, c, t, y, x) ** 2;
    return Math.max(Math.sqrt(squares), 1e-12);
  });
  return make(
    clip(v.channels, v.frames, v.height, v.width),
    (c, t, y, x) => (at(v, c, t, y, x) / at(length, 0, t, y, x)) * Math.sqrt(v.channels) * gamma[c]!,
  );
}

function silu(v: Clip): Clip {
  return { ...v, values: v.values.map((value) => value / (1 + Math.exp(-value))) };
}

function add(a: Clip, b: Clip): Clip {
  return { ...a, values: a.values.map((value, i) => value + b.values[i]!) };
}

function residual(v: Clip, tensors: Tensors, name: string): Clip {
  const h = convolve(silu(norm(v, tensors, `${name}.residual.0`)), tensors, `${name}.residual.2`);
  const branch = convolve(silu(norm(h, tensors, `${name}.residual.3`)), tensors, `${name}.residual.6`);
  return add(v.channels === branch.channels ? v : convolve(v, tensors, `${name}.shortcut`), branch);
}

function attention(v: Clip, tensors: Tensors, name: string): Clip {
  const { channels, height, width } = v;
  const qkv = convolve(norm(v, tensors, `${name}.norm`), tensors, `${name}.to_qkv`);
  const attended = clip(channels, v.frames, height, width);
  const places = Array.from({ length: height * width }, (_, i) => [Math.floor(i / width), i % width] as const);
  for (let t = 0; t < v.frames; t++) {
    for (const [y, x] of places) {
      const scores = places.map(([ky, kx]) => {
        let dot = 0;
        for (let c = 0; c < channels; c++) dot += at(qkv, c, t, y, x) * at(qkv, channels + c, t, ky, kx);
        return dot / Math.sqrt(channels);
      });
      const largest = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - largest));
      const sum = weights.reduce((a, b) => a + b);
      for (let c = 0; c < channels; c++) {
        let value = 0;
        places.forEach(([ky, kx], i) => {
          value += weights[i]! * at(qkv, 2 * channels + c, t, ky, kx);
        });
        attended.values[((c * v.frames + t) * height + y) * width + x] = value / sum;
      }
    }
  }
  return add(v, convolve(attended, tensors, `${name}.proj`));
}

/** The first frame as it is; from the others two each, by a convolution that never sees the first. */
function doubleFrames(v: Clip, tensors: Tensors, name: string): Clip {
  const { channels, frames, height, width } = v;
  if (frames === 1) return v;
  const later = make(clip(channels, frames - 1, height, width), (c, t, y, x) => at(v, c, t + 1, y, x));
  const pairs = convolve(later, tensors, name);
  return make(clip(channels, 2 * frames - 1, height, width), (c, t, y, x) =>
    t === 0 ? at(v, c, 0, y, x) : at(pairs, ((t - 1) % 2) * channels + c, (t - 1) >> 1, y, x),
  );
}

function resample(v: Clip, tensors: Tensors, name: string): Clip {
  const doubled = make(clip(v.channels, v.frames, 2 * v.height, 2 * v.width), (c, t, y, x) =>
    at(v, c, t, y >> 1, x >> 1),
  );
  return convolve(doubled, tensors, name);
}

/** Normalised latents [zDim, T, h, w] to colours [3, 1 + 4 (T - 1), 8h, 8w], not clamped. */
export function decodeReference(config: VaeConfig, tensors: Tensors, latents: Clip): Clip {
  let v = make(clip(latents.channels, latents.frames, latents.height, latents.width), (c, t, y, x) => {
    return at(latents, c, t, y, x) * config.latentsStd[c]! + config.latentsMean[c]!;
  });
  v = convolve(convolve(v, tensors, 'conv2'), tensors, 'decoder.conv1');
  v = residual(v, tensors, 'decoder.middle.0');
  v = attention(v, tensors, 'decoder.middle.1');
  v = residual(v, tensors, 'decoder.middle.2');
  for (const { blocks, upsample } of vaeLevels(config)) {
    for (const name of blocks) v = residual(v, tensors, name);
    if (upsample?.temporal) v = doubleFrames(v, tensors, `${upsample.name}.time_conv`);
    if (upsample) v = resample(v, tensors, `${upsample.name}.resample.1`);
  }
  return convolve(silu(norm(v, tensors, 'decoder.head.0')), tensors, 'decoder.head.2');
}
