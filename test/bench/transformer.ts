import { UMT5_XXL, WAN_14B } from '../../src/checkpoint/released';
import { type DitConfig, ditShapes, type Shapes, type Umt5Config, umt5Shapes } from '../../src/config';
import { Activations } from '../../src/diffusion/activations';
import { DitSessions } from '../../src/diffusion/block-graphs';
import { modulate, runBlock } from '../../src/diffusion/dit';
import { collapsedRows, textKeys } from '../../src/diffusion/text-keys';
import { Scope } from '../../src/gpu/memory';
import { residentBlocks, Weights } from '../../src/gpu/weights';
import { SCALES_SUFFIX, type TensorEntry, type TensorSource } from '../../src/manifest';
import { planDit } from '../../src/plan';
import { layerGraph } from '../../src/text/umt5';
import { seededFloats } from '../harness/near';
import type { Bench, BenchContext, Row } from './registry';
import { alternate, type Variant } from './timing';

/** A block of A14B and a layer of UMT5-XXL at their true widths, with 8-bit and 4-bit weights. */

const A14B: DitConfig = { ...WAN_14B, numLayers: 1 };
const XXL: Umt5Config = { ...UMT5_XXL, numLayers: 1 };

/** 832×480 and 81 frames where a GPU allows; four tokens on a CPU driver. */
const GPU_GRID = [21, 30, 52] as const;
const CPU_GRID = [1, 2, 2] as const;
/** Tokens of a long prompt, and the few that a CPU driver gets through. */
const GPU_TOKENS = 512;
const CPU_TOKENS = 4;
const TEXT_ROWS = 60;

/**
 * Random weights of the shapes below `prefix`: matrices in blocks with scales for deviations of about 1 /
 * sqrt(columns).
 */
export function randomSource(shapes: Shapes, prefix: string, bits: 4 | 8): TensorSource {
  const entries = new Map<string, TensorEntry>();
  for (const [name, shape] of shapes) {
    if (!name.startsWith(prefix)) continue;
    const [rows, columns] = shape as [number, number];
    const matrix = shape.length === 2 && !name.includes('relative');
    entries.set(name, matrix ? { dtype: 'U8', shape: [rows, columns / 32, bits * 4] } : { dtype: 'F32', shape });
    if (matrix) entries.set(name + SCALES_SUFFIX, { dtype: 'F32', shape: [rows, columns / 32] });
  }
  return {
    entries,
    async read(name) {
      const { dtype, shape } = entries.get(name)!;
      const count = shape.reduce((product, size) => product * size, 1);
      if (dtype === 'U8') return Uint8Array.from({ length: count }, (_, i) => Math.imul(i + 1, 0x9e3779b1) >>> 24);
      const scale = name.endsWith(SCALES_SUFFIX) ? 1 / (2 ** (bits - 1) * Math.sqrt(32 * shape[1]!)) : 0.1;
      const values = name.endsWith(SCALES_SUFFIX) ? new Float32Array(count).fill(scale) : seededFloats(1, count, scale);
      return new Uint8Array(values.buffer);
    },
  };
}

/** Linear layers, self-attention and cross-attention of a block. */
function blockFlop(tokens: number): number {
  const { dim, ffnDim } = A14B;
  return 2 * tokens * (6 * dim * dim + 2 * dim * ffnDim) + 4 * tokens * tokens * dim + 4 * tokens * TEXT_ROWS * dim;
}

function layerFlop(tokens: number): number {
  const { dModel, dFf, numHeads, dKv } = XXL;
  return 2 * tokens * (4 * dModel * numHeads * dKv + 3 * dModel * dFf) + 4 * tokens * tokens * numHeads * dKv;
}

interface Held extends Variant {
  release(): Promise<void>;
}

async function heldBlock({ gpu, ort, cpuDriver }: BenchContext, bits: 4 | 8): Promise<Held> {
  const [frames, rows, columns] = cpuDriver ? CPU_GRID : GPU_GRID;
  const { maxBufferSize, maxStorageBufferBindingSize } = gpu.device.limits;
  const limits = { maxBufferSize, maxStorageBufferBindingSize, f16: gpu.f16, cpu: gpu.cpu };
  const grid = { latentFrames: frames, latentHeight: 2 * rows, latentWidth: 2 * columns };
  const plan = planDit(A14B, { tokens: frames * rows * columns, ...grid }, limits);
  const sessions = new DitSessions(A14B, ort);
  const scope = new Scope();
  const weights = scope.own(await Weights.upload(gpu, randomSource(ditShapes(A14B), 'blocks.0.', bits)));
  const activations = scope.own(new Activations(gpu, A14B, plan, 1));
  const text = collapsedRows(TEXT_ROWS, A14B.textLen);
  const c = scope.own(gpu.memory.tensor('c', 'float32', [text.keys, A14B.dim]));
  gpu.memory.write(c, seededFloats(2, text.keys * A14B.dim));
  const expert = residentBlocks(weights, 'blocks.');
  const [keys] = await textKeys(gpu, sessions, expert, [{ ...text, c }], plan);
  scope.own(keys!);
  const block = await expert.block(0);
  const [branch] = activations.branches;
  const host = { gpu, sessions, plan, activations };
  return {
    name: `${bits}-bit weights, ${plan.type} attention`,
    async run() {
      for (const [i, chunk] of plan.chunks.entries()) {
        gpu.memory.write(branch!.x[i]!, seededFloats(3, chunk.tokens * A14B.dim));
      }
      await modulate(host, block);
      await runBlock(host, block, [branch!], [await keys!.block(0, block)]);
    },
    async release() {
      scope[Symbol.dispose]();
      await sessions.release();
    },
  };
}

async function heldLayer({ gpu, ort, cpuDriver }: BenchContext, bits: 4 | 8): Promise<Held> {
  const tokens = cpuDriver ? CPU_TOKENS : GPU_TOKENS;
  const prefix = 'encoder.block.0.';
  const scope = new Scope();
  const weights = scope.own(await Weights.upload(gpu, randomSource(umt5Shapes(XXL), prefix, bits)));
  const layer = weights.at(prefix);
  const graph = layerGraph(XXL, (name) => layer.storage(name), tokens);
  const session = await ort.compile(graph);
  const shape = [tokens, XXL.dModel];
  const x = scope.own(gpu.memory.upload('x', 'float32', shape, seededFloats(4, tokens * XXL.dModel)));
  const buckets = scope.own(gpu.memory.tensor('buckets', 'int32', [tokens, tokens]));
  const out = scope.own(gpu.memory.tensor('out', 'float32', shape));
  return {
    name: `${bits}-bit weights`,
    run: () => session.run(layer.feeds(graph.inputs, { x, buckets }), { out }),
    async release() {
      await session.release();
      scope[Symbol.dispose]();
    },
  };
}

async function measure(
  bench: string,
  shape: string,
  flop: number,
  context: BenchContext,
  held: Held[],
): Promise<Row[]> {
  try {
    const limits = { rounds: context.cpuDriver ? 3 : 15, budgetMs: 20_000 };
    const timings = await alternate(context.gpu, held, limits);
    return timings.map(({ name, ...timing }) => ({
      bench,
      shape,
      variant: name,
      ...timing,
      ratio: timings[0]!.medianMs / timing.medianMs,
      gflops: flop / timing.medianMs / 1e6,
    }));
  } finally {
    for (const one of held) await one.release();
  }
}

/** One block of A14B. */
export const blockBench: Bench = {
  name: 'block',
  async run(context) {
    const [frames, rows, columns] = context.cpuDriver ? CPU_GRID : GPU_GRID;
    const tokens = frames * rows * columns;
    const held = [await heldBlock(context, 8), await heldBlock(context, 4)];
    return measure('block', `A14B block, ${tokens} tokens`, blockFlop(tokens), context, held);
  },
};

/** One layer of UMT5-XXL. */
export const umt5Bench: Bench = {
  name: 'umt5',
  async run(context) {
    const tokens = context.cpuDriver ? CPU_TOKENS : GPU_TOKENS;
    const held = [await heldLayer(context, 8), await heldLayer(context, 4)];
    return measure('umt5', `UMT5-XXL layer, ${tokens} tokens`, layerFlop(tokens), context, held);
  },
};
