import { flowBlend } from '../../kernels/flow-blend';
import { Rife } from '../../src/interpolate/rife';
import { rifeMac } from '../../src/interpolate/rife-sizes';
import { Graph } from '../../src/onnx/graph';
import { add, mul, sigmoid, sub } from '../../src/onnx/ops';
import { RIFE_46 } from '../../src/part/rife';
import { distance, expectNear, seededFloats, seededUniform, type Tolerance } from '../harness/near';
import { readFrame, shippedRife, uploadFrame } from '../harness/rife';
import { movingTexture, psnr } from '../harness/texture';
import { flowBlendReference } from '../reference/flow-blend';
import type { Bench, BenchContext, Row } from './registry';
import { alternate, type Variant } from './timing';

type Size = readonly [width: number, height: number];

/** What a frame halfway between two must reach; a network that is wrong lies below 35 dB. */
const MIN_PSNR_DB = 38;

/** Milliseconds of one frame between two, everything from the prepared pictures to its colours. */
export const rifeBench: Bench = {
  name: 'rife',
  async run(context) {
    const sizes: Size[] = context.cpuDriver
      ? [[256, 256]]
      : [
          [256, 256],
          [1280, 720],
        ];
    const rows: Row[] = [];
    for (const size of sizes) rows.push(...(await frameRows(context, size)));
    return rows;
  },
};

async function frameRows({ gpu }: BenchContext, [width, height]: Size): Promise<Row[]> {
  const texture = movingTexture(5, 6, 64);
  using first = uploadFrame(gpu, texture(width, height, 0, 0), [3, height, width]);
  using second = uploadFrame(gpu, texture(width, height, 6, -4), [3, height, width]);
  const networks = [];
  for (const type of gpu.f16 ? (['f32', 'f16'] as const) : (['f32'] as const)) {
    const weights = await shippedRife(gpu, type);
    const rife = new Rife(gpu, weights, { width, height });
    const [before, after] = [
      await rife.prepare({ rgb: first, frame: 0 }),
      await rife.prepare({ rgb: second, frame: 0 }),
    ];
    networks.push({ type, rife, before, after, owned: [weights, rife, before, after] });
  }
  try {
    const variants = networks.map(
      ({ type, rife, before, after }): Variant => ({
        name: `zoetrope ${type}`,
        run: async () => void (await rife.at(before, after, 0.5)),
      }),
    );
    const timings = await alternate(gpu, variants);
    for (const { type, rife, before, after } of networks) {
      const { rgb } = await rife.at(before, after, 0.5);
      const reached = psnr(await readFrame(gpu, rgb), texture(width, height, 3, -2));
      if (!(reached > MIN_PSNR_DB)) throw new Error(`The frame in ${type} reaches ${reached.toFixed(1)} dB only.`);
    }
    return timings.map(({ name, ...timing }) => ({
      bench: 'rife',
      shape: `${width} × ${height}`,
      variant: name,
      ...timing,
      gflops: (2 * rifeMac(RIFE_46, width, height)) / timing.medianMs / 1e6,
    }));
  } finally {
    for (const { owned } of networks) for (const thing of owned) thing[Symbol.dispose]();
  }
}

/**
 * ONNX Runtime rounds the grid's -1..1 to f32, steps of 6e-8 that are 8e-6 pixels of 256; colours change by up to 1 a
 * pixel.
 */
const F32_WARP: Tolerance = { relativeL2: 1e-4, maxAbs: 1e-3 };

/**
 * Both pictures warped and blended: our kernel beside ONNX Runtime's GridSample of opset 16, to which the flow comes as
 * two grids ready made.
 */
export const warpBench: Bench = {
  name: 'rife-warp',
  async run({ gpu, ort, cpuDriver }) {
    const rows: Row[] = [];
    const sizes: Size[] = cpuDriver
      ? [[256, 256]]
      : [
          [256, 256],
          [1280, 736],
        ];
    for (const [width, height] of sizes) {
      const pixels = width * height;
      const uniform = seededUniform(1);
      const [before, after] = [0, 1].map(() => Float32Array.from({ length: 4 * pixels }, uniform)) as [
        Float32Array,
        Float32Array,
      ];
      const [flow, mask] = [seededFloats(2, 4 * pixels, 6), seededFloats(3, pixels)];
      const { memory } = gpu;
      const upload = (values: Float32Array, ...shape: number[]) => memory.upload('input', 'float32', shape, values);
      const planes = (picture: Float32Array) =>
        Float32Array.from({ length: 3 * pixels }, (_, i) => picture[4 * (i % pixels) + Math.floor(i / pixels)]!);
      const grid = (axis: 0 | 2) =>
        Float32Array.from({ length: 2 * pixels }, (_, i) => {
          const at = i >> 1;
          const along = i % 2;
          const position = (along === 0 ? at % width : Math.floor(at / width)) + flow[4 * at + axis + along]!;
          return (2 * position) / ((along === 0 ? width : height) - 1) - 1;
        });

      const graph = new Graph('warp');
      const picture = [1, 3, height, width];
      const warped = (['before', 'after'] as const).map((name) => {
        const inputs = [
          graph.input(name, 'float32', picture),
          graph.input(`${name}Grid`, 'float32', [1, height, width, 2]),
        ];
        const attributes = { mode: 'bilinear', padding_mode: 'border', align_corners: 1 };
        return graph.node('GridSample', inputs, [{ dtype: 'float32', shape: picture }], attributes)[0]!;
      });
      const share = sigmoid(graph.input('mask', 'float32', [1, 1, height, width]));
      graph.output('y', add(warped[1]!, mul(share, sub(warped[0]!, warped[1]!))));
      const session = await ort.compile(graph);
      const feeds = {
        before: upload(planes(before), ...picture),
        beforeGrid: upload(grid(0), 1, height, width, 2),
        after: upload(planes(after), ...picture),
        afterGrid: upload(grid(2), 1, height, width, 2),
        mask: upload(mask, 1, 1, height, width),
      };
      const y = memory.tensor('y', 'float32', picture);
      const tensors = {
        before: upload(before, height, width, 4),
        after: upload(after, height, width, 4),
        flow: upload(flow, height, width, 4),
        mask: upload(mask, height, width),
        rgb: memory.tensor('rgb', 'float32', [3, 1, height, width]),
      };
      const shape = { padded: [height, width], encoded: 0, size: [height, width] } as const;
      try {
        const timings = await alternate(gpu, [
          { name: 'onnxruntime f32', run: () => session.run(feeds, { y }) },
          { name: 'zoetrope f32', run: () => flowBlend.run(gpu, shape, tensors) },
        ]);
        const expected = flowBlendReference(shape, before, after, flow, mask).map((value) => (value + 1) / 2);
        const results = [await memory.readFloats(y), await readFrame(gpu, tensors.rgb)];
        for (const [i, { name, ...timing }] of timings.entries()) {
          expectNear(results[i]!, expected, F32_WARP, name);
          const { relativeL2, maxAbs } = distance(results[i]!, expected, 1);
          const operations = 2 * 3 * 8 * pixels;
          rows.push({
            bench: 'rife-warp',
            shape: `${width} × ${height}`,
            variant: name,
            ...timing,
            gflops: operations / timing.medianMs / 1e6,
            error: { relativeL2, maxAbs },
          });
        }
      } finally {
        await session.release();
        for (const tensor of [...Object.values(feeds), ...Object.values(tensors), y]) tensor[Symbol.dispose]();
      }
    }
    return rows;
  },
};
