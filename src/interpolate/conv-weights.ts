import type { Shapes } from '../config';
import { throwIfAborted, ZoetropeError } from '../errors';
import { decodeFloats, isFloatDtype } from '../floats';
import { checkTensors, type TensorSource } from '../manifest';

/** Weights of a network that is convolutions alone. */
export interface ConvWeights extends Disposable {
  /** Uploads one convolution: torch's `weight` of `shape`, and its bias. */
  add(conv: string, weight: Float32Array, shape: readonly number[], bias: Float32Array): void;
}

/**
 * Reads `<conv>.weight` and `<conv>.bias` of every convolution in `shapes`, one by one, into `weights`. Frees `weights` when it
 * throws: `bad-checkpoint` for another network, `aborted`, and what the source throws.
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
