import { type VaeConfig, vaeLevels, vaeShapes } from '../config';
import { throwIfAborted } from '../errors';
import type { Weights } from './weights';

/** Channels of pixels, [channels, height, width]. */
interface Maps {
  channels: number;
  height: number;
  width: number;
  values: Float32Array;
}

function newMaps(channels: number, height: number, width: number): Maps {
  return { channels, height, width, values: new Float32Array(channels * height * width) };
}

/** RMS norm over channels at each position, as in the VAE: x / max(|x|, 1e-12) * sqrt(C) * gamma. */
function rmsNorm(x: Maps, gamma: Float32Array): Maps {
  const y = newMaps(x.channels, x.height, x.width);
  const area = x.height * x.width;
  for (let at = 0; at < area; at++) {
    let square = 0;
    for (let c = 0; c < x.channels; c++) square += x.values[c * area + at]! ** 2;
    const scale = Math.sqrt(x.channels) / Math.max(Math.sqrt(square), 1e-12);
    for (let c = 0; c < x.channels; c++) y.values[c * area + at] = x.values[c * area + at]! * scale * gamma[c]!;
  }
  return y;
}

function silu(x: Maps): Maps {
  return { ...x, values: x.values.map((value) => value / (1 + Math.exp(-value))) };
}

function add(x: Maps, y: Maps): Maps {
  return { ...x, values: x.values.map((value, i) => value + y.values[i]!) };
}

/** Nearest neighbour, twice the size. */
function upsample(x: Maps): Maps {
  const y = newMaps(x.channels, 2 * x.height, 2 * x.width);
  for (let row = 0; row < x.channels * y.height; row++) {
    for (let column = 0; column < y.width; column++) {
      y.values[row * y.width + column] = x.values[(row >> 1) * x.width + (column >> 1)]!;
    }
  }
  return y;
}

/** The maps with a border of zeros, one wide. */
function pad(x: Maps): Maps {
  const y = newMaps(x.channels, x.height + 2, x.width + 2);
  for (let c = 0; c < x.channels; c++) {
    for (let row = 0; row < x.height; row++) {
      const from = (c * x.height + row) * x.width;
      y.values.set(x.values.subarray(from, from + x.width), (c * y.height + row + 1) * y.width + 1);
    }
  }
  return y;
}

/** Adds a 3x3 convolution of one padded input plane to one output plane. */
function addPlane3x3(
  out: Float64Array,
  width: number,
  padded: Float32Array,
  begin: number,
  k: Float32Array,
  at: number,
) {
  const [k0, k1, k2, k3, k4, k5, k6, k7, k8] = k.subarray(at, at + 9) as unknown as number[];
  const stride = width + 2;
  const height = out.length / width;
  for (let row = 0; row < height; row++) {
    const a = begin + row * stride;
    const b = a + stride;
    const c = b + stride;
    for (let x = 0; x < width; x++) {
      out[row * width + x]! +=
        k0! * padded[a + x]! +
        k1! * padded[a + x + 1]! +
        k2! * padded[a + x + 2]! +
        k3! * padded[b + x]! +
        k4! * padded[b + x + 1]! +
        k5! * padded[b + x + 2]! +
        k6! * padded[c + x]! +
        k7! * padded[c + x + 1]! +
        k8! * padded[c + x + 2]!;
    }
  }
}

/**
 * Decodes one latent frame on the CPU with plain loops: 0.15 s for 8x8 latents at base_dim 16. In a clip of one frame
 * the two earlier taps of every temporal kernel meet zeros and `time_conv` is never used, so all convolutions are flat
 * ones.
 */
export class StillDecoder {
  private constructor(
    private readonly config: VaeConfig,
    private readonly tensors: ReadonlyMap<string, Float32Array>,
    private readonly shapes: ReadonlyMap<string, number[]>,
  ) {}

  /** Reads the decoder's tensors as f32 (12 MB at base_dim 16). */
  static async load(config: VaeConfig, weights: Weights, signal?: AbortSignal): Promise<StillDecoder> {
    const shapes = vaeShapes(config);
    const tensors = new Map<string, Float32Array>();
    for (const [name, shape] of shapes) {
      if (name.includes('.time_conv.')) continue;
      throwIfAborted(signal);
      const count = shape.reduce((product, size) => product * size, 1);
      tensors.set(name, await weights.readFloats(name, 0, count));
    }
    return new StillDecoder(config, tensors, shapes);
  }

  /** Denormalised latents [zDim, height, width] to RGB [3, 8 height, 8 width], not clamped. */
  decode(latents: Float32Array, height: number, width: number): Float32Array {
    let x = this.#convolve('conv2', { channels: this.config.zDim, height, width, values: latents });
    x = this.#convolve('decoder.conv1', x);
    x = this.#residual('decoder.middle.0', x);
    x = this.#attention('decoder.middle.1', x);
    x = this.#residual('decoder.middle.2', x);
    for (const level of vaeLevels(this.config)) {
      for (const block of level.blocks) x = this.#residual(block, x);
      if (level.upsample) x = this.#convolve(`${level.upsample.name}.resample.1`, upsample(x));
    }
    return this.#convolve('decoder.head.2', silu(rmsNorm(x, this.#get('decoder.head.0.gamma')))).values;
  }

  #get(name: string): Float32Array {
    return this.tensors.get(name)!;
  }

  #residual(name: string, x: Maps): Maps {
    let y = silu(rmsNorm(x, this.#get(`${name}.residual.0.gamma`)));
    y = this.#convolve(`${name}.residual.2`, y);
    y = silu(rmsNorm(y, this.#get(`${name}.residual.3.gamma`)));
    y = this.#convolve(`${name}.residual.6`, y);
    return add(this.tensors.has(`${name}.shortcut.weight`) ? this.#convolve(`${name}.shortcut`, x) : x, y);
  }

  /** Single-head self-attention over the positions of the frame. */
  #attention(name: string, x: Maps): Maps {
    const area = x.height * x.width;
    const qkv = this.#convolve(`${name}.to_qkv`, rmsNorm(x, this.#get(`${name}.norm.gamma`))).values;
    const size = x.channels * area;
    const attended = newMaps(x.channels, x.height, x.width);
    const weights = new Float64Array(area);
    for (let query = 0; query < area; query++) {
      for (let key = 0; key < area; key++) {
        let dot = 0;
        for (let c = 0; c < size; c += area) dot += qkv[c + query]! * qkv[size + c + key]!;
        weights[key] = dot / Math.sqrt(x.channels);
      }
      const largest = weights.reduce((a, b) => Math.max(a, b));
      let sum = 0;
      for (let key = 0; key < area; key++) {
        weights[key] = Math.exp(weights[key]! - largest);
        sum += weights[key]!;
      }
      for (let c = 0; c < size; c += area) {
        let value = 0;
        for (let key = 0; key < area; key++) value += weights[key]! * qkv[2 * size + c + key]!;
        attended.values[c + query] = value / sum;
      }
    }
    return add(x, this.#convolve(`${name}.proj`, attended));
  }

  /** The convolution `name` with zero padding; of a temporal kernel its last tap. */
  #convolve(name: string, x: Maps): Maps {
    const kernel = this.#get(`${name}.weight`);
    const bias = this.#get(`${name}.bias`);
    const [channels, , ...axes] = this.shapes.get(`${name}.weight`)! as [number, number, ...number[]];
    const spatial = axes[axes.length - 1]! ** 2;
    const taps = axes.length === 3 ? axes[0]! : 1;
    const input = spatial === 9 ? pad(x) : x;
    const inputArea = input.height * input.width;
    const y = newMaps(channels, x.height, x.width);
    const plane = new Float64Array(x.height * x.width);
    for (let out = 0; out < channels; out++) {
      plane.fill(bias[out]!);
      for (let into = 0; into < x.channels; into++) {
        const at = ((out * x.channels + into) * taps + taps - 1) * spatial;
        const begin = into * inputArea;
        if (spatial === 9) {
          addPlane3x3(plane, x.width, input.values, begin, kernel, at);
        } else {
          const factor = kernel[at]!;
          for (let i = 0; i < plane.length; i++) plane[i]! += factor * input.values[begin + i]!;
        }
      }
      y.values.set(plane, out * plane.length);
    }
    return y;
  }
}
