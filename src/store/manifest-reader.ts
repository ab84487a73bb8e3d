import * as z from 'zod/mini';
import { checkDitConfig, MAX_LAYERS, MAX_WIDTH } from '../config';
import { messageOf, ZoetropeError } from '../errors';
import {
  type ComponentName,
  checkLayers,
  checkPath,
  checkTensors,
  componentShapes,
  MANIFEST_FILE,
  MAX_LABEL_LENGTH,
  MAX_PIECE_BYTES,
  type Manifest,
  type ManifestFile,
  matrixStorage,
  SCALES_SUFFIX,
  type ShardTensor,
  type TensorEntry,
  tensorBytes,
  ZERO_POINTS_SUFFIX,
} from '../manifest';
import type { PartManifest, PartName } from '../part';
import { filmConfig, filmShapes } from '../part/film';
import { rifeConfig, rifeShapes } from '../part/rife';

/** Largest manifest read. That of A14B, with 3,600 tensors and 1,300 pieces, has about 0.7 MB. */
export const MAX_MANIFEST_BYTES = 16 * 1024 * 1024;

const SIZE_MULTIPLE = 16;
const MAX_SIDE = 4096;

const count = (max: number) => z.int().check(z.minimum(1), z.maximum(max));
const width = count(MAX_WIDTH);
const text = z.string().check(z.minLength(1), z.maxLength(MAX_LABEL_LENGTH));
const byteCount = z.int().check(z.minimum(0));
const side = z.int().check(z.minimum(SIZE_MULTIPLE), z.maximum(MAX_SIDE), z.multipleOf(SIZE_MULTIPLE));
const size = z.tuple([side, side]);
const shapes = z.object({ '16:9': size, '9:16': size, '1:1': size });
const epsilon = z.number().check(z.positive(), z.maximum(1));

const tensorSchema = z.object({
  dtype: z.enum(['F32', 'F16', 'BF16', 'U8']),
  shape: z.array(z.int().check(z.minimum(0))).check(z.maxLength(8)),
  range: z.tuple([byteCount, byteCount]),
});

const fileSchema = z.object({
  path: z.string(),
  sizeBytes: byteCount,
  pieces: z.array(
    z.object({
      sizeBytes: count(MAX_PIECE_BYTES),
      sha256: z.string().check(z.regex(/^[0-9a-f]{64}$/, 'must be 64 lower-case hexadecimal digits')),
    }),
  ),
  tensors: z.optional(z.record(z.string(), tensorSchema)),
});

const files = z.array(fileSchema).check(z.minLength(1));

/** Steps that a measured run may have. */
const MAX_MEASURED = 1000;
/** Widest ratio of two magnitudes that is no mistake; published ones lie between 0.6 and 1.1. */
const MAX_RATIO = 100;
const ratio = z.number().check(z.minimum(1 / MAX_RATIO), z.maximum(MAX_RATIO));
const ratioList = z.array(ratio).check(z.minLength(2), z.maxLength(MAX_MEASURED));
const magnitudeRatios = z.object({
  sigmas: z.array(z.number().check(z.minimum(0), z.maximum(1))).check(z.minLength(2), z.maxLength(MAX_MEASURED)),
  conditional: ratioList,
  unconditional: ratioList,
});

const manifestSchema = z.object({
  format: z.literal(1),
  name: text,
  license: text,
  variant: z.enum(['a14b', '14b', '1.3b', 'custom']),
  quantization: z.enum(['q4', 'q8', 'f16']),
  dit: z.object({
    dim: width,
    ffnDim: width,
    numHeads: count(1024),
    numLayers: count(MAX_LAYERS),
    inChannels: count(1024),
    outChannels: count(1024),
    freqDim: width,
    textDim: width,
    textLen: count(4096),
    eps: epsilon,
  }),
  umt5: z.object({
    vocabSize: width,
    dModel: width,
    dKv: count(4096),
    numHeads: count(1024),
    dFf: width,
    numLayers: count(MAX_LAYERS),
    relativeBuckets: count(1024),
    relativeMaxDistance: width,
    eps: epsilon,
  }),
  vae: z.object({
    baseDim: count(4096),
    zDim: count(1024),
    dimMult: z.array(count(64)).check(z.minLength(1), z.maxLength(8)),
    numResBlocks: count(64),
    temporalUpsample: z.array(z.boolean()),
    latentsMean: z.array(z.number()),
    latentsStd: z.array(z.number().check(z.positive())),
  }),
  boundary: z.nullable(z.number().check(z.gt(0), z.lt(1))),
  sizes: z.object({ '480p': shapes, '580p': shapes, '720p': shapes }),
  recommended: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
  preview: z.object({
    weights: z.array(z.array(z.number()).check(z.length(3))),
    bias: z.array(z.number()).check(z.length(3)),
  }),
  acceleration: z.optional(
    z.object({
      threshold: z.number().check(z.positive(), z.maximum(10)),
      maxSkips: count(100),
      retention: z.number().check(z.minimum(0), z.maximum(1)),
      high: magnitudeRatios,
      low: z.optional(magnitudeRatios),
    }),
  ),
  components: z.object({
    tokenizer: files,
    text_encoder: files,
    high: files,
    low: z.optional(files),
    vae: files,
  }),
});

const partSchema = z.object({ format: z.literal(1), part: z.enum(['film', 'rife']), name: text, license: text, files });

function refuse(message: string): never {
  throw new ZoetropeError('bad-checkpoint', `${MANIFEST_FILE}: ${message}`);
}

/** The first problem that the schema found, with whatever limits it names. `zod/mini` has no sentences of its own. */
function firstProblem({ issues }: z.core.$ZodError): string {
  const { path, message, ...rest } = issues[0]!;
  const limits = Object.entries(rest)
    .filter(([key]) => ['expected', 'format', 'values', 'minimum', 'maximum', 'divisor'].includes(key))
    .map(([key, value]) => `${key} ${value}`);
  return `${path.join('.') || 'the top level'}: ${[message, ...limits].join(', ')}`;
}

/** Numbers that must agree with each other, beyond what the schema sees. */
function checkNumbers({ dit, umt5, vae, preview, boundary, components }: Manifest): void {
  checkDitConfig(dit, MANIFEST_FILE);
  if (dit.textDim !== umt5.dModel) refuse(`text_dim is ${dit.textDim}, the text encoder gives ${umt5.dModel}.`);
  if (dit.inChannels !== vae.zDim) refuse(`the transformer has ${dit.inChannels} channels, the VAE ${vae.zDim}.`);
  const lists = [vae.latentsMean.length, vae.latentsStd.length, preview.weights.length];
  if (lists.some((length) => length !== vae.zDim)) {
    refuse(`latentsMean, latentsStd and the preview must have ${vae.zDim} entries, got ${lists.join(', ')}.`);
  }
  if (vae.temporalUpsample.length !== vae.dimMult.length - 1) {
    refuse(`temporalUpsample must have ${vae.dimMult.length - 1} entries, got ${vae.temporalUpsample.length}.`);
  }
  if ((boundary === null) !== (components.low === undefined)) {
    refuse('a boundary and a "low" component belong together; one of them is missing.');
  }
}

/** The measured levels of each expert fall, and every level has its ratios. */
function checkAcceleration({ acceleration, components }: Manifest): void {
  if (!acceleration) return;
  if ((acceleration.low === undefined) !== (components.low === undefined)) {
    refuse('the ratios of acceleration and the components must be of the same experts.');
  }
  for (const stage of ['high', 'low'] as const) {
    const measured = acceleration[stage];
    if (!measured) continue;
    const { sigmas, conditional, unconditional } = measured;
    if (conditional.length !== sigmas.length || unconditional.length !== sigmas.length) {
      refuse(
        `acceleration.${stage} has ${sigmas.length} levels with ${conditional.length} and ${unconditional.length} ratios.`,
      );
    }
    const rises = sigmas.findIndex((sigma, index) => index > 0 && sigma >= sigmas[index - 1]!);
    if (rises > 0) refuse(`acceleration.${stage}.sigmas must fall, ${sigmas[rises]} follows ${sigmas[rises - 1]}.`);
  }
}

function checkFile(file: ManifestFile, hasTensors: boolean): void {
  const { path, sizeBytes, pieces, tensors } = file;
  checkPath(path, MANIFEST_FILE);
  const sum = pieces.reduce((total, piece) => total + piece.sizeBytes, 0);
  if (sum !== sizeBytes) refuse(`${path} has ${sizeBytes} bytes, its pieces ${sum}.`);
  if ((tensors !== undefined) !== hasTensors) refuse(`${path} ${hasTensors ? 'lists no' : 'must not list'} tensors.`);
  const byPosition = Object.entries(tensors ?? {}).sort(([, a], [, b]) => a.range[0] - b.range[0]);
  let end = 0;
  for (const [name, tensor] of byPosition) {
    const [begin, next] = tensor.range;
    if (next > sizeBytes || tensorBytes(tensor) !== next - begin) {
      refuse(`"${name}" of ${tensor.dtype} [${tensor.shape}] cannot lie at bytes ${begin} to ${next} of ${path}.`);
    }
    if (begin < end) refuse(`"${name}" overlaps another tensor of ${path}.`);
    end = next;
  }
}

/** Scales and zero points must fit the quantised matrix that they belong to; `checkTensors` looks at the matrices. */
function checkQuantization(entries: ReadonlyMap<string, TensorEntry>, component: ComponentName | PartName): void {
  for (const [name, { dtype, shape }] of entries) {
    const suffix = [SCALES_SUFFIX, ZERO_POINTS_SUFFIX].find((end) => name.endsWith(end));
    if (suffix === undefined) continue;
    const owner = name.slice(0, -suffix.length);
    const { rows, columns, bits } = matrixStorage(entries, owner);
    if (bits > 8) refuse(`${component}: "${name}" belongs to "${owner}", which is not quantised.`);
    const blocks = entries.get(owner)!.shape[1]!;
    const isScales = suffix === SCALES_SUFFIX;
    const expected = isScales ? [rows, blocks] : [rows, Math.ceil((blocks * bits) / 8)];
    const right = isScales ? dtype === 'F16' || dtype === 'F32' : dtype === 'U8';
    if (!right || shape.length !== 2 || shape[0] !== expected[0] || shape[1] !== expected[1]) {
      refuse(`${component}: "${name}" of ${dtype} [${shape}] does not fit a matrix of ${rows} x ${columns}.`);
    }
  }
}

/** Tensors of a component's shards, by name. Throws when two shards hold the same. */
export function componentTensors(componentFiles: readonly ManifestFile[]): Map<string, ShardTensor & { path: string }> {
  const tensors = new Map<string, ShardTensor & { path: string }>();
  for (const { path, tensors: own } of componentFiles) {
    for (const [name, tensor] of Object.entries(own ?? {})) {
      if (tensors.has(name)) refuse(`${path} and ${tensors.get(name)!.path} both hold "${name}".`);
      tensors.set(name, { ...tensor, path });
    }
  }
  return tensors;
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    return refuse(`this is not JSON (${messageOf(error)}). Check that the address is that of a model folder.`);
  }
}

/**
 * Reads and validates `zoetrope.json` from bytes that nobody vouches for: structure, limits, paths, piece sums, tensor
 * ranges, and that every component holds exactly the tensors that the configuration needs. Throws `bad-checkpoint` with
 * the first problem.
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  const parsed = z.safeParse(manifestSchema, parseJson(bytes));
  if (!parsed.success) refuse(`${firstProblem(parsed.error)}. Import the checkpoint again.`);
  const manifest = parsed.data as Manifest;
  checkNumbers(manifest);
  checkAcceleration(manifest);
  const paths = new Set([MANIFEST_FILE]);
  for (const [component, componentFiles] of Object.entries(manifest.components) as [ComponentName, ManifestFile[]][]) {
    for (const file of componentFiles) {
      checkFile(file, component !== 'tokenizer');
      // Some disks do not tell case apart.
      const key = file.path.toLowerCase();
      if (paths.has(key)) refuse(`the file ${file.path} is listed twice.`);
      paths.add(key);
    }
    const tensors = componentTensors(componentFiles);
    const what = `${MANIFEST_FILE}: ${component}`;
    checkLayers(manifest, component, tensors.size, what);
    checkTensors(tensors, componentShapes(manifest, component), what);
    checkQuantization(tensors, component);
  }
  return manifest;
}

/**
 * Reads and validates the `zoetrope.json` of an optional part, as strictly as a model's. Throws `bad-checkpoint` with
 * the first problem, also for another part.
 */
export function parsePart(bytes: Uint8Array, part: PartName): PartManifest {
  const parsed = z.safeParse(partSchema, parseJson(bytes));
  if (!parsed.success)
    refuse(`${firstProblem(parsed.error)}. This is no folder of the part "${part}"; import it again.`);
  const manifest = parsed.data as PartManifest;
  if (manifest.part !== part) refuse(`this is the part "${manifest.part}", not "${part}".`);
  for (const file of manifest.files) checkFile(file, true);
  const tensors = componentTensors(manifest.files);
  const shapes = part === 'film' ? filmShapes(filmConfig(tensors)) : rifeShapes(rifeConfig(tensors));
  checkTensors(tensors, shapes, `${MANIFEST_FILE}: ${part}`);
  checkQuantization(tensors, part);
  return manifest;
}
