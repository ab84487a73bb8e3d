import type { DitConfig, Shapes, Umt5Config, VaeConfig } from '../config';
import { ZoetropeError } from '../errors';
import { refuseNonFinite } from '../floats';
import type { ByteSource, ComponentName } from '../manifest';
import type { FileTensor } from './file-tensor';
import type { FileTensors } from './file-tensors';
import { type NameScheme, resolveNames } from './names';
import type { QuantizedRows } from './quantize';

/** Components that hold tensors. */
export type WeightComponent = Exclude<ComponentName, 'tokenizer'>;

/** Weights of one component by internal name, whatever file they come from. */
export interface Weights {
  /** Exactly the tensors of the component's shapes, with their shapes; storage and size are the file's. */
  readonly entries: ReadonlyMap<string, Pick<FileTensor, 'shape' | 'storage' | 'sizeBytes'>>;
  /**
   * Elements `begin` to `end` (exclusive), row-major, every value as the file's format defines it; both between rows.
   * Refuses NaN and infinities.
   */
  readFloats(name: string, begin: number, end: number): Promise<Float32Array>;
  /**
   * The same rows as stored blocks of so many bits, where the file holds blocks that are ours without quantising again;
   * else undefined.
   */
  readBlocks(name: string, begin: number, end: number, bits: 4 | 8): Promise<QuantizedRows> | undefined;
}

/** Somebody else's checkpoint, opened and checked: everything that an import needs, independent of the file format. */
export interface Checkpoint {
  dit: DitConfig;
  umt5: Umt5Config;
  vae: VaeConfig;
  /** Fraction of the training steps at which the experts change; null with a single expert. */
  boundary: number | null;
  /** Timestep shift that the checkpoint's scheduler states. */
  shift: number;
  /** `tokenizer.json` of the text encoder. */
  tokenizer: ByteSource;
  /** `low` is absent with a single expert. */
  weights: Partial<Record<WeightComponent, Weights>>;
}

const REMEDY = 'Use the files of one complete release.';

class NamedWeights implements Weights {
  readonly entries: ReadonlyMap<string, FileTensor>;

  constructor(
    { tensors }: FileTensors,
    private readonly names: ReadonlyMap<string, string>,
    shapes: Shapes,
  ) {
    this.entries = new Map(
      Array.from(shapes, ([internal, shape]) => [internal, { ...tensors.get(names.get(internal)!)!, shape }]),
    );
  }

  async readFloats(internal: string, begin: number, end: number): Promise<Float32Array> {
    const values = await this.#tensor(internal).readFloats!(begin, end);
    refuseNonFinite(values, this.names.get(internal)!, begin);
    return values;
  }

  readBlocks(internal: string, begin: number, end: number, bits: 4 | 8): Promise<QuantizedRows> | undefined {
    const { blocks } = this.#tensor(internal);
    if (!blocks?.bits.includes(bits)) return undefined;
    return blocks.read(begin, end, bits).then((rows) => {
      const broken = rows.scales.findIndex((scale) => !Number.isFinite(scale));
      if (broken < 0) return rows;
      throw new ZoetropeError(
        'bad-checkpoint',
        `Tensor "${this.names.get(internal)}" holds the scale ${rows.scales[broken]} at element ${begin + 32 * broken}. Download the checkpoint again.`,
      );
    });
  }

  #tensor(internal: string): FileTensor {
    const tensor = this.entries.get(internal);
    if (!tensor) throw new ZoetropeError('internal', `"${internal}" is not among the weights.`);
    return tensor;
  }
}

/**
 * Whether the values lie in the same order: ggml keeps no leading axes of length 1, so GGUF files may hold a [1, 6, C]
 * tensor as [6, C].
 */
function sameShape(a: readonly number[], b: readonly number[]): boolean {
  const inner = (shape: readonly number[]) => shape.slice(shape.findIndex((size) => size !== 1));
  const [x, y] = [inner(a), inner(b)];
  return x.length === y.length && x.every((size, axis) => size === y[axis]);
}

/**
 * Gives a file's tensors their internal names. Throws `bad-checkpoint`, in the file's names, for tensors that are
 * missing, of a wrong shape, unknown, or hold no floats. `what` names the component's files.
 */
export function nameWeights(source: FileTensors, shapes: Shapes, scheme: NameScheme, what: string): Weights {
  const names = resolveNames(source.tensors, shapes, scheme);
  const problems: string[] = [];
  for (const [internal, shape] of shapes) {
    const name = names.get(internal)!;
    const tensor = source.tensors.get(name);
    if (!tensor) problems.push(`"${name}" [${shape}] is missing`);
    else if (!sameShape(tensor.shape, shape)) {
      problems.push(`"${name}" has shape [${tensor.shape}] of ${tensor.storage}, expected [${shape}]`);
    } else if (!tensor.readFloats) problems.push(`"${name}" is of ${tensor.storage}, which holds no floats`);
  }
  const wanted = new Set(names.values());
  for (const name of source.tensors.keys()) {
    if (!wanted.has(name) && !scheme.ignores(name)) problems.push(`"${name}" does not belong to the model`);
  }
  if (problems.length > 0) {
    const more = problems.length > 4 ? ` and ${problems.length - 4} more problems` : '';
    throw new ZoetropeError('bad-checkpoint', `${what}: ${problems.slice(0, 4).join('; ')}${more}. ${REMEDY}`);
  }
  return new NamedWeights(source, names, shapes);
}
