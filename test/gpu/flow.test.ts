import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type DeconvShuffleShape, deconvShuffle } from '../../kernels/deconv-shuffle';
import { type FlowBlendShape, flowBlend } from '../../kernels/flow-blend';
import { type FlowFeaturesShape, flowFeatures } from '../../kernels/flow-features';
import { type FlowUpdateShape, flowUpdate } from '../../kernels/flow-update';
import { type ImageConvShape, imageConv } from '../../kernels/image-conv';
import { type ImageDeconvShape, imageDeconv } from '../../kernels/image-deconv';
import { type PadPictureShape, padPicture } from '../../kernels/pad-picture';
import { packConv, packDeconv } from '../../src/interpolate/rife-weights';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { expectNear, seededFloats, seededUniform, type Tolerance } from '../harness/near';
import { asHeld, F16_STORE, type FloatType, readAs, uploadAs } from '../harness/typed';
import { deconvShuffleReference } from '../reference/deconv-shuffle';
import { flowBlendReference } from '../reference/flow-blend';
import { flowFeaturesReference } from '../reference/flow-features';
import { flowUpdateReference } from '../reference/flow-update';
import { imageConvReference } from '../reference/image-conv';
import { imageDeconvReference } from '../reference/image-deconv';
import { padPictureReference } from '../reference/pad-picture';

/** The kernels of the flow network, each against its reference. */

/**
 * f32 sums of up to 1,024 products of deviation 0.3, in another order. Measured up to 1.5e-7 and 3.8e-6; four times
 * that.
 */
const F32_SUM: Tolerance = { relativeL2: 6e-7, maxAbs: 1.6e-5 };
/**
 * Coordinates up to 64 have f32 steps of 4e-6, which the difference of two pixels scales. Measured up to 8e-7 and
 * 1.6e-6; four times that.
 */
const F32_SAMPLE: Tolerance = { relativeL2: 3.2e-6, maxAbs: 6.4e-6 };
/**
 * A few f32 operations on values of about 1, or of about 10 for flows. Measured up to 5.6e-8 and 1.2e-6; four times
 * that.
 */
const F32_FEW: Tolerance = { relativeL2: 2.4e-7, maxAbs: 5e-6 };

/** Elements behind an output that a launch must leave alone, and what they and its border hold. */
const GUARDS = 64;
const GUARD = 777;

type Size = readonly [height: number, width: number];

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

/** Whether an element of channels-last pixels belongs to the border of one pixel. */
function border([height, width]: Size, channels: number, index: number): boolean {
  const column = Math.floor(index / channels) % (width + 2);
  const row = Math.floor(index / channels / (width + 2));
  return row === 0 || column === 0 || row === height + 1 || column === width + 1;
}

/** Random pixels, channels last, with a border of zeros. */
function bordered(seed: number, type: FloatType, size: Size, channels: number): Float32Array {
  const values = asHeld(type, seededFloats(seed, (size[0] + 2) * (size[1] + 2) * channels));
  return values.map((value, i) => (border(size, channels, i) ? 0 : value));
}

/** A picture [h, w, channels] of values in 0..1. */
function picture(seed: number, [height, width]: Size, channels = 4): Float32Array {
  const uniform = seededUniform(seed);
  return Float32Array.from({ length: channels * height * width }, uniform);
}

/** An output of NaN, of guards in its border and behind it. */
function output(length: number, guarded: (index: number) => boolean = () => false): Float32Array {
  return Float32Array.from({ length: length + GUARDS }, (_, i) => (i >= length || guarded(i) ? GUARD : Number.NaN));
}

/** Compares an output; its border and what lies behind it have to hold the guard. */
function compare(
  values: Float32Array,
  expected: Float64Array,
  tolerance: Tolerance,
  label: string,
  guarded: (index: number) => boolean = () => false,
): void {
  test.gpu.check();
  const inside = (_: number, i: number) => i < expected.length && !guarded(i);
  expectNear(values.filter(inside), expected.filter(inside), tolerance, label);
  expect(new Set(values.filter((value, i) => !inside(value, i))), 'guards').toEqual(new Set([GUARD]));
}

const upload = (values: Float32Array) => uploadAs(test.gpu, 'f32', values);

describe.each(['f32', 'f16'] as const)('in %s', (type) => {
  const missing = 'this adapter has no shader-f16';
  const absent = () => type === 'f16' && !test.gpu.f16;
  const store = type === 'f16' ? F16_STORE : F32_SUM;

  const plain = { residual: false, slope: 0.2 };
  const convolutions: [string, Omit<ImageConvShape, 'type'>][] = [
    ['one pixel', { size: [1, 1], stride: 1, into: 4, out: 4, ...plain }],
    ['odd sides', { size: [5, 7], stride: 1, into: 8, out: 12, ...plain }],
    ['a residual', { size: [6, 9], stride: 1, into: 16, out: 16, residual: true, slope: 0.2 }],
    ['many lanes', { size: [3, 9], stride: 1, into: 64, out: 64, residual: true, slope: 0.2 }],
    ['no activation', { size: [4, 4], stride: 1, into: 4, out: 96, residual: false, slope: 1 }],
    ['stride 2', { size: [4, 8], stride: 2, into: 12, out: 32, ...plain }],
    ['stride 2, odd sides', { size: [5, 3], stride: 2, into: 8, out: 96, ...plain }],
  ];
  it.for(convolutions)('image-conv: %s', async ([name, shape], { skip }) => {
    skip(absent(), missing);
    const { size, stride, into, out } = shape;
    const x = bordered(10, type, [stride * size[0], stride * size[1]], into);
    const weight = asHeld(type, seededFloats(11, out * into * 9, 0.3));
    const bias = seededFloats(12, out);
    const expected = imageConvReference(shape, x, weight, bias, GUARD);
    using xs = uploadAs(test.gpu, type, x);
    using weights = uploadAs(test.gpu, type, packConv(weight, [out, into, 3, 3]).weight);
    using biases = upload(bias);
    const guarded = (i: number) => border(size, out, i);
    using y = uploadAs(test.gpu, type, output(expected.length, guarded));
    await imageConv.run(test.gpu, { ...shape, type }, { x: xs, weight: weights, bias: biases, y });
    compare(await readAs(test.gpu, type, y), expected, store, `${name}, seeds from 10`, guarded);
  });

  const deconvolutions: [string, Omit<DeconvShuffleShape, 'type'>][] = [
    ['one pixel', { size: [1, 1], into: 4, planes: 1 }],
    ['odd sides', { size: [5, 7], into: 8, planes: 6 }],
    ['whole squares', { size: [8, 4], into: 64, planes: 6 }],
    ['planes that do not divide', { size: [3, 6], into: 12, planes: 13 }],
  ];
  it.for(deconvolutions)('deconv-shuffle: %s', async ([name, shape], { skip }) => {
    skip(absent(), missing);
    const { size, into, planes } = shape;
    const x = bordered(20, type, size, into);
    const weight = asHeld(type, seededFloats(21, into * planes * 64, 0.3));
    const bias = seededFloats(22, 4 * planes);
    const expected = deconvShuffleReference(shape, x, weight, bias);
    using xs = uploadAs(test.gpu, type, x);
    using weights = uploadAs(test.gpu, type, packDeconv(weight, [into, 4 * planes, 4, 4]).weight);
    using biases = upload(bias);
    using y = upload(output(expected.length));
    await deconvShuffle.run(test.gpu, { ...shape, type }, { x: xs, weight: weights, bias: biases, y });
    compare(await test.gpu.memory.readFloats(y), expected, F32_SUM, `${name}, seeds from 20`);
  });

  const transposed: [string, Omit<ImageDeconvShape, 'type'>][] = [
    ['one pixel', { size: [1, 1], into: 4, out: 4, slice: [4, 0] }],
    ['odd sides', { size: [5, 7], into: 16, out: 4, slice: [8, 4] }],
    ['a slice in the middle', { size: [4, 3], into: 8, out: 8, slice: [16, 4] }],
  ];
  it.for(transposed)('image-deconv: %s', async ([name, shape], { skip }) => {
    skip(absent(), missing);
    const { size, into, out, slice } = shape;
    const x = bordered(25, type, size, into);
    const weight = asHeld(type, seededFloats(26, into * out * 16, 0.3));
    const bias = seededFloats(27, out);
    const expected = imageDeconvReference(shape, x, weight, bias, GUARD);
    using xs = uploadAs(test.gpu, type, x);
    using weights = uploadAs(test.gpu, type, packDeconv(weight, [into, out, 4, 4]).weight);
    using biases = upload(bias);
    const guarded = (i: number) => i % slice[0] < slice[1] || i % slice[0] >= slice[1] + out;
    using y = upload(output(expected.length, guarded));
    await imageDeconv.run(test.gpu, { ...shape, type }, { x: xs, weight: weights, bias: biases, y });
    compare(await test.gpu.memory.readFloats(y), expected, F32_SUM, `${name}, seeds from 25`, guarded);
  });

  const old = { encoded: 0, passed: 0, headScale: 1 } as const;
  const newer = { encoded: 4, passed: 8 } as const;
  const features: [string, Omit<FlowFeaturesShape, 'type'>][] = [
    ['the first block', { size: [16, 24], scale: 8, time: 0.5, first: true, ...old }],
    ['the first block at full size', { size: [5, 7], scale: 1, time: 0.2, first: true, ...old }],
    ['a fourth', { size: [12, 20], scale: 4, time: 0.25, first: false, ...old }],
    ['a half', { size: [6, 10], scale: 2, time: 0.8, first: false, ...old }],
    ['full size, odd sides', { size: [5, 7], scale: 1, time: 0.2, first: false, ...old }],
    ['encoded, the first block', { size: [64, 32], scale: 32, time: 0.3, first: true, ...newer, headScale: 32 }],
    ['encoded, a fourth', { size: [24, 32], scale: 4, time: 0.3, first: false, ...newer, headScale: 8 }],
    ['encoded, full size', { size: [8, 12], scale: 1, time: 0.6, first: false, ...newer, headScale: 4 }],
    ['sixteen channels', { size: [6, 10], scale: 2, time: 0.6, first: false, encoded: 16, passed: 4, headScale: 2 }],
  ];
  it.for(features)('flow-features: %s', async ([name, shape], { skip }) => {
    skip(absent(), missing);
    const { size, scale, first, encoded, passed, headScale } = shape;
    const pixels = size[0] * size[1];
    const [before, after] = [picture(30, size, 4 + encoded), picture(31, size, 4 + encoded)];
    // Flows that leave the picture on every side.
    const flow = seededFloats(32, 4 * pixels, 6);
    const mask = seededFloats(33, pixels);
    const head = seededFloats(34, ((5 + passed) * pixels) / headScale ** 2);
    const expected = flowFeaturesReference(shape, before, after, flow, mask, head, GUARD);
    const at = [size[0] / scale, size[1] / scale] as const;
    const pictures = { before: upload(before), after: upload(after) };
    const inputs = { ...pictures, flow: upload(flow), mask: upload(mask), head: upload(head) };
    const channels = 8 + 2 * encoded + (first ? 0 : passed + 4);
    const guarded = (i: number) => border(at, channels, i);
    using x = uploadAs(test.gpu, type, output(expected.length, guarded));
    await flowFeatures.run(test.gpu, { ...shape, type }, { ...inputs, x });
    const tolerance = type === 'f16' ? F16_STORE : F32_SAMPLE;
    compare(await readAs(test.gpu, type, x), expected, tolerance, `${name}, seeds from 30`, guarded);
    for (const tensor of Object.values(inputs)) tensor[Symbol.dispose]();
  });
});

const updates: [string, FlowUpdateShape][] = [
  ['the first block', { size: [16, 24], scale: 8, first: true, replaceMask: false }],
  ['a fourth', { size: [12, 20], scale: 4, first: false, replaceMask: false }],
  ['a half, one row', { size: [2, 10], scale: 2, first: false, replaceMask: true }],
  ['full size, odd sides', { size: [5, 7], scale: 1, first: false, replaceMask: false }],
];
it.each(updates)('flow-update: %s', async (name, shape) => {
  const { size, scale } = shape;
  const pixels = size[0] * size[1];
  const head = seededFloats(40, (6 * pixels) / scale ** 2);
  const [held, heldMask] = [seededFloats(41, 4 * pixels), seededFloats(42, pixels)];
  const expected = flowUpdateReference(shape, head, held, heldMask);
  const guards = new Float32Array(GUARDS).fill(GUARD);
  using heads = upload(head);
  using flow = upload(Float32Array.from([...held, ...guards]));
  using mask = upload(Float32Array.from([...heldMask, ...guards]));
  await flowUpdate.run(test.gpu, shape, { head: heads, flow, mask });
  compare(await test.gpu.memory.readFloats(flow), expected.flow, F32_FEW, `${name}, flow, seeds from 40`);
  compare(await test.gpu.memory.readFloats(mask), expected.mask, F32_FEW, `${name}, mask, seeds from 40`);
});

const blends: [string, FlowBlendShape][] = [
  ['padded', { padded: [32, 32], encoded: 0, size: [17, 30] }],
  ['not padded', { padded: [5, 7], encoded: 0, size: [5, 7] }],
  ['encoded', { padded: [9, 12], encoded: 8, size: [7, 11] }],
];
it.each(blends)('flow-blend: %s', async (name, shape) => {
  const pixels = shape.padded[0] * shape.padded[1];
  const [before, after] = [picture(50, shape.padded, 4 + shape.encoded), picture(51, shape.padded, 4 + shape.encoded)];
  const [flow, mask] = [seededFloats(52, 4 * pixels, 8), seededFloats(53, pixels, 3)];
  const expected = flowBlendReference(shape, before, after, flow, mask);
  const inputs = { before: upload(before), after: upload(after), flow: upload(flow), mask: upload(mask) };
  using rgb = upload(output(expected.length));
  await flowBlend.run(test.gpu, shape, { ...inputs, rgb });
  compare(await test.gpu.memory.readFloats(rgb), expected, F32_SAMPLE, `${name}, seeds from 50`);
  for (const tensor of Object.values(inputs)) tensor[Symbol.dispose]();
});

const flat = { type: 'f32', border: 0, channels: 4 } as const;
const pads: [string, PadPictureShape][] = [
  ['edge', { frames: 1, frame: 0, size: [5, 7], padded: [32, 32], edge: 'replicate', ...flat }],
  ['zeros', { frames: 1, frame: 0, size: [33, 7], padded: [64, 32], edge: 'zero', ...flat }],
  ['the last of four', { frames: 4, frame: 3, size: [6, 9], padded: [6, 9], edge: 'replicate', ...flat }],
  ['room for more', { frames: 1, frame: 0, size: [5, 7], padded: [8, 8], edge: 'zero', ...flat, channels: 12 }],
  ['a border', { frames: 1, frame: 0, size: [5, 7], padded: [8, 8], edge: 'replicate', ...flat, border: 1 }],
];
it.each(pads)('pad-picture: %s', async (name, shape) => {
  // Some values lie beyond -1..1.
  const rgb = seededFloats(60, 3 * shape.frames * shape.size[0] * shape.size[1]);
  const expected = padPictureReference(shape, rgb, GUARD);
  using colors = upload(rgb);
  const guarded = (i: number) =>
    i % shape.channels >= 4 || (shape.border === 1 && border(shape.padded, shape.channels, i));
  using y = upload(output(expected.length, guarded));
  await padPicture.run(test.gpu, shape, { rgb: colors, y });
  compare(await test.gpu.memory.readFloats(y), expected, F32_FEW, `${name}, seed 60`, guarded);
});
