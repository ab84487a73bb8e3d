import { availableParallelism } from 'node:os';
import { type MessagePort, parentPort, type TransferListItem, Worker, workerData } from 'node:worker_threads';
import { openCheckpoint, openComponents } from '../checkpoint/open';
import { messageOf } from '../errors';
import { answerOrder, type ConvertPool, ConvertThread, type Order, poolOf, threadCount } from '../import/threads';
import type { ComponentName } from '../manifest';
import { openSources, type SourceArguments } from './sources';

/** The import's threads in Node. */

/** What a thread is told. */
export interface ThreadSources extends SourceArguments {
  /** Components to open; absent: a whole checkpoint. */
  components?: readonly ComponentName[] | undefined;
}

/** What a thread runs: it answers orders until it is ended. */
export function serveSlices(): void {
  const port = parentPort as MessagePort;
  const { components, ...given } = workerData as ThreadSources;
  const checkpoint = openSources(given).then((sources) =>
    components ? openComponents(sources, components) : openCheckpoint(sources),
  );
  checkpoint.catch(() => undefined); // Each order is answered with it.
  port.on('message', async (order: Order) => {
    const { answer, transfer } = await answerOrder(checkpoint, order);
    port.postMessage(answer, transfer as TransferListItem[]);
  });
}

/**
 * Starts threads.
 * @param script module that exports {@link serveSlices}: the built command.
 * @param count default: as many as there are cores, within {@link threadCount}.
 */
export function convertPool(
  script: URL,
  sources: ThreadSources,
  count = threadCount(availableParallelism()),
): ConvertPool {
  const code = `import(${JSON.stringify(script.href)}).then((script) => script.serveSlices())`;
  const workers = Array.from({ length: count }, () => new Worker(code, { eval: true, workerData: sources }));
  const threads = workers.map((worker) => {
    const thread = new ConvertThread((order) => worker.postMessage(order));
    worker.on('message', (answer) => thread.receive(answer));
    worker.on('error', (error) => thread.fail(messageOf(error)));
    worker.on('exit', (code) => thread.fail(`it exited with ${code}`));
    return thread;
  });
  return poolOf(threads, async () => {
    await Promise.all(workers.map((worker) => worker.terminate()));
  });
}
