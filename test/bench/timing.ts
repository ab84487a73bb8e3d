import type { Gpu } from '../../src/gpu/device';

/** A way to do the work. `run` submits it and need not wait for the GPU. */
export interface Variant {
  readonly name: string;
  run(): Promise<void>;
}

/** Milliseconds of a variant's runs. */
export interface Timing {
  /** Name of the variant. */
  readonly name: string;
  readonly medianMs: number;
  readonly minMs: number;
  readonly maxMs: number;
  readonly rounds: number;
  /** Median over the rounds of the first variant's time divided by this one's: a load that comes and goes cancels. */
  readonly ratio: number;
}

/** Runs of each variant before any counts: the first compiles pipelines. */
const WARM_UPS = 1;

/**
 * Times variants in turn, round by round, so that whatever else the machine does meets all of them alike. Each round
 * starts with another variant.
 * @param limits.rounds most rounds.
 * @param limits.budgetMs no round starts after this; three are run in any case.
 */
export async function alternate(
  gpu: Gpu,
  variants: readonly Variant[],
  limits: { rounds: number; budgetMs: number } = { rounds: 15, budgetMs: 30_000 },
): Promise<Timing[]> {
  const times = variants.map(() => [] as number[]);
  for (let i = 0; i < WARM_UPS; i++) for (const variant of variants) await time(gpu, variant);
  const start = performance.now();
  for (let round = 0; round < limits.rounds; round++) {
    if (round >= 3 && performance.now() - start > limits.budgetMs) break;
    for (let i = 0; i < variants.length; i++) {
      const turn = (round + i) % variants.length;
      times[turn]!.push(await time(gpu, variants[turn]!));
    }
  }
  gpu.check();
  return times.map((own, i) => ({
    name: variants[i]!.name,
    medianMs: median(own),
    minMs: Math.min(...own),
    maxMs: Math.max(...own),
    rounds: own.length,
    ratio: median(own.map((ms, round) => times[0]![round]! / ms)),
  }));
}

/** Which clock {@link alternate} reads. */
export function clockName(gpu: Gpu): string {
  return gpu.timestamps ? 'GPU timestamps' : 'wall clock until the queue is empty';
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}

/** Milliseconds that a run occupies the GPU's queue. */
async function time(gpu: Gpu, variant: Variant): Promise<number> {
  await gpu.device.queue.onSubmittedWorkDone();
  if (gpu.timestamps) return timeOnGpu(gpu.device, variant);
  const start = performance.now();
  await variant.run();
  await gpu.device.queue.onSubmittedWorkDone();
  return performance.now() - start;
}

/**
 * Two passes without work bracket the run on the queue, since neither ONNX Runtime's passes nor a kernel's take
 * timestamps of ours.
 */
async function timeOnGpu(device: GPUDevice, variant: Variant): Promise<number> {
  const querySet = device.createQuerySet({ type: 'timestamp', count: 2 });
  const resolved = device.createBuffer({ size: 16, usage: 0x200 | 0x04 }); // QUERY_RESOLVE | COPY_SRC
  const read = device.createBuffer({ size: 16, usage: 0x01 | 0x08 }); // MAP_READ | COPY_DST
  try {
    const stamp = (index: number) => {
      const encoder = device.createCommandEncoder({ label: 'timestamp' });
      encoder.beginComputePass({ timestampWrites: { querySet, endOfPassWriteIndex: index } }).end();
      device.queue.submit([encoder.finish()]);
    };
    stamp(0);
    await variant.run();
    stamp(1);
    const encoder = device.createCommandEncoder({ label: 'timestamps' });
    encoder.resolveQuerySet(querySet, 0, 2, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, read, 0, 16);
    device.queue.submit([encoder.finish()]);
    await read.mapAsync(0x01); // MAP_READ
    const [begin, end] = new BigUint64Array(read.getMappedRange().slice(0));
    return Number(end! - begin!) / 1e6;
  } finally {
    querySet.destroy();
    resolved.destroy();
    read.destroy();
  }
}
