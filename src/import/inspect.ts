import { type FileTensors, openTensors } from '../checkpoint/file-tensors';
import { identify } from '../checkpoint/identify';
import { openCheckpoint } from '../checkpoint/open';
import { type FoundPart, findParts, type ImportSource, roleOf } from '../checkpoint/sources';
import { largestBytes, largestModelBytes } from '../checkpoint/storage';
import { variantOf } from '../checkpoint/variants';
import { ditShapes, type Shapes, umt5Shapes, type VaeConfig, vaeShapes } from '../config';
import { ZoetropeError } from '../errors';
import type { Quantization } from '../manifest';
import type { PartName } from '../part';
import { partIn, partOf } from './part-files';

/** What a file or set of files is, as `inspect --json` prints it. */
export interface Inspection {
  path: string;
  format: string;
  /** Null when it is no component of a model, for the reason that `why` gives. */
  kind: FoundPart['part']['kind'] | 'tokenizer' | 'vae_config' | null;
  /** The optional part that it is. */
  part?: PartName;
  why?: string;
  /** Expert that the name tells. */
  role?: 'high' | 'low' | undefined;
  /** Family of a diffusion model by its sizes, for two experts and for one. */
  variant?: string;
  /** Scheme of the tensors' names. */
  names?: string;
  config?: unknown;
  /** Bytes and tensors by storage. */
  storage: Record<string, { tensors: number; bytes: number }>;
  tensors: { name: string; shape: number[]; storage: string; bytes: number }[];
  /** Bytes at most that it would take in a model, by `--quant`. */
  imported?: Record<Quantization, number>;
}

/** What an import of some sources would come to. */
export interface ImportOutlook {
  /** What was recognised, source by source. Empty for an optional part. */
  found: Inspection[];
  /** Optional part that the sources are, and no model. */
  part?: PartName;
  /** Bytes at most of the model, by storage of its matrices; absent when an import would be refused. */
  modelBytes?: Record<Quantization, number>;
  /** Whether it has two experts or one; absent as `modelBytes` is. */
  experts?: 1 | 2;
  /** Why an import would be refused, and what to add. */
  problem?: string;
}

const FORMS = ['q4', 'q8', 'f16'] as const satisfies readonly Quantization[];

/** @param given configuration that lies beside a VAE. */
function describe(source: FileTensors, role: 'high' | 'low' | undefined, given?: VaeConfig): Inspection {
  const tensors = Array.from(source.tensors, ([name, { shape, storage, sizeBytes }]) => {
    return { name, shape, storage, bytes: sizeBytes };
  });
  const storage: Inspection['storage'] = {};
  for (const tensor of tensors) {
    storage[tensor.storage] ??= { tensors: 0, bytes: 0 };
    const sum = storage[tensor.storage]!;
    sum.tensors += 1;
    sum.bytes += tensor.bytes;
  }
  const found = { path: source.what, format: source.format, storage, tensors };
  const optional = partOf(source.tensors);
  if (optional)
    return { ...found, kind: null, part: optional, why: 'This is no part of a model: import it by itself.' };
  try {
    const part = identify(source);
    const vae = part.kind === 'vae' ? (part.config ?? given) : undefined;
    if (part.kind === 'vae' && !vae) return { ...found, kind: part.kind, config: { baseDim: part.baseDim } };
    const imported = Object.fromEntries(
      FORMS.map((form) => [form, largestBytes(part.kind, shapesOf(part, vae), form)]),
    );
    return {
      ...found,
      kind: part.kind,
      names: part.kind === 'vae' ? part.scheme(vae!).label : part.scheme.label,
      config: vae ?? part.config,
      imported: imported as Record<Quantization, number>,
      ...(part.kind === 'dit' && { role, variant: variantOf(part.config, role ? 2 : 1) }),
    };
  } catch (error) {
    if (!(error instanceof ZoetropeError)) throw error;
    return { ...found, kind: null, why: error.message };
  }
}

/** Tensors that a model needs of a part. */
function shapesOf(part: FoundPart['part'], vae: VaeConfig | undefined): Shapes {
  if (part.kind === 'dit') return ditShapes(part.config);
  return part.kind === 'vae' ? vaeShapes(vae!) : umt5Shapes(part.config);
}

/** A tokenizer or the configuration of a VAE. Throws `bad-checkpoint` for what is neither. */
async function inspectSmall(source: ImportSource): Promise<Inspection> {
  const { tokenizers, vaeConfig } = await findParts([source]);
  await tokenizers[0]?.open();
  const { path } = source;
  const format = path.endsWith('.model') ? 'SentencePiece' : 'JSON';
  return { path, format, kind: vaeConfig ? 'vae_config' : 'tokenizer', storage: {}, tensors: [] };
}

/** Opens a source and tells what each part in it is. Nothing but headers is read. */
export async function inspectSource(source: ImportSource): Promise<Inspection[]> {
  if (isSmall(source)) return [await inspectSmall(source)];
  if (source.file) return [describe(await openTensors(source.file, source.path), source.role ?? roleOf(source.path))];
  const found = await findParts([source]);
  return found.parts.map(({ tensors, role }) => describe(tensors, role, found.vaeConfig));
}

/** Tells what the sources are and whether they make a model together. Throws what reading them throws. */
export async function inspectSources(sources: readonly ImportSource[]): Promise<ImportOutlook> {
  const part = await partIn(sources);
  if (part) return { found: [], part: part.part };
  const found: Inspection[] = [];
  for (const source of sources) if (!isSmall(source)) found.push(...(await inspectSource(source)));
  try {
    const checkpoint = await openCheckpoint(sources);
    const bytes = FORMS.map((form) => [form, largestModelBytes(checkpoint, form)] as const);
    const modelBytes = Object.fromEntries(bytes) as Record<Quantization, number>;
    return { found, modelBytes, experts: checkpoint.weights.low ? 2 : 1 };
  } catch (error) {
    if (!(error instanceof ZoetropeError) || error.code !== 'bad-checkpoint') throw error;
    return { found, problem: error.message };
  }
}

/** Whether a source is a tokenizer or a configuration, of which there is nothing to tell. */
function isSmall({ path, file }: ImportSource): boolean {
  return file !== undefined && /\.(json|model)$/i.test(path);
}
