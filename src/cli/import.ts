import { basename, dirname, resolve } from 'node:path';
import { Command, Option } from 'commander';
import { type ImportProgress, importCheckpoint } from '../checkpoint/import';
import { importRife } from '../checkpoint/rife';
import { parseSizes } from '../checkpoint/variants';
import { ZoetropeError } from '../errors';
import type { Manifest, Quantization } from '../manifest';
import type { PartManifest } from '../part';
import { diskFolder, diskSink } from './files';

/** What `zoetrope import` takes. */
export interface ImportArguments {
  /** Folder of the checkpoint, diffusers layout. */
  from: string;
  /** Folder of the model to write. */
  to: string;
  quant: Quantization;
  /** Default: the last part of `to`. */
  name?: string;
  license?: string;
  /** JSON, see `parseSizes`. */
  sizes?: string;
}

const MIB = 1024 * 1024;
/** Pause between two updates of the progress line. */
const PROGRESS_MS = 100;

/** Draws progress on one line of a terminal; on anything else it prints nothing until the end. */
function progressLine(terminal: NodeJS.WriteStream): (progress: ImportProgress) => void {
  if (!terminal.isTTY) return () => undefined;
  const begin = performance.now();
  let next = 0;
  return ({ component, doneBytes, totalBytes }) => {
    const now = performance.now();
    if (now < next && doneBytes < totalBytes) return;
    next = now + PROGRESS_MS;
    const seconds = (now - begin) / 1000;
    const rate = doneBytes / seconds;
    const left = Math.ceil((totalBytes - doneBytes) / rate);
    const percent = ((100 * doneBytes) / totalBytes).toFixed(0).padStart(3);
    terminal.write(
      `\r\x1b[K${percent} %  ${component.padEnd(12)}  ${(rate / MIB).toFixed(0)} MiB/s  ${left} s left${doneBytes === totalBytes ? '\n' : ''}`,
    );
  };
}

/** One line a component: files and bytes. */
function summary(manifest: Manifest): string {
  const rows = Object.entries(manifest.components).map(([component, files]) => {
    const bytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
    return `${component.padEnd(14)}${(bytes / MIB).toFixed(1).padStart(10)} MiB  ${files.map((file) => file.path).join(' ')}`;
  });
  return rows.join('\n');
}

/** Imports a checkpoint from disk to disk and tells what was written. Throws `ZoetropeError`. */
export async function runImport(args: ImportArguments): Promise<Manifest> {
  const { from, to, quant, license, sizes } = args;
  const manifest = await importCheckpoint({
    folder: diskFolder(from),
    sink: diskSink(to),
    quantization: quant,
    name: args.name ?? basename(resolve(to)),
    ...(license === undefined ? {} : { license }),
    ...(sizes === undefined ? {} : { sizes: parseSizes(sizes) }),
    onProgress: progressLine(process.stderr),
  });
  console.log(`${to}: ${manifest.name}, ${manifest.variant}, ${manifest.quantization}\n${summary(manifest)}`);
  return manifest;
}

/** Ending of an ncnn graph, whose weights lie beside it by the same name. */
const NCNN_GRAPH = /\.param$/;

/**
 * Imports an interpolator, `flownet.param` with `flownet.bin` beside it, into the folder of the part `rife`, which the engine looks
 * for beside a model. Throws `ZoetropeError`.
 */
export async function runImportRife({ from, to, license, name, sizes }: ImportArguments): Promise<PartManifest> {
  if (name !== undefined || sizes !== undefined) {
    throw new ZoetropeError('bad-request', 'An interpolator has no --name and no --sizes of its own. Leave them out.');
  }
  const folder = diskFolder(dirname(from));
  const graph = basename(from);
  const manifest = await importRife({
    param: await folder.open(graph),
    bin: await folder.open(graph.replace(NCNN_GRAPH, '.bin')),
    sink: diskSink(to),
    ...(license === undefined ? {} : { license }),
  });
  const [file] = manifest.files;
  console.log(`${to}: ${manifest.name}, ${(file!.sizeBytes / MIB).toFixed(1)} MiB in ${file!.path}`);
  return manifest;
}

/** The `import` command for the command line's main program. Its action rejects with `ZoetropeError`. */
export function importCommand(): Command {
  return new Command('import')
    .description('Turn a published Wan checkpoint into a model folder')
    .requiredOption(
      '--from <folder>',
      'checkpoint in the diffusers layout (model_index.json), or flownet.param of the interpolator RIFE 4.6',
    )
    .requiredOption('--to <folder>', 'model folder to write')
    .addOption(new Option('--quant <form>', 'storage of the large matrices').choices(['q8', 'q4', 'f16']).default('q8'))
    .option('--name <name>', 'name for people (default: last part of --to)')
    .option('--license <spdx>', 'SPDX identifier of the weights’ licence (default: "unknown")')
    .option('--sizes <json>', 'pixel sizes of all nine labels, for models that are not Wan’s own')
    .action(async (options: ImportArguments) => {
      if (NCNN_GRAPH.test(options.from)) await runImportRife(options);
      else await runImport(options);
    });
}
