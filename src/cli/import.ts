import { basename, resolve } from 'node:path';
import { Command, Option } from 'commander';
import { type ImportProgress, writeModel } from '../checkpoint/import';
import { openCheckpoint, openComponents } from '../checkpoint/open';
import { parseSizes } from '../checkpoint/variants';
import { ZoetropeError } from '../errors';
import { type ComponentImport, importComponents, parseComponents, removePartial } from '../import/components';
import type { ConvertPool } from '../import/threads';
import type { ComponentName, Manifest, ManifestFile, Quantization } from '../manifest';
import { convertPool, type ThreadSources } from './convert-pool';
import { diskTarget } from './files';
import { partSources, runImportPart } from './import-part';
import { clock } from './progress';
import { openSources, refuseOverwriting, type SourceArguments } from './sources';

/** What `zoetrope import` takes. */
export interface ImportArguments extends SourceArguments {
  /** Folder of the model to write. */
  to: string;
  quant: Quantization;
  /** Default: that of the model in the folder, where `components` are added to one; else the last part of `to`. */
  name?: string;
  license?: string;
  /** JSON, see `parseSizes`. */
  sizes?: string;
  /** Components to import; default: all of a model. */
  components?: ComponentName[];
}

const MIB = 1024 * 1024;
/** Pause between two updates of the progress line, and between two plain lines where there is no terminal. */
const DRAW_MS = 100;
const PLAIN_MS = 10_000;

/** Progress for a person: share, component, throughput of this run, and the time left. */
export function importProgressText(
  { component, doneBytes, totalBytes, resumedBytes }: ImportProgress,
  elapsedMs: number,
): string {
  const percent = `${Math.floor((100 * doneBytes) / totalBytes)}`.padStart(3);
  const rate = (doneBytes - resumedBytes) / elapsedMs;
  const pace = rate > 0 ? `  ${((rate * 1000) / MIB).toFixed(0)} MiB/s` : '';
  const left = rate > 0 ? `  ${clock((totalBytes - doneBytes) / rate)} left` : '';
  const resumed = resumedBytes > 0 ? `  (${(resumedBytes / MIB).toFixed(0)} MiB from before)` : '';
  return `${percent} %  ${component.padEnd(12)}${pace}${left}${resumed}`;
}

/** Draws progress on one line of a terminal; elsewhere it prints a line now and then. */
function progressLine(stream: NodeJS.WriteStream): (progress: ImportProgress) => void {
  const begin = performance.now();
  let next = begin + (stream.isTTY ? 0 : PLAIN_MS);
  return (progress) => {
    const now = performance.now();
    const last = progress.doneBytes === progress.totalBytes;
    if (now < next && !(last && stream.isTTY)) return;
    next = now + (stream.isTTY ? DRAW_MS : PLAIN_MS);
    const text = importProgressText(progress, now - begin);
    stream.write(stream.isTTY ? `\r\x1b[K${text}${last ? '\n' : ''}` : `${text}\n`);
  };
}

/** One line a component: files and bytes. */
export function modelSummary({ components }: { components: Record<string, ManifestFile[]> }): string {
  const rows = Object.entries(components).map(([component, files]) => {
    const bytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
    return `${component.padEnd(14)}${(bytes / MIB).toFixed(1).padStart(10)} MiB  ${files.map((file) => file.path).join(' ')}`;
  });
  return rows.join('\n');
}

/** An abort signal for the interrupt key; an import that it stops can be continued. */
function interrupt(): { signal: AbortSignal; release(): void } {
  const controller = new AbortController();
  const stop = () => controller.abort();
  process.once('SIGINT', stop);
  return { signal: controller.signal, release: () => process.removeListener('SIGINT', stop) };
}

/** Runs an import on the interrupt key's signal, with threads where the command is built. */
async function interruptible<T>(
  threads: ThreadSources,
  script: URL | undefined,
  work: (signal: AbortSignal, pool: () => ConvertPool | undefined) => Promise<T>,
): Promise<T> {
  const { signal, release } = interrupt();
  let pool: ConvertPool | undefined;
  try {
    return await work(signal, () => {
      pool = script && convertPool(script, threads);
      return pool;
    });
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new ZoetropeError('aborted', 'The import was stopped. The same command goes on where it stopped.', {
      cause: error,
    });
  } finally {
    release();
    await pool?.close();
  }
}

/** What both kinds of import of a model are told. */
function optionsOf({ quant, license, sizes }: ImportArguments) {
  return {
    quantization: quant,
    ...(license === undefined ? {} : { license }),
    ...(sizes === undefined ? {} : { sizes: parseSizes(sizes) }),
    onProgress: progressLine(process.stderr),
  };
}

/**
 * Imports a checkpoint into a folder on disk and tells what was written. An import into a folder that an earlier run of
 * the same import left unfinished goes on from there. Throws `ZoetropeError`.
 * @param script the built command, for the threads; absent: everything runs in this one.
 */
export async function runImport(args: ImportArguments, script?: URL): Promise<Manifest> {
  const { from, high, low, to } = args;
  const sources = { from, high, low };
  const options = optionsOf(args);
  const target = diskTarget(to);
  const manifest = await interruptible(sources, script, async (signal, start) => {
    const opened = await openSources(sources, signal);
    await refuseOverwriting(opened, to);
    const checkpoint = await openCheckpoint(opened, signal);
    const { convert, ahead } = start() ?? {};
    const name = args.name ?? basename(resolve(to));
    return writeModel({ ...options, name, sink: target, journal: target, convert, ahead, signal }, checkpoint);
  });
  await removePartial(target);
  console.log(`${to}: ${manifest.name}, ${manifest.variant}, ${manifest.quantization}\n${modelSummary(manifest)}`);
  return manifest;
}

/** Imports some components into a folder on disk and tells what it holds and lacks. Otherwise as {@link runImport}. */
export async function runImportComponents(
  wanted: readonly ComponentName[],
  args: ImportArguments,
  script?: URL,
): Promise<ComponentImport> {
  const { from, high, low, to } = args;
  const sources = { from, high, low };
  const options = optionsOf(args);
  const result = await interruptible({ ...sources, components: wanted }, script, async (signal, start) => {
    const found = await openSources(sources, signal);
    await refuseOverwriting(found, to);
    const opened = await openComponents(found, wanted, signal);
    const { convert, ahead } = start() ?? {};
    const names = { name: args.name, defaultName: basename(resolve(to)) };
    return importComponents(opened, { ...options, ...names, folder: diskTarget(to), wanted, convert, ahead, signal });
  });
  const { manifest, missing } = result;
  const head = manifest
    ? `${manifest.name}, ${manifest.variant}, ${manifest.quantization}`
    : `no model yet. Still missing: ${missing.join(', ')}. Import them into this folder with --components ${missing.join()}.`;
  console.log(`${to}: ${head}\n${modelSummary(result)}`);
  return result;
}

/**
 * The `import` command for the command line's main program. Its action rejects with `ZoetropeError`.
 * @param script as in {@link runImport}.
 */
export function importCommand(script?: URL): Command {
  return new Command('import')
    .description('Turn a published Wan checkpoint into a model folder; an interrupted import continues')
    .option(
      '--from <source...>',
      'files, folders or URLs that together hold the experts, text encoder, VAE and tokenizer (safetensors, GGUF, diffusers folder); or an interpolator: flownet.param of RIFE 4.6, rife_v4.25.safetensors, film_net_fp16.safetensors',
      [],
    )
    .option('--high <source>', 'the high-noise expert, where file names do not say which it is')
    .option('--low <source>', 'the low-noise expert')
    .requiredOption('--to <folder>', 'model folder to write')
    .addOption(new Option('--quant <form>', 'storage of the large matrices').choices(['q8', 'q4', 'f16']).default('q8'))
    .addOption(
      new Option('--components <names>', 'import only these, into a folder that has or will have the others').argParser(
        parseComponents,
      ),
    )
    .option('--name <name>', 'name for people (default: last part of --to; with --components the one the folder has)')
    .option('--license <spdx>', 'SPDX identifier of the weights’ licence (default: "unknown")')
    .option('--sizes <json>', 'pixel sizes of all nine labels, for models that are not Wan’s own')
    .action(async (options: ImportArguments) => {
      const part = await partSources(options);
      if (part) {
        if ('path' in part) await refuseOverwriting([part], options.to);
        await runImportPart(part, options);
      } else if (options.components) await runImportComponents(options.components, options, script);
      else await runImport(options, script);
    });
}
