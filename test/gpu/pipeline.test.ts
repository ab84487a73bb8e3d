import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { diskFolder } from '../../src/cli/files';
import { planEvaluations } from '../../src/diffusion/cache';
import type { SamplerState } from '../../src/diffusion/sampler';
import { schedule } from '../../src/diffusion/schedule';
import { unipc } from '../../src/diffusion/unipc';
import type { Folder } from '../../src/manifest';
import { residentModel } from '../../src/model';
import { type Checkpoint, generate, type Host, type Model } from '../../src/pipeline';
import type { Report } from '../../src/protocol';
import { type Request, resolveRequest } from '../../src/request';
import { openModel, type VerifiedModel } from '../../src/store/verified';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { fakeCodec } from '../harness/fake-codec';
import { smallSizes } from '../harness/small-sizes';

/** The pipeline on a device that computes nothing: what it does, in which order, and what it leaves behind. */

const AVAILABLE = { film: false, rife: false, promptExpansion: false, safetyChecker: false };
const UNGUIDED = { guidance_scale: 1, guidance_scale_2: 1 };
const STEPS = 12;
const LATENTS = 16 * 5 * 2 * 2;

let test: TestGpu;
let verified: VerifiedModel;
/** What reads of a file wait for, by its path. */
const gates = new Map<string, () => Promise<void>>();

/** The demo model's folder, behind the gates. */
function gatedFolder(): Folder {
  const folder = diskFolder(resolve(import.meta.dirname, '../../public/models/demo'));
  return {
    async open(path) {
      const source = await folder.open(path);
      const read = async (begin: number, end: number) => {
        const gate = gates.get(path)?.();
        const bytes = await source.read(begin, end);
        await gate;
        return bytes;
      };
      return { sizeBytes: source.sizeBytes, read };
    },
  };
}

beforeAll(async () => {
  test = await openTestGpu({}, 'null');
  const opened = await openModel(gatedFolder());
  verified = { ...opened, manifest: { ...opened.manifest, sizes: smallSizes(16) } };
});
afterAll(() => test?.close());

/** How a video is made; each is optional. */
interface Making {
  budgetBytes?: number;
  signal?: AbortSignal;
  saved?: SamplerState;
  save?: Checkpoint['save'];
  progress?: Report['progress'];
  log?: Report['log'];
}

function run(model: Model, settings: Partial<Request>, making: Making = {}) {
  const never = new AbortController().signal;
  const none = async () => undefined;
  const {
    budgetBytes = Infinity,
    signal = never,
    saved,
    save = none,
    progress = () => undefined,
    log = () => undefined,
  } = making;
  const request = { prompt: 'a', num_frames: 17, ...UNGUIDED, ...settings };
  const decided = { request: resolveRequest(request, AVAILABLE, () => 7), prompt: 'a' };
  const host: Host = {
    ...test,
    model,
    video: fakeCodec(),
    available: AVAILABLE,
    safety: [],
    openPictures: () => Promise.reject(new Error('not asked for')),
    expansion: [],
    checkpoint: { decided, decide: none, load: async () => saved, save },
    budgetBytes,
    now: () => performance.now(),
    randomSeed: () => 7,
    signal,
  };
  const report = { progress, preview: () => undefined, log };
  return generate(request, { previews: false, rgb24: false }, host, report);
}

it('reuses no residual that an earlier run, which had no room for any, has not kept', async () => {
  using model = residentModel(test.gpu, verified);
  const { boundary, acceleration } = verified.manifest;
  const table = schedule({ solver: 'unipc', steps: STEPS, shift: 5, boundary });
  const { steps } = planEvaluations(table, UNGUIDED, 'regular', acceleration);
  const skipped = [...steps.keys()].filter((index) => steps[index]!.conditional === 'skip');
  const last = skipped.findLast((index) => !skipped.includes(index - 1))!; // few steps are left then
  const latents = new Map(unipc.state.map((name) => [name, new Float32Array(LATENTS)]));
  const behind = async (stepsDone: number) => {
    const settings = { num_inference_steps: STEPS, acceleration: 'regular' } as const;
    const kept: number[] = [];
    const save: Checkpoint['save'] = async (read) => void kept.push((await read()).stepsDone);
    const messages: string[] = [];
    const log: Report['log'] = ({ message }) => void messages.push(message);
    const { timings } = await run(model, settings, { saved: { stepsDone, latents }, save, log });
    expect(messages[0]).toContain(timings.evaluations.computed < STEPS ? 'reuses results' : 'computes every step');
    return { skipped: timings.evaluations.skipped.conditional, kept };
  };
  const rest = (from: number) => Array.from({ length: STEPS - from }, (_, index) => from + 1 + index);
  // Behind the steps before those that reuse, nobody can go on.
  const resumable = rest(last - 1).filter((stepsDone) => !skipped.includes(stepsDone));
  expect(await behind(last - 1)).toEqual({ skipped, kept: resumable });
  expect(resumable.length).toBeLessThan(rest(last - 1).length);
  // Here the step that would have kept a residual is done.
  expect(await behind(last)).toEqual({ skipped: [], kept: rest(last) });
});

it('encodes an empty negative prompt as the empty text that it is, and none where no stage is guided', async () => {
  using model = residentModel(test.gpu, verified);
  const texts: string[] = [];
  const tokenizer = model.tokenizer.bind(model);
  model.tokenizer = async (load) => {
    const { encode, ...rest } = await tokenizer(load);
    return {
      ...rest,
      encode(text) {
        texts.push(text);
        return encode(text);
      },
    };
  };
  await run(model, { num_inference_steps: 2, guidance_scale: 3.5 });
  expect(texts).toEqual(['a', '']);
  await run(model, { num_inference_steps: 2 });
  expect(texts).toEqual(['a', '', 'a']);
});

it.each([
  ['all of it from the start where all stays', Infinity, [true, true]],
  ['nothing where networks take turns', 12e6, [false, false]],
  ['its first blocks at the end where it is streamed', 10e6, [false, true]],
])('reads of the second expert, while the first one works, %s', async (_, budgetBytes, some) => {
  using model = residentModel(test.gpu, verified);
  let reads = 0;
  const count = async () => void reads++;
  for (const { path } of verified.manifest.components.low!) gates.set(path, count);
  const readBehind: boolean[] = [];
  const save = async () => {
    // Behind the second step nothing of it is asked for yet.
    if (some[readBehind.length]) await expect.poll(() => reads).toBeGreaterThan(0);
    readBehind.push(reads > 0);
  };
  await run(model, { num_inference_steps: 4 }, { budgetBytes, save });
  gates.clear();
  expect(readBehind).toEqual([...some, true, true]); // two steps of each expert
});

describe('a job whose weights do not come', () => {
  it.each([
    ['text_encoder', 'all', Infinity],
    ['low', 'all', Infinity],
    ['vae', 'all', Infinity],
    ['high', 'one network at a time', 12e6],
    ['high', 'some blocks of an expert', 10e6],
    ['low', 'some blocks of an expert', 10e6],
  ] as const)(
    'can be cancelled while %s loads, with room for %s, and the next one is not disturbed',
    async (component, _, budgetBytes) => {
      const before = test.gpu.memory.liveBytes;
      const settings = { num_inference_steps: 2 };
      {
        using model = residentModel(test.gpu, verified);
        let open: () => void = () => undefined;
        const gate = new Promise<void>((resolve) => (open = resolve));
        const controller = new AbortController();
        const asked = () => {
          controller.abort();
          return gate; // as a server that sends nothing
        };
        for (const { path } of verified.manifest.components[component]!) gates.set(path, asked);
        const { signal } = controller;
        await expect(run(model, settings, { budgetBytes, signal })).rejects.toMatchObject({ code: 'aborted' });
        gates.clear();
        if (component === 'text_encoder') setTimeout(open, 20); // two who read a piece at a time share one request
        const next = await run(model, settings, {
          budgetBytes,
          progress({ stage }) {
            if (stage === 'text') open(); // what the first one waited for comes while this one is in the midst of it
          },
        });
        expect(next.frames).toBe(17);
      }
      await expect.poll(() => test.gpu.memory.liveBytes).toBe(before);
    },
  );
});
