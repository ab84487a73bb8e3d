import type { DitConfig, Shapes, Umt5Config, VaeConfig } from '../config';
import { ZoetropeError } from '../errors';
import { decodeFloats, isFloatDtype, refuseNonFinite } from '../floats';
import {
  type ByteSource,
  type ComponentName,
  checkTensors,
  DTYPE_BYTES,
  type RangedTensorSource,
  type TensorEntry,
} from '../manifest';
import { type NameScheme, resolveNames } from './names';

/** Components that hold tensors. */
export type WeightComponent = Exclude<ComponentName, 'tokenizer'>;

/** Weights of one component by internal name, whatever file they come from. */
export interface Weights {
  /** Exactly the tensors of the component's shapes; `dtype` is the file's. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /** Elements `begin` to `end` (exclusive), row-major, every value exact. Refuses NaN and infinities. */
  readFloats(name: string, begin: number, end: number): Promise<Float32Array>;
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
  readonly entries: ReadonlyMap<string, TensorEntry>;

  constructor(
    private readonly source: RangedTensorSource,
    private readonly names: ReadonlyMap<string, string>,
  ) {
    this.entries = new Map(Array.from(names, ([internal, name]) => [internal, source.entries.get(name)!]));
  }

  async readFloats(internal: string, begin: number, end: number): Promise<Float32Array> {
    const name = this.names.get(internal);
    const entry = this.entries.get(internal);
    if (name === undefined || !entry || !isFloatDtype(entry.dtype)) {
      throw new ZoetropeError('internal', `"${internal}" is not among the weights.`);
    }
    const size = DTYPE_BYTES[entry.dtype];
    const values = decodeFloats(await this.source.readRange(name, begin * size, end * size), entry.dtype);
    refuseNonFinite(values, name, begin);
    return values;
  }
}

/**
 * Gives a source's tensors their internal names. Throws `bad-checkpoint`, in the file's names, for tensors that are
 * missing, of a wrong shape, unknown, or of a dtype that holds no plain floats. `what` names the component's files.
 */
export function nameWeights(source: RangedTensorSource, shapes: Shapes, scheme: NameScheme, what: string): Weights {
  const names = resolveNames(source.entries, shapes, scheme);
  const wanted = new Set(names.values());
  const entries = new Map(Array.from(source.entries).filter(([name]) => wanted.has(name) || !scheme.ignores(name)));
  const strange = Array.from(entries).find(([name, entry]) => wanted.has(name) && !isFloatDtype(entry.dtype));
  if (strange) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `${what}: "${strange[0]}" is of ${strange[1].dtype}; ${scheme.label} weights must be F32, F16 or BF16. ${REMEDY}`,
    );
  }
  const expected: Shapes = new Map(Array.from(shapes, ([internal, shape]) => [names.get(internal)!, shape]));
  checkTensors(entries, expected, what, REMEDY);
  return new NamedWeights(source, names);
}
