import { Command, Option } from 'commander';
import { openIfThere } from '../checkpoint/safetensors';
import { type Inspection, inspectSource } from '../import/inspect';
import { isUrl } from '../import/url';
import { MANIFEST_FILE } from '../manifest';
import { diskFolder } from './files';
import { modelSummary } from './import';
import { partSources } from './import-part';
import { openSources } from './sources';
import { statedBy } from './stated';

const MIB = 2 ** 20;

function text(inspection: Inspection): string {
  const { path, format, kind, part, why, role, variant, names, config, storage, tensors, imported } = inspection;
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  const optional = part && `interpolator, imported as the optional part "${part}"`;
  const what = [
    optional ?? kind ?? 'not importable',
    role && `${role}-noise expert`,
    variant,
    names && `${names} names`,
  ];
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

/** Opens what a path names and tells what it is. A folder that an import has written is told by its manifest. */
export async function inspect(path: string): Promise<{ text: string; json: unknown }> {
  const sources = await openSources({ from: [path] });
  const folder = isUrl(path) ? sources[0]?.folder : diskFolder(path);
  if (folder && (await openIfThere(folder, MANIFEST_FILE))) {
    const stated = await statedBy(folder);
    if ('part' in stated) {
      const { part, name, license, files } = stated.part;
      const head = `${path}: optional part "${part}", ${name}, ${license}`;
      return { text: `${head}\n${modelSummary({ components: { [part]: files } })}`, json: stated.part };
    }
    const { name, variant, quantization, license } = stated.model;
    const head = `${path}: model "${name}", ${variant}, ${quantization}, ${license}`;
    return { text: `${head}\n${modelSummary(stated.model)}`, json: stated.model };
  }
  const network = await partSources({ from: [path] });
  if (network && 'param' in network) {
    const bytes = network.param.sizeBytes + network.bin.sizeBytes;
    const head = `${path}: ncnn graph and weights, ${(bytes / MIB).toFixed(1)} MiB`;
    const { part } = network;
    return {
      text: `${head}\n  interpolator, imported as the optional part "${part}"`,
      json: [{ path, format: 'ncnn', part }],
    };
  }
  const inspections = (await Promise.all(sources.map(inspectSource))).flat();
  return { text: inspections.map(text).join('\n'), json: inspections };
}

/** The `inspect` command. */
export function inspectCommand(): Command {
  return new Command('inspect')
    .description('Tell what a file, folder or URL holds and what an import would make of it')
    .argument('<source>', 'file or folder that could be imported, or that an import has written')
    .addOption(new Option('--json', 'everything, with every tensor, as JSON'))
    .action(async (path: string, { json }: { json?: true }) => {
      const result = await inspect(path);
      console.log(json ? JSON.stringify(result.json, null, 2) : result.text);
    });
}
