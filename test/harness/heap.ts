import { resolve } from 'node:path';
import type { CDPSession, Page } from 'playwright-core';
import { build, type Rollup } from 'vite';
import type { ReadRequest } from './heap-reader';
import type { SyntheticModel } from './synthetic-model';

/**
 * Memory of a page and its workers while they work.
 *
 * What is summed over the page and all of its workers is `Runtime.getHeapUsage` of the DevTools protocol: the bytes
 * that V8 has taken for its heap (`totalSize`, garbage included), what Blink holds for scripts
 * (`embedderHeapUsedSize`), and the backing stores of all array buffers, wasm memories among them
 * (`backingStorageSize`). Unlike `performance.measureUserAgentSpecificMemory` it does not collect first, so that
 * garbage which piles up is seen. The size of the renderer's process says nothing here: its DevTools, which Playwright
 * turns on, keep up to 200 MiB of what the network has sent.
 */
export interface HeapUse {
  heapBytes: number;
  /** Part of it in array buffers. */
  bufferBytes: number;
}

interface UsageReply {
  totalSize: number;
  embedderHeapUsedSize?: number;
  backingStorageSize?: number;
}

export class HeapMeter {
  private readonly workers = new Map<string, (method: string) => Promise<UsageReply | undefined>>();
  private readonly replies = new Map<number, { sessionId: string; resolve(reply: UsageReply | undefined): void }>();
  private next = 1;

  private constructor(private readonly session: CDPSession) {}

  /** Attach before the page starts workers. */
  static async attach(page: Page): Promise<HeapMeter> {
    const session = await page.context().newCDPSession(page);
    const meter = new HeapMeter(session);
    session.on('Target.attachedToTarget', ({ sessionId }) => {
      meter.workers.set(sessionId, (method) => meter.ask(sessionId, method));
    });
    session.on('Target.detachedFromTarget', ({ sessionId }) => {
      meter.workers.delete(sessionId);
      for (const reply of meter.replies.values()) if (reply.sessionId === sessionId) reply.resolve(undefined);
    });
    session.on('Target.receivedMessageFromTarget', ({ message }) => {
      const { id, result } = JSON.parse(message) as { id: number; result: UsageReply };
      meter.replies.get(id)?.resolve(result);
      meter.replies.delete(id);
    });
    await session.send('Target.setAutoAttach', { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
    return meter;
  }

  private ask(sessionId: string, method: string): Promise<UsageReply | undefined> {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.replies.set(id, { sessionId, resolve });
      this.session
        .send('Target.sendMessageToTarget', { sessionId, message: JSON.stringify({ id, method }) })
        .catch(reject);
    });
  }

  /** Of now. Workers that end meanwhile count as nothing. */
  async use(): Promise<HeapUse> {
    const gone = new Promise<undefined>((resolve) => setTimeout(resolve, 5000));
    const asked = [...this.workers.values()].map((ask) =>
      Promise.race([ask('Runtime.getHeapUsage').catch(() => undefined), gone]),
    );
    const usages = [(await this.session.send('Runtime.getHeapUsage')) as UsageReply, ...(await Promise.all(asked))];
    let heapBytes = 0;
    let bufferBytes = 0;
    for (const usage of usages) {
      if (!usage) continue;
      if (usage.backingStorageSize === undefined)
        throw new Error('This browser does not tell the size of array buffers.');
      bufferBytes += usage.backingStorageSize;
      heapBytes += usage.totalSize + (usage.embedderHeapUsedSize ?? 0) + usage.backingStorageSize;
    }
    return { heapBytes, bufferBytes };
  }

  /** After collecting what is garbage. */
  async idle(): Promise<HeapUse> {
    await this.session.send('HeapProfiler.collectGarbage');
    return this.use();
  }

  /** Runs work and gives its result with the most that was seen meanwhile, twenty times a second. */
  async during<T>(work: () => Promise<T>): Promise<{ result: T; peak: HeapUse; samples: number }> {
    const peak: HeapUse = { heapBytes: 0, bufferBytes: 0 };
    let samples = 0;
    let over = false;
    const watching = (async () => {
      while (!over) {
        const use = await this.use();
        for (const key of ['heapBytes', 'bufferBytes'] as const) peak[key] = Math.max(peak[key], use[key]);
        samples++;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })();
    try {
      return { result: await work(), peak, samples };
    } finally {
      over = true;
      await watching;
    }
  }
}

/** The worker of `heap-reader.ts` as a script. */
export async function readerScript(): Promise<string> {
  const output = await build({
    configFile: false,
    logLevel: 'error',
    build: {
      write: false,
      target: 'esnext',
      minify: false,
      lib: { entry: resolve(import.meta.dirname, 'heap-reader.ts'), formats: ['es'], fileName: 'reader' },
    },
  });
  const [
    {
      output: [chunk],
    },
  ] = output as [Rollup.RollupOutput];
  return chunk.code;
}

/** What a model costs in memory, stage by stage. */
export interface HeapReport {
  sizeBytes: number;
  idle: HeapUse;
  stages: { name: string; seconds: number; samples: number; peak: HeapUse }[];
}

/**
 * Downloads a synthetic model in the library's page, verifies it, and streams its blocks twice from the store and once
 * from the server.
 */
export async function measureHeap(page: Page, model: SyntheticModel): Promise<HeapReport> {
  const meter = await HeapMeter.attach(page);
  const script = await readerScript();
  await page.evaluate(() => zoetrope.models.list()); // Starts the store's worker, which idles from then on.
  const idle = await meter.idle();
  const stages: HeapReport['stages'] = [];
  const stage = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const began = performance.now();
    const { result, peak, samples } = await meter.during(work);
    stages.push({ name, seconds: (performance.now() - began) / 1000, samples, peak });
    return result;
  };
  const read = (request: ReadRequest) =>
    page.evaluate(
      async ([code, wanted]) => {
        const url = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
        const worker = new Worker(url, { type: 'module' });
        const answer = await new Promise<{ writtenBytes?: number; error?: string }>((resolve) => {
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = ({ message }) => resolve({ error: message });
          worker.postMessage(wanted);
        });
        worker.terminate();
        if (answer.error !== undefined) throw new Error(answer.error);
        return answer.writtenBytes!;
      },
      [script, request] as const,
    );
  const id = await stage('downloading', () => page.evaluate((url) => zoetrope.models.download(url), model.url));
  const found = await stage('verifying', () => page.evaluate((stored) => zoetrope.models.verify(stored), id));
  if (!found.complete) throw new Error(`The stored model is not complete: ${JSON.stringify(found)}`);
  const written = [
    await stage('reading twice, stored', () => read({ from: { storedId: id }, rounds: 2 })),
    await stage('reading once, from the server', () => read({ from: { url: model.url }, rounds: 1 })),
  ];
  if (written.some((bytes) => bytes < model.sizeBytes / 2)) throw new Error(`Only ${written} bytes were uploaded.`);
  await page.evaluate((stored) => zoetrope.models.delete(stored), id);
  return { sizeBytes: model.sizeBytes, idle, stages };
}

/** A report as a table, MiB above idle. */
export function heapTable({ idle, stages }: HeapReport): string {
  const above = (key: keyof HeapUse, use: HeapUse) => ((use[key] - idle[key]) / 2 ** 20).toFixed(1);
  const rows = stages.map(
    ({ name, seconds, samples, peak }) =>
      `| ${name} | ${above('heapBytes', peak)} | ${above('bufferBytes', peak)} | ${seconds.toFixed(0)} | ${samples} |`,
  );
  return [
    '| stage | JS + wasm heap | of it array buffers | seconds | samples |',
    '|---|---|---|---|---|',
    ...rows,
  ].join('\n');
}
