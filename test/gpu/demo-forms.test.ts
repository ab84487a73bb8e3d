import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { importCheckpoint, writeModel } from '../../src/checkpoint/import';
import { openCheckpoint } from '../../src/checkpoint/open';
import { diskFolder } from '../../src/cli/files';
import type { Quantization } from '../../src/manifest';
import { residentModel } from '../../src/model';
import { generate, type Host } from '../../src/pipeline';
import { openModel, type VerifiedModel } from '../../src/store/verified';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import {
  type Beside,
  diffusersFiles,
  type Files,
  type FloatWeights,
  floatWeights,
  fp8Files,
  ggufFiles,
  originalFiles,
  rounded,
  shardedFiles,
  throughFp8,
  throughQ4,
} from '../harness/demo-checkpoint';
import { judge } from '../harness/judge';
import { type MemoryFolder, memoryFolder } from '../harness/memory-folder';
import { replayHost } from '../harness/replay';

/** The shipped demo model, saved as other programs save checkpoints: each form imports, and generates. */

const REQUEST = {
  prompt: 'a red circle moving right on a black background',
  seed: 7,
  num_frames: 17,
  num_inference_steps: 2,
  guidance_scale: 1,
  guidance_scale_2: 1,
  aspect_ratio: '1:1',
  interpolator_model: 'none',
  acceleration: 'none',
} as const;

/**
 * Least PSNR of a form's frames against those of the weights unrounded, in decibels. Measured on SwiftShader: 49.1 with
 * E4M3 and a scale a matrix, 35.1 with Q4_0. The margin of 5 dB and more is for other drivers' sums.
 */
const MIN_DECIBELS = { fp8: 44, q4: 30 };

let test: TestGpu;
let shipped: VerifiedModel;
let weights: FloatWeights;
let beside: Beside;
/** Imported from the diffusers layout, in 8 bits: every value as it is. */
let diffusers: MemoryFolder;
/** What it generates. */
let exact: Uint8ClampedArray[];
beforeAll(async () => {
  test = await openTestGpu();
  shipped = await openModel(diskFolder(resolve(import.meta.dirname, '../../public/models/demo')));
  weights = await floatWeights(shipped);
  beside = { manifest: shipped.manifest, tokenizer: await shipped.component('tokenizer').readFile('tokenizer.json') };
  diffusers = await importFiles(diffusersFiles(weights, beside), 'q8');
  exact = await redCircle(diffusers);
});
afterAll(() => test?.close());

/** Imports files as a person would give them: a diffusers folder by itself, single files one by one. */
async function importFiles(files: Files, quantization: Quantization): Promise<MemoryFolder> {
  const sink = memoryFolder();
  const folder = memoryFolder(Object.entries(files));
  const options = { sink, quantization, name: shipped.manifest.name, license: shipped.manifest.license };
  if (files['model_index.json']) await importCheckpoint({ ...options, folder });
  else {
    const sources = Object.keys(files).map(async (path) => ({ path, file: await folder.open(path) }));
    await writeModel(options, await openCheckpoint(await Promise.all(sources)));
  }
  return sink;
}

/** Frames as RGBA, from the prompt to the MP4 writer. */
async function framesOf(verified: VerifiedModel): Promise<Uint8ClampedArray[]> {
  const { gpu, ort } = test;
  using model = residentModel(gpu, verified);
  const none = async () => undefined;
  const host: Host = {
    gpu,
    ort,
    model,
    video: replayHost,
    available: { film: false, rife: false, promptExpansion: false, safetyChecker: false },
    safety: [],
    openPictures: () => Promise.reject(new Error('not asked for')),
    expansion: [],
    checkpoint: { decided: undefined, decide: none, load: none, save: none },
    budgetBytes: Infinity,
    now: () => performance.now(),
    randomSeed: () => 7,
    signal: new AbortController().signal,
  };
  const report = { progress: () => undefined, preview: () => undefined, log: () => undefined };
  const { rgb24, width, height, frames } = await generate(REQUEST, { previews: false, rgb24: true }, host, report);
  const rgb = new Uint8Array(rgb24!);
  const pixels = width * height;
  expect([width, height, frames, rgb.length]).toEqual([64, 64, 17, 17 * 3 * 64 * 64]);
  return Array.from({ length: frames }, (_, frame) =>
    Uint8ClampedArray.from({ length: 4 * pixels }, (_, i) =>
      i % 4 === 3 ? 255 : rgb[3 * (frame * pixels + (i >> 2)) + (i % 4)]!,
    ),
  );
}

/** The frames of a form, which still show what the prompt says. */
async function redCircle(sink: MemoryFolder): Promise<Uint8ClampedArray[]> {
  const frames = await framesOf(await openModel(sink));
  expect(judge(frames, 64, 64)).toEqual({ background: 'black', colour: 'red' });
  return frames;
}

/** Decibels between two clips of RGBA, over the three colours. Infinite for equal ones. */
function psnr(a: readonly Uint8ClampedArray[], b: readonly Uint8ClampedArray[]): number {
  let squares = 0;
  for (const [index, frame] of a.entries()) {
    for (let i = 0; i < frame.length; i++) squares += (frame[i]! - b[index]![i]!) ** 2;
  }
  return 10 * Math.log10((255 ** 2 * a.length * a[0]!.length * 0.75) / squares);
}

function expectNearFrames(frames: readonly Uint8ClampedArray[], form: string, minDecibels: number): void {
  const decibels = psnr(exact, frames);
  console.log(`${form}: ${decibels.toFixed(2)} dB of the frames of the same weights unrounded, bound ${minDecibels}`);
  expect(decibels).toBeGreaterThan(minDecibels);
  expect(decibels).toBeLessThan(Infinity); // a form that rounds gives other bytes
}

function expectSameBytes(a: MemoryFolder, b: MemoryFolder): void {
  expect([...a.files.keys()].sort()).toEqual([...b.files.keys()].sort());
  for (const [path, bytes] of a.files) expect(Buffer.compare(bytes, b.files.get(path)!), path).toBe(0);
}

describe('the demo checkpoint', () => {
  it('saved by diffusers gives the shards that it came from, in 8 bits', async () => {
    // Measured after the import, by `zoetrope calibrate`.
    const { acceleration: _, ...wanted } = shipped.manifest;
    expect((await openModel(diffusers)).manifest).toEqual(wanted);
  });

  // These hold the very same values, and their model folders the very same bytes: what one generates, all do.
  it.each([
    ['in shards', shardedFiles],
    ['as original single files', originalFiles],
    ['as GGUF of Q8_0, carried over', (from: FloatWeights, with_: Beside) => ggufFiles(from, with_, 'Q8_0')],
  ] as const)('%s gives the same bytes as from diffusers', async (_, save) => {
    expectSameBytes(await importFiles(save(weights, beside), 'q8'), diffusers);
  });

  it('as fp8_scaled gives what diffusers gives of its values, and generates', async () => {
    const sink = await importFiles(fp8Files(weights, beside), 'q8');
    expectSameBytes(await importFiles(diffusersFiles(rounded(weights, throughFp8), beside), 'q8'), sink);
    expectNearFrames(await redCircle(sink), 'fp8_scaled', MIN_DECIBELS.fp8);
  });

  it('as GGUF of Q4_0, carried over, gives what diffusers gives of its values, and generates', async () => {
    const sink = await importFiles(ggufFiles(weights, beside, 'Q4_0'), 'q4');
    expectSameBytes(await importFiles(diffusersFiles(rounded(weights, throughQ4), beside), 'q4'), sink);
    expectNearFrames(await redCircle(sink), 'Q4_0', MIN_DECIBELS.q4);
  });
});
