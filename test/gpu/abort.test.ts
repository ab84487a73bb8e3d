import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { diskFolder } from '../../src/cli/files';
import { residentModel } from '../../src/model';
import { generate, type Host } from '../../src/pipeline';
import type { GeneratedVideo } from '../../src/protocol';
import { openModel } from '../../src/store/verified';
import { randomOf, strikePoints } from '../crash/points';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { fakeCodec } from '../harness/fake-codec';
import { smallSizes } from '../harness/small-sizes';

/**
 * A job that is cancelled at any submission to the GPU ends before the next kernel or graph, and leaves nothing behind.
 */

/** A tenth of what the goal asks for; `ZOETROPE_ABORT_POINTS=200` runs them all, in five minutes of two cores. */
const POINTS = Number(process.env.ZOETROPE_ABORT_POINTS ?? 20);
const SEED = 20261124;
/** Jobs between two that are run to their end and compared. */
const COMPARED_EVERY = 10;
/** Submissions of a graph of ONNX Runtime, which nothing can stop half-way; a kernel of ours is one. */
const GRAPH_SUBMITS = 4;

const REQUEST = {
  prompt: 'a red circle',
  seed: 7,
  num_frames: 17,
  num_inference_steps: 2,
  guidance_scale: 1,
  guidance_scale_2: 1,
  aspect_ratio: '1:1',
  interpolator_model: 'none',
  acceleration: 'none',
} as const;

let test: TestGpu;
let model: ReturnType<typeof residentModel>;
/** Submissions of the job that runs; `onSubmit` is told each. */
let submits = 0;
let onSubmit: (count: number) => void = () => undefined;

beforeAll(async () => {
  test = await openTestGpu();
  const { gpu } = test;
  const verified = await openModel(diskFolder(resolve(import.meta.dirname, '../../public/models/demo')));
  model = residentModel(gpu, { ...verified, manifest: { ...verified.manifest, sizes: smallSizes(16) } });
  const { queue } = gpu.device;
  const submit = queue.submit.bind(queue);
  queue.submit = (buffers) => {
    submit(buffers);
    onSubmit(++submits);
    return undefined;
  };
});
afterAll(async () => {
  model?.[Symbol.dispose]();
  await test?.close();
});

function run(signal: AbortSignal): Promise<GeneratedVideo> {
  submits = 0;
  const { gpu, ort } = test;
  const none = async () => undefined;
  const host: Host = {
    gpu,
    ort,
    model,
    video: fakeCodec(),
    available: { film: false, rife: false, promptExpansion: false, safetyChecker: false },
    safety: [],
    openPictures: () => Promise.reject(new Error('not asked for')),
    expansion: [],
    checkpoint: { decided: undefined, decide: none, load: none, save: none },
    budgetBytes: Infinity,
    now: () => performance.now(),
    randomSeed: () => 7,
    signal,
  };
  const report = { progress: () => undefined, preview: () => undefined, log: () => undefined };
  return generate(REQUEST, { previews: true, rgb24: true }, host, report);
}

const never = new AbortController().signal;
const frames = async () => new Uint8Array((await run(never)).rgb24!);

describe('a cancelled job', () => {
  it(`ends before the next dispatch, at ${POINTS} points (seed ${SEED}), and leaves nothing to the next one`, async () => {
    const { memory } = test.gpu;
    const expected = await frames();
    const level = memory.liveBytes;
    const total = submits;
    /** Submissions after the cancel, by how many there were. */
    const late = new Map<number, number>();
    for (const [index, point] of strikePoints(POINTS, total, randomOf(SEED)).entries()) {
      const controller = new AbortController();
      onSubmit = (count) => count === point && controller.abort();
      await expect(run(controller.signal), `cancel at ${point}`).rejects.toMatchObject({ code: 'aborted' });
      onSubmit = () => undefined;
      expect(memory.liveBytes, `level after a cancel at ${point}`).toBe(level);
      late.set(submits - point, (late.get(submits - point) ?? 0) + 1);
      if (index % COMPARED_EVERY === 0) expect(await frames()).toEqual(expected);
    }
    expect(await frames()).toEqual(expected);
    console.log(`${total} submissions a job; submissions after a cancel: ${JSON.stringify([...late])}`);
    expect(Math.max(...late.keys())).toBeLessThan(GRAPH_SUBMITS);
  }, 3_600_000);
});
