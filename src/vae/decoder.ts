import { type VaeConfig, vaeLevels, vaeShapes } from '../config';
import { throwIfAborted, ZoetropeError } from '../errors';
import { decodeFloats, isFloatDtype } from '../floats';
import type { Gpu } from '../gpu/device';
import { elementCount, type GpuTensor } from '../gpu/memory';
import type { TensorSource } from '../manifest';

/** A convolution's weights on the GPU, as `kernels/causal-conv` takes them. */
export interface ConvWeights {
  weight: GpuTensor;
  bias: GpuTensor;
  into: number;
  /** Output channels, rounded up to a multiple of 4 by channels that are zero. */
  out: number;
  taps: 1 | 3;
  kernel: 1 | 3;
}

/** The decoder's weights in GPU buffers, float32. Serves any number of streams; whoever loaded it disposes it. */
export class VaeWeights implements Disposable {
  private readonly convs = new Map<string, ConvWeights>();
  private readonly vectors = new Map<string, GpuTensor>();

  constructor(readonly config: VaeConfig) {}

  /** The convolution of that name. */
  conv(name: string): ConvWeights {
    return this.find(this.convs, name);
  }

  /** Whether there is a convolution of that name. */
  hasConv(name: string): boolean {
    return this.convs.has(name);
  }

  /** A norm's gamma, or `latents.scale` and `latents.mean`, [channels]. */
  vector(name: string): GpuTensor {
    return this.find(this.vectors, name);
  }

  private find<T>(weights: Map<string, T>, name: string): T {
    const found = weights.get(name);
    if (!found) throw new ZoetropeError('internal', `Weight "${name}" of the video decoder is not loaded.`);
    return found;
  }

  /** Takes ownership. Called by {@link loadVae}. */
  addConv(name: string, conv: ConvWeights): void {
    this.convs.set(name, conv);
  }

  /** Takes ownership. Called by {@link loadVae}. */
  addVector(name: string, vector: GpuTensor): void {
    this.vectors.set(name, vector);
  }

  /** Frees every buffer. Safe to call twice. */
  [Symbol.dispose](): void {
    for (const { weight, bias } of this.convs.values()) {
      weight[Symbol.dispose]();
      bias[Symbol.dispose]();
    }
    for (const vector of this.vectors.values()) vector[Symbol.dispose]();
    this.convs.clear();
    this.vectors.clear();
  }
}

/**
 * Reads the decoder's tensors one by one from a source with original Wan names (F32, F16 or BF16) and uploads them as
 * float32. Further tensors of the source are not read. Frees what it made when it throws: `bad-checkpoint` for a tensor
 * that is missing or has another shape or type, `aborted`, and what the source throws.
 */
export async function loadVae(
  gpu: Gpu,
  config: VaeConfig,
  source: TensorSource,
  signal?: AbortSignal,
): Promise<VaeWeights> {
  checkVaeConfig(config);
  const weights = new VaeWeights(config);
  const upload = (name: string, values: Float32Array) => gpu.memory.upload(name, 'float32', [values.length], values);
  try {
    for (const [name, shape] of vaeShapes(config)) {
      throwIfAborted(signal);
      if (name.endsWith('.bias')) continue; // read with its weight
      if (!name.endsWith('.weight')) {
        weights.addVector(name, upload(name, await readFloats(source, name, shape)));
        continue;
      }
      const conv = name.slice(0, -'.weight'.length);
      const packed = packConv(await readFloats(source, name, shape), shape);
      const bias = new Float32Array(packed.out);
      bias.set(await readFloats(source, `${conv}.bias`, [shape[0]!]));
      weights.addConv(conv, {
        ...packed,
        weight: upload(name, packed.weight),
        bias: upload(`${conv}.bias`, bias),
      });
    }
    weights.addVector('latents.scale', upload('latents.scale', Float32Array.from(config.latentsStd)));
    weights.addVector('latents.mean', upload('latents.mean', Float32Array.from(config.latentsMean)));
    return weights;
  } catch (error) {
    weights[Symbol.dispose]();
    throw error;
  }
}

/**
 * Refuses decoders that the kernels do not compute: channels come in fours, and a picture is made from at least two
 * levels.
 */
function checkVaeConfig(config: VaeConfig): void {
  const levels = vaeLevels(config);
  const odd = [config.zDim, ...levels.flatMap(({ inChannels, channels }) => [inChannels, channels])].find((n) => n % 4);
  if (odd !== undefined) {
    throw new ZoetropeError('bad-checkpoint', `The video decoder's channels come in fours, got a level of ${odd}.`);
  }
  if (levels.length < 2) {
    throw new ZoetropeError('bad-checkpoint', `The video decoder has two levels or more, got ${levels.length}.`);
  }
}

async function readFloats(source: TensorSource, name: string, shape: readonly number[]): Promise<Float32Array> {
  const entry = source.entries.get(name);
  const refuse = (problem: string): never => {
    throw new ZoetropeError(
      'bad-checkpoint',
      `Tensor "${name}" of the video decoder ${problem}. Import the checkpoint again.`,
    );
  };
  if (!entry) return refuse('is missing');
  const { dtype } = entry;
  // A norm's gamma has one axis in some files and trailing axes of 1 in others; the elements are the same.
  const axes = (dims: readonly number[]) => dims.filter((size) => size !== 1).join();
  if (axes(entry.shape) !== axes(shape)) return refuse(`has shape [${entry.shape}], expected [${shape}]`);
  if (!isFloatDtype(dtype)) return refuse(`has type ${dtype}, expected F32, F16 or BF16`);
  const values = decodeFloats(await source.read(name), dtype);
  if (values.length !== elementCount(shape)) return refuse(`holds ${values.length} values, expected [${shape}]`);
  return values;
}

/**
 * torch's weight [out, into, (taps,) kernel, kernel] in the order of `kernels/causal-conv`: [taps, into / 4, kernel²,
 * 4, out].
 */
export function packConv(
  values: Float32Array,
  shape: readonly number[],
): { weight: Float32Array; into: number; out: number; taps: 1 | 3; kernel: 1 | 3 } {
  const [channels, into] = shape as [number, number];
  const kernel = shape[shape.length - 1]! as 1 | 3;
  const taps = (shape.length === 5 ? shape[2]! : 1) as 1 | 3;
  const pixels = kernel * kernel;
  const out = Math.ceil(channels / 4) * 4;
  const weight = new Float32Array(taps * into * pixels * out);
  let from = 0;
  for (let o = 0; o < channels; o++) {
    for (let i = 0; i < into; i++) {
      for (let tap = 0; tap < taps; tap++) {
        const group = (tap * into) / 4 + (i >> 2);
        for (let pixel = 0; pixel < pixels; pixel++) {
          weight[((group * pixels + pixel) * 4 + (i & 3)) * out + o] = values[from++]!;
        }
      }
    }
  }
  return { weight, into, out, taps, kernel };
}
