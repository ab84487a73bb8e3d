import { Command, Option } from 'commander';
import { type FileTensors, openTensors } from '../checkpoint/file-tensors';
import { identify } from '../checkpoint/identify';
import { openIfThere } from '../checkpoint/safetensors';
import { type Found, type FoundPart, findParts, type ImportSource, roleOf } from '../checkpoint/sources';
import { largestEntries, planShards } from '../checkpoint/storage';
import { variantOf } from '../checkpoint/variants';
import { ditShapes, type Shapes, umt5Shapes } from '../config';
import { ZoetropeError } from '../errors';
import { MANIFEST_FILE, type Quantization, tensorBytes } from '../manifest';
import { openModel } from '../store/verified';
import { modelSummary } from './import';
import { openSources } from './sources';

/** What a file or set of files is, as `inspect --json` prints it. */
export interface Inspection {
  path: string;
  format: string;
  /** `dit`, `text_encoder` or `vae`; null when it cannot be imported, for the reason that `why` gives. */
  kind: FoundPart['part']['kind'] | null;
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

const MIB = 2 ** 20;

function largestBytes(component: string, shapes: Shapes, quantization: Quantization): number {
  const planned = planShards(component, shapes, quantization).flatMap((shard) => shard.tensors);
  return planned.flatMap(largestEntries).reduce((sum, [, entry]) => sum + tensorBytes(entry), 0);
}

function describe(source: FileTensors, role: 'high' | 'low' | undefined): Inspection {
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
  try {
    const part = identify(source);
    if (part.kind === 'vae') return { ...found, kind: part.kind, config: part.config ?? { baseDim: part.baseDim } };
    const shapes = part.kind === 'dit' ? ditShapes(part.config) : umt5Shapes(part.config);
    const forms = ['q4', 'q8', 'f16'] as const;
    const imported = Object.fromEntries(forms.map((form) => [form, largestBytes(part.kind, shapes, form)]));
    return {
      ...found,
      kind: part.kind,
      names: part.scheme.label,
      config: part.config,
      imported: imported as Record<Quantization, number>,
      ...(part.kind === 'dit' && { role, variant: variantOf(part.config, role ? 2 : 1) }),
    };
  } catch (error) {
    if (!(error instanceof ZoetropeError)) throw error;
    return { ...found, kind: null, why: error.message };
  }
}

async function inspectSource(source: ImportSource): Promise<Inspection[]> {
  if (source.file) return [describe(await openTensors(source.file, source.path), source.role ?? roleOf(source.path))];
  const found: Found = await findParts([source]);
  return found.parts.map(({ tensors, role }) => describe(tensors, role));
}

function text(inspection: Inspection): string {
  const { path, format, kind, why, role, variant, names, config, storage, tensors, imported } = inspection;
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  const what = [kind ?? 'not importable', role && `${role}-noise expert`, variant, names && `${names} names`];
  const lines = [
    `${path}: ${format}, ${tensors.length} tensors, ${(bytes / MIB).toFixed(1)} MiB`,
    `  ${what.filter((part) => part !== undefined).join(', ')}`,
  ];
  if (why) lines.push(`  ${why}`);
  if (config) lines.push(`  ${JSON.stringify(config)}`);
  for (const [name, sum] of Object.entries(storage)) {
    lines.push(
      `  ${name.padEnd(24)}${`${sum.tensors}`.padStart(6)} tensors${(sum.bytes / MIB).toFixed(1).padStart(12)} MiB`,
    );
  }
  if (imported) {
    const sizes = Object.entries(imported).map(([form, size]) => `${form} ${(size / MIB).toFixed(0)} MiB`);
    lines.push(`  would take at most: ${sizes.join(', ')}`);
  }
  return lines.join('\n');
}

/** Opens what a path names and tells what it is. A model folder is told by its manifest. */
export async function inspect(path: string): Promise<{ text: string; json: unknown }> {
  const sources = await openSources({ from: [path] });
  const [first] = sources;
  if (first?.folder && (await openIfThere(first.folder, MANIFEST_FILE))) {
    const { manifest } = await openModel(first.folder);
    const head = `${path}: model "${manifest.name}", ${manifest.variant}, ${manifest.quantization}, ${manifest.license}`;
    return { text: `${head}\n${modelSummary(manifest)}`, json: manifest };
  }
  const inspections = (await Promise.all(sources.map(inspectSource))).flat();
  return { text: inspections.map(text).join('\n'), json: inspections };
}

/** The `inspect` command. */
export function inspectCommand(): Command {
  return new Command('inspect')
    .description('Tell what a file, folder or URL holds and what an import would make of it')
    .argument('<source>', 'safetensors or GGUF file, checkpoint folder, or model folder')
    .addOption(new Option('--json', 'everything, with every tensor, as JSON'))
    .action(async (path: string, { json }: { json?: true }) => {
      const result = await inspect(path);
      console.log(json ? JSON.stringify(result.json, null, 2) : result.text);
    });
}
