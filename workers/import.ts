import { openCheckpoint } from '../src/checkpoint/open';
import { ZoetropeError } from '../src/errors';
import { inspectSources } from '../src/import/inspect';
import { forget, recall, remember, remembered } from '../src/import/memory';
import { importModel, importRecord, unfinishedImports } from '../src/import/model-import';
import { partIn } from '../src/import/part-files';
import { importPart, listParts } from '../src/import/part-import';
import type { Importer, ImportSettings, SourceSpec } from '../src/import/protocol';
import { openSpecs } from '../src/import/sources';
import { answerOrder, type ConvertPool, ConvertThread, type Order, poolOf, threadCount } from '../src/import/threads';
import { onStore, stopJob, stoppable } from './store-host';

/** Importing into the store, and what each of the threads does that convert for it. */

/** Name of a thread's scope: the script is the same. */
export const THREAD = 'zoetrope-convert';

/** What a thread is sent first; orders follow. */
interface Assignment {
  sources: SourceSpec[];
}

function isOrder(data: Assignment | Order): data is Order {
  return 'task' in data;
}

/** What a thread runs: it answers orders until it is ended. */
export function serveSlices(): void {
  let checkpoint: ReturnType<typeof openCheckpoint> | undefined;
  addEventListener('message', async ({ data }: MessageEvent<Assignment | Order>) => {
    if (!isOrder(data)) {
      checkpoint = openSpecs(data.sources).then((sources) => openCheckpoint(sources));
      checkpoint.catch(() => undefined); // Each order is answered with it.
      return;
    }
    const { answer, transfer } = await answerOrder(checkpoint!, data);
    postMessage(answer, { transfer: transfer as ArrayBuffer[] });
  });
}

/** Starts this script once more for each core. */
function convertPool(sources: SourceSpec[]): ConvertPool {
  const workers = Array.from(
    { length: threadCount(navigator.hardwareConcurrency) },
    () => new Worker(location.href, { type: 'module', name: THREAD }),
  );
  const threads = workers.map((worker) => {
    const thread = new ConvertThread((order) => worker.postMessage(order));
    worker.onmessage = ({ data }) => thread.receive(data);
    worker.onerror = ({ message }) => thread.fail(message || 'its script could not be loaded');
    worker.postMessage({ sources } satisfies Assignment);
    return thread;
  });
  return poolOf(threads, async () => {
    for (const worker of workers) worker.terminate();
  });
}

/** A name for people where none is given: that of the first source without its ending. */
function defaultName(path: string): string {
  const last = path.replace(/\/$/, '').replace(/^.*\//s, '');
  return last.replace(/\.(safetensors|gguf)$/i, '').slice(0, 200) || 'Imported model';
}

function nameOf(spec: SourceSpec): string {
  if (spec.kind === 'handle') return spec.handle.name;
  // Of a folder's files the folder; of an address what identifies it, without what grants access.
  return spec.kind === 'url' ? spec.url.replace(/[?#].*$/s, '') : spec.path.replace(/\/.*$/s, '');
}

export const importer: Importer = {
  inspect: async (specs) => inspectSources(await openSpecs(specs)),

  run: (specs, settings, job, report) =>
    stoppable(job, report, async (host, work) => {
      const sources = await openSpecs(specs, work.signal);
      const part = await partIn(sources);
      if (part) return importPart(host, part, settings.license, work);
      const names = [...new Set(specs.map(nameOf))];
      const whole: ImportSettings = {
        name: settings.name ?? defaultName(names[0]!),
        quantization: settings.quantization ?? 'q8',
        license: settings.license ?? 'unknown',
      };
      let begun: string | undefined;
      const id = await importModel(host, sources, {
        ...work,
        settings: whole,
        names,
        pool: () => convertPool(specs),
        onBegin: (import_) => {
          begun = import_;
          return remember(import_, specs);
        },
      });
      if (begun !== undefined) await forget([begun]);
      return id;
    }),

  unfinished: () =>
    onStore(async (host) => {
      const kept = await remembered();
      const imports = await unfinishedImports(host, kept);
      const there = new Set(imports.map(({ id }) => id));
      await forget([...kept].filter((id) => !there.has(id)));
      return imports;
    }),

  recall: (id) =>
    onStore(async (host) => {
      const [record, sources] = await Promise.all([importRecord(host, id), recall(id)]);
      if (!record || !sources) {
        const why =
          'The sources of this import are not known any more. Choose the same files again; it goes on from there.';
        throw new ZoetropeError('unreadable-source', why);
      }
      const { name, quantization, license } = record;
      return { sources, settings: { name, quantization, license } };
    }),

  parts: () => onStore(listParts),
  stop: stopJob,
};
