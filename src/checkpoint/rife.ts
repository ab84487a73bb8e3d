import { ZoetropeError } from '../errors';
import { encodeF16, floatBytes } from '../floats';
import { type ByteSource, type FolderSink, MANIFEST_FILE } from '../manifest';
import type { PartManifest } from '../part';
import { isRifeTransposed, RIFE_46, type RifeConfig, rifeEntries, rifeShapes } from '../part/rife';
import { type NcnnLayer, type NcnnRecord, ncnnInteger, readNcnn } from './ncnn';
import { writePartManifest } from './part-manifest';
import { writePartShard } from './part-shard';

/** What ncnn's graph of RIFE 4.6 has of each type of layer. */
const LAYERS: Readonly<Record<string, number>> = {
  BinaryOp: 43,
  Concat: 7,
  Convolution: 40,
  Crop: 16,
  Deconvolution: 4,
  Eltwise: 2,
  Input: 3,
  Interp: 8,
  PixelShuffle: 4,
  ReLU: 32,
  Sigmoid: 1,
  Split: 47,
  'rife.Warp': 8,
};

/** Slope of every LeakyReLU. */
const SLOPE = Math.fround(0.2);

export interface RifeImportOptions {
  /** `flownet.param` and `flownet.bin`. */
  param: ByteSource;
  bin: ByteSource;
  /** Where the part's folder goes. `zoetrope.json` is removed first and written last. */
  sink: FolderSink;
  /** SPDX identifier of the weights' licence; default "unknown", because neither file states it. */
  license?: string;
  signal?: AbortSignal | undefined;
}

function refuse(why: string): never {
  throw new ZoetropeError(
    'bad-checkpoint',
    `The graph is not that of ${RIFE_46.name}: ${why}. Import rife-v4.6 of rife-ncnn-vulkan.`,
  );
}

/** Whether an activation follows inside the layer, as ncnn fuses it. */
function leaky({ params }: NcnnLayer): boolean {
  const slope = params.get(10);
  return params.get(9) === 2 && Array.isArray(slope) && slope.length === 1 && Math.fround(slope[0]!) === SLOPE;
}

/** Compares everything that decides what a layer computes with the network as {@link rifeShapes} has it. */
function checkGraph(layers: readonly NcnnLayer[], records: readonly NcnnRecord[], config: RifeConfig): void {
  for (const type of new Set([...layers.map((layer) => layer.type), ...Object.keys(LAYERS)])) {
    const count = layers.filter((layer) => layer.type === type).length;
    if (count !== (LAYERS[type] ?? 0)) refuse(`it has ${count} layers of the type ${type}, not ${LAYERS[type] ?? 0}`);
  }
  const resizes = layers.filter(({ type }) => type === 'Interp').map(({ params }) => Number(params.get(1)));
  const expected = config.scales.flatMap((scale) => (scale === 1 ? [] : [1 / scale, scale]));
  // From the second block on pictures and flow are resized apart.
  const wanted = [...expected, ...config.scales.slice(1, -1).map((scale) => 1 / scale)].sort((a, b) => a - b);
  if ([...resizes].sort((a, b) => a - b).join() !== wanted.join()) refuse(`it resizes by ${resizes.join(', ')}`);
  for (const { type, name, params } of layers) {
    if (type === 'ReLU' && Math.fround(Number(params.get(0))) !== SLOPE) refuse(`"${name}" has another slope`);
    if (type === 'PixelShuffle' && params.get(0) !== 2) refuse(`"${name}" shuffles by ${params.get(0)}`);
  }
  const weights = [...rifeShapes(config)].filter(([name]) => name.endsWith('.weight'));
  if (records.length !== weights.length) refuse(`it has ${records.length} convolutions, not ${weights.length}`);
  weights.forEach(([name, shape], i) => {
    const { layer, shape: got } = records[i]!;
    const head = isRifeTransposed(name);
    const first = name.includes('.conv0.');
    const form = head ? [got[1], got[0], got[2], got[3]] : got;
    const stride = head || first ? 2 : 1;
    const right =
      layer.type === (head ? 'Deconvolution' : 'Convolution') &&
      form.join() === shape.join() &&
      ncnnInteger(layer, 3, 1) === stride &&
      ncnnInteger(layer, 4, 0) === 1 &&
      ncnnInteger(layer, 2, 1) === 1 &&
      leaky(layer) === first;
    if (!right) refuse(`"${layer.name}" of [${got}] is no "${name}" [${shape}] of stride ${stride}`);
  });
}

/** ncnn's [out, into, y, x] of a transposed convolution as PyTorch's [into, out, y, x]; the kernel is not flipped. */
function swapAxes(values: Float32Array, [out, into, height, width]: NcnnRecord['shape']): Float32Array {
  const size = height * width;
  const swapped = new Float32Array(values.length);
  for (let o = 0; o < out; o++) {
    for (let i = 0; i < into; i++) {
      const from = (o * into + i) * size;
      swapped.set(values.subarray(from, from + size), (i * out + o) * size);
    }
  }
  return swapped;
}

/**
 * Turns ncnn's files of RIFE 4.6 into the folder of the part `rife`: one safetensors shard with PyTorch's names and the
 * files' own values, and `zoetrope.json`. A graph that is another network is refused before anything is written. Throws
 * `bad-checkpoint`, `unreadable-source` or `aborted`.
 */
export async function importRife({ param, bin, sink, license, signal }: RifeImportOptions): Promise<PartManifest> {
  const { layers, records } = await readNcnn(param, bin, 'The ncnn network');
  const config = RIFE_46;
  checkGraph(layers, records, config);
  await sink.remove(MANIFEST_FILE);
  let index = 0;
  const file = await writePartShard({ sink, signal }, 'rife.safetensors', rifeEntries(config), (name) => {
    const { weight, bias, shape } = records[index >> 1]!;
    if (index++ % 2 === 1) return floatBytes(bias);
    return floatBytes(encodeF16(isRifeTransposed(name) ? swapAxes(weight, shape) : weight));
  });
  return writePartManifest(sink, { part: 'rife', name: config.name, license }, file, signal);
}
