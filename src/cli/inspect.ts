import { Command, Option } from 'commander';
import { openIfThere } from '../checkpoint/safetensors';
import { type Inspection, inspectSource } from '../import/inspect';
import { MANIFEST_FILE } from '../manifest';
import { openModel } from '../store/verified';
import { modelSummary } from './import';
import { openSources } from './sources';

const MIB = 2 ** 20;

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
