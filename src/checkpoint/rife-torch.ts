import { ZoetropeError } from '../errors';
import { decodeFloats, encodeF16, F16_INFINITY, floatBytes, isFloatDtype, refuseNonFinite } from '../floats';
import { checkTensors, MANIFEST_FILE, type RangedTensorSource, type TensorEntry } from '../manifest';
import type { PartManifest } from '../part';
import { type RifeConfig, rifeConfig, rifeEntries, rifeShapes } from '../part/rife';
import { writePartManifest } from './part-manifest';
import { type PartFileOptions, refuseOtherTypes, renamedTensors, writePartShard } from './part-shard';
import { openSafetensors } from './safetensors';

/** Where to get another file. */
const REMEDY = 'Use rife_v4.25.safetensors or rife_v4.26.safetensors of Comfy-Org/frame_interpolation.';

/** What training leaves in the files and no frame needs: the teacher network, and the tables of its timing. */
const TRAINING = /^(teacher|caltime)\./;
/** A residual convolution's weight or bias, which its `beta` multiplies. */
const RESIDUAL = /^(block\d+\.convblock\.\d+)\.conv\.(?:weight|bias)$/;

/**
 * Our name of a tensor: without the `module.` of the authors' files, `blockN.` where ComfyUI's say `blocks.N.`. None
 * for what only training needs.
 */
function ourName(name: string): string | undefined {
  const ours = name.replace(/^module\./, '').replace(/^blocks\.(\d+)\./, 'block$1.');
  return TRAINING.test(ours) ? undefined : ours;
}

/** Whether these are tensors of RIFE's, in any naming. */
export function isRife(entries: Pick<ReadonlyMap<string, unknown>, 'keys'>): boolean {
  return [...entries.keys()].some((name) => ourName(name) === 'block0.conv0.0.0.weight');
}

/** Tensors of the file under our names, decoded. */
class Tensors {
  constructor(
    private readonly source: RangedTensorSource,
    private readonly names: ReadonlyMap<string, string>,
    private readonly entries: ReadonlyMap<string, TensorEntry>,
  ) {}

  async read(name: string): Promise<Float32Array> {
    const { dtype } = this.entries.get(name)!;
    if (!isFloatDtype(dtype)) throw new ZoetropeError('internal', `"${name}" was checked to be of floats.`);
    const values = decodeFloats(await this.source.read(this.names.get(name)!), dtype);
    refuseNonFinite(values, name, 0);
    return values;
  }

  /** A weight or bias, multiplied by the `beta` of its output channels where the file has one. */
  async folded(name: string): Promise<Float32Array> {
    const values = await this.read(name);
    const beta = RESIDUAL.exec(name)?.[1];
    if (beta === undefined || !this.entries.has(`${beta}.beta`)) return values;
    const factors = await this.read(`${beta}.beta`);
    const each = values.length / factors.length;
    return values.map((value, i) => value * factors[Math.floor(i / each)]!);
  }
}

/** Checks every name, shape and type. `beta` may be missing, all of them or some: it is 1 then. */
function checkNetwork(entries: ReadonlyMap<string, TensorEntry>, what: string): RifeConfig {
  const config = rifeConfig(entries);
  const shapes = rifeShapes(config);
  const expected = new Map(shapes);
  for (const [name, [channels]] of shapes) {
    const beta = `${RESIDUAL.exec(name)?.[1]}.beta`;
    if (entries.has(beta)) expected.set(beta, [1, channels!, 1, 1]);
  }
  checkTensors(entries, expected, what, REMEDY);
  refuseOtherTypes(entries, what, REMEDY);
  return config;
}

/** Weights as half floats. Throws for one that has none. */
function halves(values: Float32Array, name: string): Uint16Array {
  const words = encodeF16(values);
  const at = words.findIndex((word) => (word & F16_INFINITY) === F16_INFINITY);
  if (at < 0) return words;
  throw new ZoetropeError('bad-checkpoint', `"${name}" has the weight ${values[at]}, beyond half floats. ${REMEDY}`);
}

/**
 * Turns a safetensors file of RIFE 4.6, 4.22.lite, 4.25 or 4.26 into the folder of the part `rife`: one shard with
 * PyTorch's names, weights as half floats, and `zoetrope.json`. What is missing, of another shape or another network's
 * is refused before anything is written. Throws `bad-checkpoint`, `unreadable-source` or `aborted`.
 */
export async function importRifeTorch(options: PartFileOptions): Promise<PartManifest> {
  const { file, what, sink, license, signal } = options;
  const source = await openSafetensors(file, what);
  const names = renamedTensors(source.entries, ourName, what, REMEDY);
  const entries = new Map([...names].map(([ours, theirs]) => [ours, source.entries.get(theirs)!]));
  const config = checkNetwork(entries, what);
  await sink.remove(MANIFEST_FILE);
  const tensors = new Tensors(source, names, entries);
  const shard = await writePartShard(options, 'rife.safetensors', rifeEntries(config), async (name, { dtype }) => {
    const values = await tensors.folded(name);
    return floatBytes(dtype === 'F32' ? values : halves(values, name));
  });
  return writePartManifest(sink, { part: 'rife', name: config.name, license }, shard, signal);
}
