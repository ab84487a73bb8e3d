import { attention } from '../kernels/attention';
import { causalConv, causalConvLaunches } from '../kernels/causal-conv';
import type { Gpu } from './gpu/device';
import { type GpuTensor, type GpuType, Scope } from './gpu/memory';
import type { Ort } from './gpu/ort';
import { Graph } from './onnx/graph';
import { linear } from './onnx/ops';
import { linearInputs } from './onnx/weight-inputs';
import type { Pace } from './plan/pace';

/** Milliseconds for each of the four rates at most, but for a round that cannot be cut; together less than a second. */
const SHARE_MS = 180;
/** A measurement that took so long is taken as it is: shorter ones are mostly the way to the GPU and back. */
const ENOUGH_MS = 60;

/** Sizes of the probe: large enough to fill a GPU, or small enough for a CPU driver. */
interface ProbeSize {
  /** Rows, columns and inner length of the matrix product. */
  tokens: number;
  width: number;
  queries: number;
  keys: number;
  heads: number;
  /** Side and channels of the convolved picture. */
  side: number;
  channels: number;
  uploadBytes: number;
}

const GPU_SIZE: ProbeSize = {
  tokens: 512,
  width: 2048,
  queries: 512,
  keys: 4096,
  heads: 8,
  side: 128,
  channels: 96,
  uploadBytes: 16 * 2 ** 20,
};
const CPU_SIZE: ProbeSize = {
  tokens: 32,
  width: 512,
  queries: 32,
  keys: 512,
  heads: 2,
  side: 16,
  channels: 32,
  uploadBytes: 2 ** 20,
};

/**
 * Measures a device for about a second: matrix products of 4-bit weights as the transformer's graphs do them,
 * attention, the decoder's convolution, and writing weights. Shaders are compiled on top, which the first job then need
 * not do. Leaves nothing behind. Throws `device-lost` and what a broken device throws.
 * @param now milliseconds, any origin.
 */
export async function measurePace(gpu: Gpu, ort: Ort, now: () => number): Promise<Pace> {
  const size = gpu.cpu ? CPU_SIZE : GPU_SIZE;
  const rate = async (unit: Unit) => {
    using scope = new Scope();
    const run = await unit(gpu, ort, size, scope);
    try {
      return await measure(run.once, run.amount, gpu, now);
    } finally {
      await run.end?.();
    }
  };
  return {
    products: await rate(matrixProduct),
    attention: await rate(attentionDispatch),
    convolutions: await rate(convolution),
    upload: await rate(upload),
  };
}

/** Something that is repeated: its amount of work, and its end. */
interface Repeated {
  amount: number;
  once(): Promise<void>;
  end?(): Promise<void>;
}

type Unit = (gpu: Gpu, ort: Ort, size: ProbeSize, scope: Scope) => Promise<Repeated>;

/**
 * Work done in a second: ever more repetitions in the queue, until they take long enough to be told from the way there.
 */
async function measure(once: () => Promise<void>, amount: number, gpu: Gpu, now: () => number): Promise<number> {
  const { queue } = gpu.device;
  await once(); // compiles
  await queue.onSubmittedWorkDone();
  const began = now();
  for (let repetitions = 1; ; repetitions *= 2) {
    const start = now();
    for (let i = 0; i < repetitions; i++) await once();
    await queue.onSubmittedWorkDone();
    const end = now();
    const ms = Math.max(end - start, 1e-3);
    // The next round would take twice as long.
    if (ms >= ENOUGH_MS || end - began + 2 * ms > SHARE_MS) {
      gpu.check();
      return (amount * repetitions * 1000) / ms;
    }
  }
}

function make(gpu: Gpu, scope: Scope, label: string, type: GpuType, shape: readonly number[]): GpuTensor {
  return scope.own(gpu.memory.tensor(`probe ${label}`, type, shape));
}

const matrixProduct: Unit = async (gpu, ort, { tokens, width }, scope) => {
  const graph = new Graph('probe');
  const x = graph.input('x', 'float32', [tokens, width]);
  const storage = { rows: width, columns: width, bits: 4, zeroPoints: false } as const;
  graph.output('y', linear(x, linearInputs(graph, 'probe', storage, false)));
  const session = await ort.compile(graph);
  const feeds: Record<string, GpuTensor> = {};
  for (const [name, { dtype, shape }] of graph.inputs) {
    feeds[name] = make(gpu, scope, name, dtype as GpuType, shape);
  }
  const y = make(gpu, scope, 'y', 'float32', [tokens, width]);
  return {
    amount: 2 * tokens * width * width,
    once: () => session.run(feeds, { y }),
    end: () => session.release(),
  };
};

const attentionDispatch: Unit = async (gpu, _ort, { queries, keys, heads }, scope) => {
  const type = gpu.f16 ? 'f16' : 'f32';
  const operand = (label: string, rows: number) =>
    make(gpu, scope, label, gpu.f16 ? 'float16' : 'float32', [heads, rows, 128]);
  const tensors = {
    q: operand('q', queries),
    k: operand('k', keys),
    v: operand('v', keys),
    out: make(gpu, scope, 'out', 'float32', [queries, heads * 128]),
  };
  const range = { queryBegin: 0, queryCount: queries, headOffset: 0, lastKeyBias: 0 };
  const shape = { type, queries, keys, heads, qHeads: heads, ...range } as const;
  return { amount: 4 * queries * keys * heads * 128, once: () => attention.run(gpu, shape, tensors) };
};

const convolution: Unit = async (gpu, _ort, { side, channels }, scope) => {
  const picture = { from: [side, side], to: [side, side], into: channels, out: channels } as const;
  const [launch] = causalConvLaunches({ type: 'f32', frames: 1, taps: 1, kernel: 3, ...picture }, 1e15);
  const bordered = [1, side + 2, side + 2, channels];
  const tensors = {
    x: make(gpu, scope, 'x', 'float32', bordered),
    weight: make(gpu, scope, 'weight', 'float32', [9 * channels * channels]),
    bias: make(gpu, scope, 'bias', 'float32', [channels]),
    y: make(gpu, scope, 'y', 'float32', bordered),
  };
  return { amount: 18 * side * side * channels * channels, once: () => causalConv.run(gpu, launch!, tensors) };
};

const upload: Unit = async (gpu, _ort, { uploadBytes }, scope) => {
  const target = make(gpu, scope, 'weights', 'uint8', [uploadBytes]);
  const bytes = new Uint8Array(uploadBytes);
  return { amount: uploadBytes, once: async () => gpu.memory.write(target, bytes) };
};
