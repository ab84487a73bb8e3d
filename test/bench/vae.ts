import { type CausalConv, causalConv, causalConvLaunches } from '../../kernels/causal-conv';
import { decodeF16, encodeF16 } from '../../src/floats';
import type { GpuTensor } from '../../src/gpu/memory';
import { Graph } from '../../src/onnx/graph';
import { conv2d } from '../../src/onnx/ops';
import { packConv } from '../../src/vae/decoder';
import { distance, expectNear, seededFloats, seededUniform, type Tolerance } from '../harness/near';
import type { Bench, BenchContext, Row } from './registry';
import { alternate, type Variant } from './timing';

/** A level of the decoder: its channels, the pixels of a side, and the frames that one latent frame becomes there. */
interface Level {
  channels: number;
  side: number;
  frames: number;
}

/** The demo's levels at 64 × 64 pixels, by width. */
const DEMO_LEVELS: readonly Level[] = [
  { channels: 64, side: 16, frames: 2 },
  { channels: 32, side: 32, frames: 4 },
  { channels: 16, side: 64, frames: 4 },
];
/** Levels of Wan's VAE at 256 × 256 pixels. */
const WAN_LEVELS: readonly Level[] = [
  { channels: 384, side: 64, frames: 2 },
  { channels: 192, side: 128, frames: 4 },
  { channels: 96, side: 256, frames: 4 },
];

/** Values that are computed in float64 too. */
const SAMPLES = 2000;

/**
 * f32 sums of up to 1,728 products at the demo's levels: ONNX Runtime measures up to 5e-7 and 6.1e-6, ours 1.6e-7 and
 * 1.7e-6; four times the larger.
 */
const F32: Tolerance = { relativeL2: 2e-6, maxAbs: 2.5e-5 };
/**
 * Operands and results rounded to half floats, which the reference does not know. Lavapipe: 3e-4 and 1.8e-3; four times
 * that.
 */
const F16: Tolerance = { relativeL2: 1.2e-3, maxAbs: 8e-3 };

/**
 * A causal convolution of the decoder, 3 × 3 pixels of three frames, beside ONNX Runtime's Conv of 3 × 3 pixels over
 * three times the channels, into which somebody would have to put the frames first; ours takes them as they lie.
 */
export const vaeBench: Bench = {
  name: 'vae',
  async run(context) {
    const rows: Row[] = [];
    for (const level of context.cpuDriver ? DEMO_LEVELS : [...DEMO_LEVELS, ...WAN_LEVELS]) {
      rows.push(...(await measure(context, level)));
    }
    return rows;
  },
};

/** A variant with its result, the limit of its error, and the end of what it holds. */
interface Contestant extends Variant {
  tolerance: Tolerance;
  /** Value of the result at a channel and pixel. */
  read(): Promise<(frame: number, channel: number, row: number, column: number) => number>;
  release(): Promise<void>;
}

/** Inputs of a level. */
interface Inputs {
  conv: Omit<CausalConv, 'type'>;
  /** [frames + 2, side + 2, side + 2, channels] with a border of zeros. */
  x: Float32Array;
  /** torch's [channels, channels, 3, 3, 3]. */
  weight: Float32Array;
  bias: Float32Array;
}

async function measure(context: BenchContext, { channels, side, frames }: Level): Promise<Row[]> {
  const { gpu } = context;
  const size = [side, side] as const;
  const conv = { frames, from: size, into: channels, to: size, out: channels, taps: 3, kernel: 3 } as const;
  const width = side + 2;
  const x = seededFloats(1, (frames + 2) * width * width * channels).map((value, i) => {
    const [row, column] = [Math.floor(i / channels / width) % width, Math.floor(i / channels) % width];
    return row % (side + 1) === 0 || column % (side + 1) === 0 ? 0 : value;
  });
  // Deviation 1 / sqrt(inputs), so that results have deviation 1.
  const weight = seededFloats(2, 27 * channels * channels, 1 / Math.sqrt(27 * channels));
  const inputs = { conv, x, weight, bias: seededFloats(3, channels) };
  const contestants = [await ortConv(context, inputs), ours(context, inputs, 'f32')];
  if (gpu.f16) contestants.push(ours(context, inputs, 'f16'));
  try {
    const timings = await alternate(gpu, contestants);
    const expected = sampled(inputs);
    const rows: Row[] = [];
    for (const [i, { name, ...timing }] of timings.entries()) {
      const { tolerance, read } = contestants[i]!;
      const value = await read();
      const actual = expected.places.map((place) => value(...place));
      expectNear(actual, expected.values, tolerance, `${name}, ${channels} channels`);
      const { relativeL2, maxAbs } = distance(actual, expected.values, tolerance.maxAbs);
      rows.push({
        bench: 'vae',
        shape: `${channels} channels × ${side} × ${side} × ${frames} frames`,
        variant: name,
        ...timing,
        ratio: timings[0]!.medianMs / timing.medianMs,
        gflops: (2 * 27 * channels * channels * side * side * frames) / timing.medianMs / 1e6,
        error: { relativeL2, maxAbs },
      });
    }
    return rows;
  } finally {
    for (const contestant of contestants) await contestant.release();
  }
}

type Place = [frame: number, channel: number, row: number, column: number];

/** Results at random places in float64. */
function sampled({ conv, x, weight, bias }: Inputs): { places: Place[]; values: number[] } {
  const { frames, into, out } = conv;
  const side = conv.to[0];
  const uniform = seededUniform(4);
  const pick = (count: number) => Math.floor(uniform() * count);
  const places = Array.from({ length: SAMPLES }, (): Place => [pick(frames), pick(out), pick(side), pick(side)]);
  const values = places.map(([frame, channel, row, column]) => {
    let sum = bias[channel]!;
    for (let c = 0; c < into; c++) {
      for (let i = 0; i < 27; i++) {
        const [tap, dy, dx] = [Math.floor(i / 9), Math.floor(i / 3) % 3, i % 3];
        const at = (((frame + tap) * (side + 2) + row + dy) * (side + 2) + column + dx) * into + c;
        sum += x[at]! * weight[(channel * into + c) * 27 + i]!;
      }
    }
    return sum;
  });
  return { places, values };
}

function ours({ gpu }: BenchContext, { conv, x, weight, bias }: Inputs, type: 'f32' | 'f16'): Contestant {
  const { memory } = gpu;
  const upload = (values: Float32Array) =>
    type === 'f16'
      ? memory.upload('input', 'float16', [values.length], encodeF16(values))
      : memory.upload('input', 'float32', [values.length], values);
  const { frames, to, out } = conv;
  const width = to[1] + 2;
  const frame = (conv.from[0] + 2) * width * conv.into;
  const tensors = {
    x: upload(x.subarray(2 * frame)),
    past: upload(x.subarray(0, 2 * frame)),
    weight: upload(packConv(weight, [out, conv.into, 3, 3, 3]).weight),
    bias: memory.upload('bias', 'float32', [out], bias),
    y: memory.tensor('y', type === 'f16' ? 'float16' : 'float32', [frames, to[0] + 2, width, out]),
  };
  return {
    name: `zoetrope ${type}`,
    tolerance: type === 'f16' ? F16 : F32,
    async run() {
      const { x, past, weight, bias, y } = tensors;
      for (const launch of [
        ...causalConvLaunches({ ...conv, type }, Infinity, { type, older: 0 }),
        ...causalConvLaunches({ ...conv, type }, Infinity),
      ]) {
        await causalConv.run(gpu, launch, { x: launch.past ? past : x, weight, bias, y });
      }
    },
    async read() {
      const { buffer } = await memory.read(tensors.y);
      const values = type === 'f16' ? decodeF16(new Uint16Array(buffer)) : new Float32Array(buffer);
      return (frame, channel, row, column) =>
        values[((frame * (to[0] + 2) + row + 1) * width + column + 1) * out + channel]!;
    },
    async release() {
      for (const tensor of Object.values(tensors)) tensor[Symbol.dispose]();
    },
  };
}

async function ortConv({ gpu, ort }: BenchContext, { conv, x, weight, bias }: Inputs): Promise<Contestant> {
  const { frames, into, out } = conv;
  const side = conv.to[0];
  const area = side * side;
  const shapes = {
    x: [frames, 3 * into, side, side],
    w: [out, 3 * into, 3, 3],
    b: [out],
    y: [frames, out, side, side],
  };
  const graph = new Graph('Conv');
  const [input, kernel, offset] = (['x', 'w', 'b'] as const).map((name) => graph.input(name, 'float32', shapes[name]));
  graph.output('y', conv2d(input!, kernel!, offset!, 1));
  const session = await ort.compile(graph);
  const frame = Float32Array.from({ length: frames * 3 * into * area }, (_, i) => {
    const [t, channel] = [Math.floor(i / area / 3 / into), Math.floor(i / area) % (3 * into)];
    const [row, column] = [Math.floor(i / side) % side, i % side];
    const present = t + Math.floor(channel / into);
    return x[((present * (side + 2) + row + 1) * (side + 2) + column + 1) * into + (channel % into)]!;
  });
  const turned = Float32Array.from({ length: weight.length }, (_, i) => {
    const [o, channel, pixel] = [Math.floor(i / 27 / into), Math.floor(i / 9) % (3 * into), i % 9];
    return weight[((o * into + (channel % into)) * 3 + Math.floor(channel / into)) * 9 + pixel]!;
  });
  const upload = (values: Float32Array, shape: number[]): GpuTensor =>
    gpu.memory.upload('input', 'float32', shape, values);
  const feeds = { x: upload(frame, shapes.x), w: upload(turned, shapes.w), b: upload(bias, shapes.b) };
  const y = gpu.memory.tensor('y', 'float32', shapes.y);
  return {
    name: 'onnxruntime f32',
    tolerance: F32,
    run: () => session.run(feeds, { y }),
    async read() {
      const values = await gpu.memory.readFloats(y);
      return (t, channel, row, column) => values[(t * out + channel) * area + row * side + column]!;
    },
    async release() {
      await session.release();
      for (const tensor of [...Object.values(feeds), y]) tensor[Symbol.dispose]();
    },
  };
}
