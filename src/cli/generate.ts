import { createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { basename, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { Command } from 'commander';
import { ZoetropeError } from '../errors';
import type { Generation } from '../index';
import type { Progress } from '../protocol';
import type { Request } from '../request';
import { addRequestFlags, requestFromFlags } from './flags';
import { type Failed, type PageScope, runInPage } from './page-job';
import { progressView } from './progress';

/** `zoetrope generate`: the built page in a browser without a window, driven from here. */

/** What `zoetrope generate` takes beside the request. */
export interface GenerateArguments {
  /** MP4 file to write. */
  out: string;
  /** File for the raw frames: RGB, 8 bits, row-major, one after the other. */
  frames?: string;
  /** Model folder or URL of one. Default: the demo model of this package. */
  model?: string;
  /** Ends the job with `aborted`. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

/** The endpoint's answer with a path for a URL; `--json` prints it. */
export type Answer = Pick<Generation, 'prompt' | 'seed' | 'timings' | 'request' | 'codec'> & {
  video: { url: string; content_type: string; file_name: string; file_size: number };
};

type PageAnswer = { answer: Omit<Answer, 'video'> & { video: Omit<Answer['video'], 'url'> } };

/** Makes a video and writes it. Throws `ZoetropeError`; files that were begun are removed. */
export async function runGenerate(request: Request, args: GenerateArguments): Promise<Answer> {
  const uploads = new Map<string, string>([[crypto.randomUUID(), resolve(args.out)]]);
  if (args.frames !== undefined) uploads.set(crypto.randomUUID(), resolve(args.frames));
  const [videoUpload, framesUpload] = uploads.keys();
  try {
    const { answer } = await runInPage({
      script: generateInPage,
      job: (model): Job => ({
        request,
        model,
        video: `/upload/${videoUpload}`,
        frames: framesUpload === undefined ? null : `/upload/${framesUpload}`,
      }),
      model: args.model,
      receive: (name, body) => receive(uploads, name, body),
      onProgress: args.onProgress,
      signal: args.signal,
    });
    const url = resolve(args.out);
    return { ...answer, video: { ...answer.video, url, file_name: basename(url) } };
  } finally {
    for (const path of uploads.values()) await rm(partOf(path), { force: true });
  }
}

const partOf = (path: string) => `${path}.part`;

/** Writes an upload beside its goal and renames, so that a file by its own name is whole. */
async function receive(uploads: ReadonlyMap<string, string>, name: string, body: IncomingMessage): Promise<void> {
  const path = uploads.get(name);
  if (path === undefined) throw new ZoetropeError('unreadable-source', 'There is no such upload.');
  await pipeline(body, createWriteStream(partOf(path)));
  await rename(partOf(path), path);
}

interface Job {
  request: Request;
  model: string;
  /** Paths to PUT the results to. */
  video: string;
  frames: string | null;
}

/** Runs inside the page, so it uses nothing of this module. */
async function generateInPage({
  request,
  model,
  video: videoPath,
  frames: framesPath,
}: Job): Promise<PageAnswer | Failed> {
  const scope = globalThis as unknown as PageScope;
  const put = async (path: string, body: Blob | ArrayBuffer) => {
    const response = await fetch(path, { method: 'PUT', body });
    if (!response.ok) throw new Error(`the file could not be written: ${await response.text()}`);
  };
  try {
    if (!scope.zoetrope) throw new Error('the page has no globalThis.zoetrope; build it again');
    const zoetrope = await scope.zoetrope.load({ model });
    const made = await zoetrope.generate(request, {
      onProgress: (progress) => scope.reportProgress(progress),
      rgb24: framesPath !== null,
    });
    await put(videoPath, made.video.blob);
    if (framesPath !== null && made.frames) await put(framesPath, made.frames.rgb24);
    const { content_type, file_name, file_size } = made.video;
    const { prompt, seed, timings, request: used, codec } = made;
    return { answer: { video: { content_type, file_name, file_size }, prompt, seed, timings, request: used, codec } };
  } catch (error) {
    const { code, message, detail } = error as ZoetropeError;
    return { error: { code: code ?? 'internal', message: message ?? String(error), detail: detail ?? [] } };
  }
}

/** Flags of {@link generateCommand} that are not fields of the request. */
interface GenerateFlags {
  output: string;
  model?: string;
  frames?: string;
  json?: boolean;
}

/** The `generate` command. Its action rejects with `ZoetropeError`. */
export function generateCommand(): Command {
  const command = new Command('generate')
    .description('Make a video from a prompt in a browser without a window')
    .option('-o, --output <file>', 'MP4 file to write', 'zoetrope.mp4')
    .option('--model <folder or URL>', 'model to use; default: the demo model of this package')
    .option('--frames <file>', 'also write the raw frames: RGB, 8 bits, one after the other')
    .option('--json', 'print the answer, or the error, as JSON on standard output')
    .allowUnknownOption()
    .allowExcessArguments();
  return addRequestFlags(command).action(async (options: GenerateFlags & Record<string, unknown>) => {
    const request = requestFromFlags(options, command.args);
    const interrupted = new AbortController();
    const interrupt = () => interrupted.abort();
    process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
    const view = progressView(process.stderr, options.json === true);
    try {
      const answer = await runGenerate(request, {
        out: options.output,
        ...(options.frames !== undefined && { frames: options.frames }),
        ...(options.model !== undefined && { model: options.model }),
        signal: interrupted.signal,
        onProgress: view.show,
      });
      view.end();
      const { video, seed, timings } = answer;
      const summary = `${options.output}: ${video.file_size} bytes, seed ${seed}, ${(timings.totalMs / 1000).toFixed(1)} s`;
      console.log(options.json ? JSON.stringify(answer, null, 2) : summary);
    } finally {
      view.end();
      process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
    }
  });
}
