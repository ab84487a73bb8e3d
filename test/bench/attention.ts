import { type AttentionShape, attention, attentionLaunches } from '../../kernels/attention';
import { encodeF16 } from '../../src/floats';
import type { GpuTensor } from '../../src/gpu/memory';
import { Graph } from '../../src/onnx/graph';
import { distance, expectNear, seededFloats, type Tolerance } from '../harness/near';
import { attentionReference } from '../reference/attention';
import type { Bench, BenchContext, Row } from './registry';
import { alternate, type Variant } from './timing';

const HEADS = 2;
const DIM = 128;
const TOKENS = [256, 1024, 2048];

/** One dispatch for each run here, so that both sides do the same. */
const NO_BOUND = Infinity;

/** f32 inside, over up to 2048 keys. Both sides measured up to 4.8e-7 and 3.0e-7 (SwiftShader); four times that. */
const F32: Tolerance = { relativeL2: 2e-6, maxAbs: 2e-6 };
/**
 * Operands rounded to half floats, of which the reference knows nothing. A float64 model of that rounding is off by
 * 3.7e-4 and 2.6e-4 at these sizes; four times that.
 */
const F16: Tolerance = { relativeL2: 1.5e-3, maxAbs: 1e-3 };

/**
 * Self-attention of ours beside ONNX Runtime's MultiHeadAttention, which takes token-major tensors and copies them to
 * head-major ones first; ours are stored that way by the kernel before it. Every element is held to float64.
 *
 * SwiftShader, 2 busy cores, median ms of ONNX Runtime and of ours, and ratio: 256 tokens 123, 60, 1.97; 1024 tokens
 * 1924, 1091, 1.80; 2048 tokens 9153, 4956, 2.39.
 */
export const attentionBench: Bench = {
  name: 'attention',
  async run(context) {
    const rows: Row[] = [];
    for (const tokens of TOKENS) rows.push(...(await measure(context, tokens)));
    return rows;
  },
};

/** A variant with its output, the limit of its error, and the end of what it holds. */
interface Contestant extends Variant {
  out: GpuTensor;
  tolerance: Tolerance;
  /** A wrong result of somebody else's is worth a word, not a failure. */
  foreign: boolean;
  release(): Promise<void>;
}

async function measure(context: BenchContext, tokens: number): Promise<Row[]> {
  const { gpu } = context;
  const count = tokens * HEADS * DIM;
  const [q, k, v] = [seededFloats(1, count), seededFloats(2, count), seededFloats(3, count)];
  const shape: Omit<AttentionShape, 'type'> = {
    queries: tokens,
    keys: tokens,
    heads: HEADS,
    qHeads: HEADS,
    headOffset: 0,
    queryBegin: 0,
    queryCount: tokens,
    lastKeyBias: 0,
  };
  const contestants = [await ortAttention(context, tokens, q, k, v), ours(context, { ...shape, type: 'f32' }, q, k, v)];
  if (gpu.f16) contestants.push(ours(context, { ...shape, type: 'f16' }, q, k, v));
  try {
    const timings = await alternate(gpu, contestants);
    const expected = attentionReference(q, k, v, { ...shape, type: 'f32' });
    const rows: Row[] = [];
    for (const [i, { name, ...timing }] of timings.entries()) {
      const { out, tolerance, foreign } = contestants[i]!;
      const actual = await gpu.memory.readFloats(out);
      if (!foreign) expectNear(actual, expected, tolerance, `${name}, ${tokens} tokens`);
      const { relativeL2, maxAbs, outside } = distance(actual, expected, tolerance.maxAbs);
      rows.push({
        bench: 'attention',
        shape: `${tokens} tokens × ${HEADS} heads × ${DIM}`,
        variant: outside > 0 ? `${name} (wrong here)` : name,
        ...timing,
        gflops: (4 * tokens * tokens * HEADS * DIM) / timing.medianMs / 1e6,
        error: { relativeL2, maxAbs },
      });
    }
    return rows;
  } finally {
    for (const contestant of contestants) await contestant.release();
  }
}

function ours(
  { gpu }: BenchContext,
  shape: AttentionShape,
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
): Contestant {
  const { memory } = gpu;
  const upload = (label: string, values: Float32Array) =>
    shape.type === 'f16'
      ? memory.upload(label, 'float16', [values.length], encodeF16(values))
      : memory.upload(label, 'float32', [values.length], values);
  const tensors = { q: upload('q', q), k: upload('k', k), v: upload('v', v) };
  const out = memory.tensor('out', 'float32', [q.length]);
  return {
    name: `zoetrope ${shape.type}`,
    out,
    foreign: false,
    tolerance: shape.type === 'f16' ? F16 : F32,
    async run() {
      for (const launch of attentionLaunches(shape, NO_BOUND)) await attention.run(gpu, launch, { ...tensors, out });
    },
    async release() {
      for (const tensor of [...Object.values(tensors), out]) tensor[Symbol.dispose]();
    },
  };
}

async function ortAttention(
  { gpu, ort }: BenchContext,
  tokens: number,
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
): Promise<Contestant> {
  const graph = new Graph('MultiHeadAttention');
  const shape = [1, tokens, HEADS * DIM];
  const values = ['q', 'k', 'v'].map((name) => graph.input(name, 'float32', shape));
  const output = { dtype: 'float32' as const, shape };
  graph.output('out', graph.node('MultiHeadAttention', values, [output], { num_heads: HEADS }, 'com.microsoft')[0]!);
  const session = await ort.compile(graph);
  const upload = (label: string, values: Float32Array) =>
    gpu.memory.upload(label, 'float32', shape, tokenMajor(values, tokens));
  const tensors = { q: upload('q', q), k: upload('k', k), v: upload('v', v) };
  const out = gpu.memory.tensor('out', 'float32', shape);
  return {
    name: 'onnxruntime f32',
    out,
    foreign: true,
    tolerance: F32,
    run: () => session.run(tensors, { out }),
    async release() {
      await session.release();
      for (const tensor of [...Object.values(tensors), out]) tensor[Symbol.dispose]();
    },
  };
}

/** [heads, tokens, 128] to [tokens, heads * 128]. */
function tokenMajor(values: Float32Array, tokens: number): Float32Array {
  const turned = new Float32Array(values.length);
  for (let row = 0; row < HEADS * tokens; row++) {
    const to = (row % tokens) * HEADS + Math.floor(row / tokens);
    turned.set(values.subarray(row * DIM, (row + 1) * DIM), to * DIM);
  }
  return turned;
}
