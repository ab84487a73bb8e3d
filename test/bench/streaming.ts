import { WAN_14B } from '../../src/checkpoint/released';
import { type DitConfig, ditShapes } from '../../src/config';
import { Activations } from '../../src/diffusion/activations';
import { DitSessions } from '../../src/diffusion/block-graphs';
import { passMac, predictVelocity } from '../../src/diffusion/dit';
import { encodeTextKeys } from '../../src/diffusion/text-keys';
import { Scope } from '../../src/gpu/memory';
import { type BlockWeights, residentBlocks, Weights } from '../../src/gpu/weights';
import type { TensorSource } from '../../src/manifest';
import { planDit } from '../../src/plan';
import { BlockStream } from '../../src/store/block-stream';
import { seededFloats } from '../harness/near';
import type { Bench, BenchContext, Row } from './registry';
import { alternate } from './timing';
import { randomSource } from './transformer';

/**
 * A pass with resident weights beside the same pass with weights streamed from memory, where computing takes longer
 * than uploading: what reads, uploads and waits add. A real disk adds nothing as long as it reads a block while one
 * computes.
 */

/** Six blocks of A14B, and of a network small enough for a CPU driver to be the slow kernel. */
const A14B: DitConfig = { ...WAN_14B, numLayers: 6 };
const SMALL: DitConfig = { ...A14B, dim: 256, ffnDim: 512, numHeads: 2, textDim: 64 };

/** Token grids: 832×480 with 17 frames, and 128 tokens. */
const GPU_GRID = [5, 30, 52] as const;
const CPU_GRID = [2, 8, 8] as const;

/** Every tensor made once: reads cost nothing then. */
async function inMemory(source: TensorSource): Promise<TensorSource> {
  const bytes = new Map<string, Uint8Array>();
  for (const name of source.entries.keys()) bytes.set(name, await source.read(name));
  return { entries: source.entries, read: async (name) => bytes.get(name)! };
}

/** Resident weights against two and three slots. */
export const streamingBench: Bench = {
  name: 'streaming',
  async run({ gpu, ort, cpuDriver }: BenchContext): Promise<Row[]> {
    const config = cpuDriver ? SMALL : A14B;
    const [frames, rows, columns] = cpuDriver ? CPU_GRID : GPU_GRID;
    const tokens = frames * rows * columns;
    const { maxBufferSize, maxStorageBufferBindingSize } = gpu.device.limits;
    const limits = { maxBufferSize, maxStorageBufferBindingSize, f16: gpu.f16, cpu: gpu.cpu };
    const grid = { latentFrames: frames, latentHeight: 2 * rows, latentWidth: 2 * columns };
    const plan = planDit(config, { tokens, ...grid }, limits);
    const source = await inMemory(randomSource(ditShapes(config), '', 8));
    const sessions = new DitSessions(config, ort);
    using scope = new Scope();
    try {
      const weights = scope.own(await Weights.upload(gpu, source));
      const resident = residentBlocks(weights, 'blocks.');
      const now = () => performance.now();
      const open = async (slots: number) =>
        scope.own(await BlockStream.open(gpu, source, { prefix: 'blocks.', count: config.numLayers, slots, now }));
      const streams = [await open(2), await open(3)];
      const activations = scope.own(new Activations(gpu, config, plan, 1));
      const text = { rows: 12, values: seededFloats(2, 12 * config.textDim) };
      const [keys] = await encodeTextKeys(gpu, sessions, resident, [text], plan);
      scope.own(keys!);
      const shape = [16, frames, 2 * rows, 2 * columns];
      const latents = scope.own(gpu.memory.upload('x', 'float32', shape, seededFloats(3, 64 * tokens)));
      const velocity = scope.own(gpu.memory.tensor('v', 'float32', shape));
      const host = { gpu, sessions, plan, activations };
      const pass = (expert: BlockWeights) => predictVelocity(host, expert, latents, 900, [keys!], [velocity]);
      const timings = await alternate(
        gpu,
        [
          { name: 'resident', run: () => pass(resident) },
          ...streams.map((stream, i) => ({ name: `streamed, ${i + 2} slots`, run: () => pass(stream) })),
        ],
        { rounds: cpuDriver ? 5 : 15, budgetMs: 60_000 },
      );
      return timings.map(({ name, ...timing }, i) => {
        const report = streams[i - 1]?.report();
        const passes = (report?.blocks ?? 0) / config.numLayers;
        const costs = report
          ? `: waited ${(report.stallMs / passes).toFixed(1)} ms, uploaded ${(report.uploadedBytes / passes / 1e6).toFixed(0)} MB a pass`
          : '';
        return {
          bench: 'streaming',
          shape: `${config.numLayers} blocks of width ${config.dim}, ${tokens} tokens`,
          variant: name + costs,
          ...timing,
          gflops: (2 * passMac(config, plan, [keys!.rows])) / timing.medianMs / 1e6,
        };
      });
    } finally {
      await sessions.release();
    }
  },
};
