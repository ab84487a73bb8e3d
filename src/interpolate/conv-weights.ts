import type { Shapes } from '../config';
import { throwIfAborted, ZoetropeError } from '../errors';
import { decodeFloats, encodeF16, isFloatDtype } from '../floats';
import type { Gpu } from '../gpu/device';
import type { GpuTensor } from '../gpu/memory';
import { checkTensors, type TensorSource } from '../manifest';

/** A convolution's weights in the order that its kernel takes. */
export interface PackedConv {
  weight: Float32Array;
  /** Channels read, rounded up to a multiple of 4 by weights that are zero. */
  into: number;
  /** Channels made, as many as the bias has. */
  out: number;
}

/** The same on the GPU. */
export interface UploadedConv extends Omit<PackedConv, 'weight'> {
  weight: GpuTensor;
  /** f32 [out]. */
  bias: GpuTensor;
}

/** Weights of a network that is convolutions alone, in GPU buffers; whoever loaded them disposes them. */
export abstract class ConvWeights implements Disposable {
  private readonly convs = new Map<string, UploadedConv>();

  constructor(
    private readonly gpu: Gpu,
    /** Of the network, for errors. */
    private readonly network: string,
    /** Element type of weights and activations; what else there is (flows, masks, pictures) the network says. */
    readonly type: 'f16' | 'f32',
  ) {}

  /** Packs and uploads one convolution: torch's `weight` of `shape`, and its bias. Called by {@link loadConvs}. */
  abstract add(conv: string, weight: Float32Array, shape: readonly number[], bias: Float32Array): void;

  /** The convolution of that name. */
  conv(name: string): UploadedConv {
    const conv = this.convs.get(name);
    if (!conv) throw new ZoetropeError('internal', `Weight "${name}" of ${this.network} is not loaded.`);
    return conv;
  }

  /** @param type of the weight. */
  protected upload(name: string, { weight, into, out }: PackedConv, bias: Float32Array, type: 'f16' | 'f32'): void {
    const { memory } = this.gpu;
    this.convs.set(name, {
      weight:
        type === 'f16'
          ? memory.upload(name, 'float16', [weight.length], encodeF16(weight))
          : memory.upload(name, 'float32', [weight.length], weight),
      bias: memory.upload(`${name}.bias`, 'float32', [bias.length], bias),
      into,
      out,
    });
  }

  /** Frees every buffer. Safe to call twice. */
  [Symbol.dispose](): void {
    for (const { weight, bias } of this.convs.values()) {
      weight[Symbol.dispose]();
      bias[Symbol.dispose]();
    }
    this.convs.clear();
  }
}

/**
 * Reads `<conv>.weight` and `<conv>.bias` of every convolution in `shapes`, one by one, into `weights`. Frees `weights`
 * when it throws: `bad-checkpoint` for another network, `aborted`, and what the source throws.
 * @param name of the network, for errors.
 */
export async function loadConvs<W extends ConvWeights>(
  source: TensorSource,
  shapes: Shapes,
  name: string,
  weights: W,
  signal: AbortSignal | undefined,
): Promise<W> {
  const read = async (tensor: string): Promise<Float32Array> => {
    throwIfAborted(signal);
    const { dtype } = source.entries.get(tensor)!;
    if (isFloatDtype(dtype)) return decodeFloats(await source.read(tensor), dtype);
    throw new ZoetropeError('bad-checkpoint', `Tensor "${tensor}" of ${name} has type ${dtype}. Import it again.`);
  };
  try {
    checkTensors(source.entries, shapes, name);
    for (const [tensor, shape] of shapes) {
      if (!tensor.endsWith('.weight')) continue;
      const conv = tensor.slice(0, -'.weight'.length);
      weights.add(conv, await read(tensor), shape, await read(`${conv}.bias`));
    }
    return weights;
  } catch (error) {
    weights[Symbol.dispose]();
    throw error;
  }
}
