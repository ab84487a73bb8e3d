import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { Command } from 'commander';
import { messageOf, ZoetropeError } from '../errors';
import { type Acceleration, MANIFEST_FILE, type Manifest, manifestText } from '../manifest';
import type { Progress } from '../protocol';
import type { Request } from '../request';
import { parseManifest } from '../store/manifest-reader';
import { addRequestFlags, requestFromFlags } from './flags';
import { type Failed, locateModel, type PageScope, runInPage } from './page-job';
import { progressView } from './progress';

/** `zoetrope calibrate`: measures what `acceleration: "regular"` goes by, and writes it into a model's manifest. */

/**
 * What the run is made with unless flags say otherwise, beside the manifest's recommended settings: as many steps as
 * the endpoint allows, so that the levels lie close, at a size that does not take all day, since the ratios hardly
 * depend on it.
 */
const DEFAULTS = { prompt: 'a red circle moving right', num_inference_steps: 40, resolution: '480p' } as const;

/** What `zoetrope calibrate` takes beside the request. */
export interface CalibrateArguments {
  /** Model folder, or URL of one. */
  model: string;
  /** Manifest to write. Default: the one in the model's folder; a model at a URL has no default. */
  out?: string | undefined;
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

/**
 * Runs the request's steps once and writes the manifest with the measured ratios, whole or not at all. The model's
 * other files stay as they are, and so do their hashes. Throws `ZoetropeError`.
 * @returns the file that was written, and what it now holds.
 */
export async function runCalibrate(
  request: Partial<Request>,
  { model, out, signal, onProgress }: CalibrateArguments,
): Promise<{ path: string; acceleration: Acceleration }> {
  const { folder, url } = locateModel(model);
  const path = resolve(out ?? join(folder ?? '', MANIFEST_FILE));
  if (!folder && out === undefined) {
    throw new ZoetropeError(
      'bad-request',
      `The manifest at ${url} cannot be written from here. Say where the changed one goes: --output <file>`,
    );
  }
  const before = folder ? await readFile(join(folder, MANIFEST_FILE)) : await download(new URL(MANIFEST_FILE, url));
  const manifest = parseManifest(before);
  const { acceleration } = await runInPage({
    script: calibrateInPage,
    job: (at): Job => ({ request: { ...manifest.recommended, ...DEFAULTS, ...request }, model: at }),
    model,
    signal,
    onProgress,
  });
  await replaceFile(path, withAcceleration(manifest, acceleration));
  return { path, acceleration };
}

/** The manifest's text with other ratios, in the place where the importer writes them. */
export function withAcceleration(manifest: Manifest, acceleration: Acceleration): string {
  const { components, acceleration: _, ...rest } = manifest;
  const text = manifestText({ ...rest, acceleration, components });
  parseManifest(new TextEncoder().encode(text)); // what cannot be read back is not written
  return text;
}

async function download(url: URL): Promise<Uint8Array> {
  try {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`status ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    throw new ZoetropeError('unreadable-source', `${url} cannot be read: ${messageOf(error)}.`, { cause: error });
  }
}

/** Writes beside the file and renames, so that a file by its own name is whole. */
async function replaceFile(path: string, text: string): Promise<void> {
  const part = `${path}.part`;
  try {
    await writeFile(part, text);
    await rename(part, path);
  } catch (error) {
    await rm(part, { force: true });
    throw new ZoetropeError('unreadable-source', `${path} cannot be written: ${messageOf(error)}.`, { cause: error });
  }
}

interface Job {
  request: Request;
  model: string;
}

/** Runs inside the page, so it uses nothing of this module. */
async function calibrateInPage({ request, model }: Job): Promise<{ acceleration: Acceleration } | Failed> {
  const scope = globalThis as unknown as PageScope;
  try {
    if (!scope.zoetrope) throw new Error('the page has no globalThis.zoetrope; build it again');
    const zoetrope = await scope.zoetrope.load({ model });
    const onProgress = (progress: Progress) => scope.reportProgress(progress);
    return { acceleration: await zoetrope.calibrate(request, { onProgress }) };
  } catch (error) {
    const { code, message, detail } = error as ZoetropeError;
    return { error: { code: code ?? 'internal', message: message ?? String(error), detail: detail ?? [] } };
  }
}

/** The `calibrate` command. Its action rejects with `ZoetropeError`. */
export function calibrateCommand(): Command {
  const command = new Command('calibrate')
    .description('Measure which steps acceleration "regular" may leave out, and write it into a model’s zoetrope.json')
    .argument('<model>', 'model folder, or URL of one')
    .option('-o, --output <file>', 'manifest to write (default: the model’s own)');
  return addRequestFlags(command).action(
    async (model: string, options: { output?: string } & Record<string, unknown>) => {
      const request = requestFromFlags({ prompt: DEFAULTS.prompt, ...options }, []);
      const interrupted = new AbortController();
      const interrupt = () => interrupted.abort();
      process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
      const view = progressView(process.stderr, false);
      try {
        const { path, acceleration } = await runCalibrate(request, {
          model,
          out: options.output,
          signal: interrupted.signal,
          onProgress: view.show,
        });
        view.end();
        const steps = acceleration.high.sigmas.length + (acceleration.low?.sigmas.length ?? 0);
        console.log(`${path}: ratios of ${steps} steps, threshold ${acceleration.threshold}`);
      } finally {
        view.end();
        process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
      }
    },
  );
}
