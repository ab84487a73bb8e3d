import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attention } from '../../kernels/attention';
import { type DitConfig, ditShapes } from '../../src/config';
import { Activations } from '../../src/diffusion/activations';
import { DitSessions } from '../../src/diffusion/block-graphs';
import { predictVelocity } from '../../src/diffusion/dit';
import { encodeTextKeys } from '../../src/diffusion/text-keys';
import { Scope } from '../../src/gpu/memory';
import { Staging } from '../../src/gpu/staging';
import { type BlockWeights, residentBlocks, Weights } from '../../src/gpu/weights';
import type { TensorSource } from '../../src/manifest';
import { planDit } from '../../src/plan';
import { BlockStream } from '../../src/store/block-stream';
import { filledSource } from '../fixtures/case';
import { openTestGpu, type TestGpu } from '../harness/dawn';
import { seededFloats } from '../harness/near';

const CONFIG: DitConfig = {
  dim: 256,
  ffnDim: 320,
  numHeads: 2,
  numLayers: 4,
  inChannels: 16,
  outChannels: 16,
  freqDim: 256,
  textDim: 64,
  textLen: 512,
  eps: 1e-6,
};
const SHAPE = [16, 2, 4, 4];

const tensors = [...ditShapes(CONFIG)].map(([name, shape]) => ({ name, shape, scale: 0.25, offset: 0 }));
const source = filledSource({ fill_prefix: '', tensors });

let test: TestGpu;
beforeAll(async () => {
  test = await openTestGpu();
});
afterAll(() => test.close());

const open = (slots: number, from: TensorSource = source, maxBindingBytes?: number) =>
  BlockStream.open(test.gpu, from, {
    prefix: 'blocks.',
    count: CONFIG.numLayers,
    slots,
    now: () => performance.now(),
    ...(maxBindingBytes && { maxBindingBytes }),
  });

/** Two steps, as a sampler makes them: the second one starts over at block 0. */
async function twoSteps(expert: BlockWeights): Promise<Float32Array> {
  const { gpu, ort } = test;
  const limits = { maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 2 ** 27, f16: false, cpu: true };
  const plan = planDit(CONFIG, { tokens: 8, latentFrames: 2, latentHeight: 4, latentWidth: 4 }, limits);
  const sessions = new DitSessions(CONFIG, ort);
  using scope = new Scope();
  try {
    const activations = scope.own(new Activations(gpu, CONFIG, plan, 1));
    const text = { rows: 3, values: seededFloats(1, 3 * 64) };
    const [keys] = await encodeTextKeys(gpu, sessions, expert, [text], plan);
    scope.own(keys!);
    const x = scope.own(gpu.memory.upload('x', 'float32', SHAPE, seededFloats(2, 16 * 2 * 4 * 4)));
    const v = scope.own(gpu.memory.tensor('v', 'float32', SHAPE));
    const host = { gpu, sessions, plan, activations };
    await predictVelocity(host, expert, x, 900, [keys!], [v]);
    await predictVelocity(host, expert, v, 500, [keys!], [x]);
    return await gpu.memory.readFloats(x);
  } finally {
    await sessions.release();
  }
}

/** The same tensors handed on in slices, as stored models give them. */
const sliced: TensorSource = {
  ...source,
  async scan(name, begin, end, sink) {
    const bytes = (await source.read(name)).subarray(begin, end);
    for (let offset = 0; offset < bytes.length; offset += 6160) {
      const slice = bytes.slice(offset, offset + 6160);
      await sink(offset, slice);
      slice.fill(0xff); // Its buffer is used again.
    }
  },
};

describe('BlockStream', () => {
  it.each([2, 3, 4])('gives the bits of resident weights through %i slots, in less memory', async (slots) => {
    const { memory } = test.gpu;
    const before = memory.liveBytes;
    using weights = await Weights.upload(test.gpu, source);
    const resident = memory.liveBytes - before;
    const expected = await twoSteps(residentBlocks(weights, 'blocks.'));
    weights[Symbol.dispose]();

    memory.resetPeak();
    const stream = await open(slots);
    const actual = await twoSteps(stream);
    const { blocks, ready } = stream.report();
    stream[Symbol.dispose]();
    await Promise.resolve();
    expect(actual).toEqual(expected);
    expect(blocks).toBe(3 * CONFIG.numLayers); // the prompt's keys, and two steps
    if (slots === 4) expect(ready).toBeGreaterThanOrEqual(2 * CONFIG.numLayers);
    else expect(memory.peakBytes - before).toBeLessThan(resident);
    await expect.poll(() => [memory.liveBytes, memory.stagingBytes]).toEqual([before, 0]);
  });

  it.each([
    ['whole', source],
    ['in slices', sliced],
  ])('takes any order, matrices in parts, tensors %s', async (_, from) => {
    using stream = await open(2, from, 100_000);
    using weights = await Weights.upload(test.gpu, source, { maxBindingBytes: 100_000 });
    for (const index of [3, 0, 0, 2, 1, 3]) {
      const [streamed, kept] = [await stream.block(index), weights.at(`blocks.${index}.`)];
      for (const name of ['modulation', 'self_attn.q.weight[2]', 'ffn.2.bias']) {
        const bytes = await test.gpu.memory.read(streamed.tensor(name));
        expect(bytes, `block ${index}, ${name}`).toEqual(await test.gpu.memory.read(kept.tensor(name)));
      }
    }
  });

  it('reads the blocks of the next network behind its last one, in the same slots', async () => {
    const { memory } = test.gpu;
    const before = memory.liveBytes;
    const filled = filledSource({ fill_prefix: 'other.', tensors });
    const reads: string[] = [];
    const other: TensorSource = {
      ...filled,
      read(name) {
        reads.push(name);
        return filled.read(name);
      },
    };
    const stream = await open(3);
    for (let index = 0; index < CONFIG.numLayers; index++) {
      if (index === 2) stream.followWith(other);
      await stream.block(index);
    }
    const first = () => reads.filter((name) => /blocks.[01].modulation/.test(name)).length;
    await expect.poll(first).toBe(2); // ahead of being asked for
    const held = memory.liveBytes;
    const next = await stream.handOver(other);
    stream[Symbol.dispose](); // owns nothing any more
    expect(memory.liveBytes).toBe(held);
    using weights = await Weights.upload(test.gpu, filled);
    const { ready } = next.report();
    for (const index of [0, 1]) await next.block(index);
    expect(first()).toBe(2); // and not once more
    for (const index of [0, 1, 2, 3, 0]) {
      const [streamed, kept] = [await next.block(index), weights.at(`blocks.${index}.`)];
      for (const name of ['modulation', 'ffn.2.bias']) {
        const bytes = await memory.read(streamed.tensor(name));
        expect(bytes, `block ${index}, ${name}`).toEqual(await memory.read(kept.tensor(name)));
      }
    }
    expect(await memory.read(next.outer.tensor('head.head.bias'))).toEqual(
      await memory.read(weights.at('').tensor('head.head.bias')),
    );
    expect(next.report().ready - ready).toBeGreaterThanOrEqual(2); // blocks 0 and 1 at least
    next[Symbol.dispose]();
    weights[Symbol.dispose]();
    await expect.poll(() => [memory.liveBytes, memory.stagingBytes]).toEqual([before, 0]);
  });

  it('hands over no block of its own', async () => {
    const other = filledSource({ fill_prefix: 'other.', tensors });
    using stream = await open(3);
    for (const index of [2, 3]) {
      stream.followWith(other);
      await stream.block(index);
    }
    using next = await stream.handOver(other);
    using weights = await Weights.upload(test.gpu, other);
    const bytes = await test.gpu.memory.read((await next.block(3)).tensor('modulation'));
    expect(bytes).toEqual(await test.gpu.memory.read(weights.at('blocks.3.').tensor('modulation')));
  });

  it('opens the next network anew where handing over has failed before', async () => {
    const { memory } = test.gpu;
    const before = memory.liveBytes;
    const stream = await open(2);
    await stream.block(3);
    const gone = { ...source, read: () => Promise.reject(new Error('the disk is gone')) };
    stream.followWith(gone);
    await expect(stream.handOver(gone)).rejects.toThrow('the disk is gone');
    const next = await stream.handOver(source);
    expect((await next.block(0)).tensor('modulation').shape).toEqual([1, 6, 256]);
    for (const each of [stream, next]) each[Symbol.dispose]();
    await expect.poll(() => [memory.liveBytes, memory.stagingBytes]).toEqual([before, 0]);
  });

  it('waits for no block once the job is cancelled, and has it for the next job', async () => {
    let arrive: () => void = () => undefined;
    const arrived = new Promise<void>((resolve) => (arrive = resolve));
    const late: TensorSource = {
      entries: source.entries,
      async read(name) {
        if (name.startsWith('blocks.')) await arrived;
        return source.read(name);
      },
    };
    using stream = await open(2, late);
    const controller = new AbortController();
    const cancelled = test.gpu.job(controller.signal, () => stream.block(0));
    controller.abort();
    await expect(cancelled).rejects.toMatchObject({ code: 'aborted' });
    arrive();
    expect((await stream.block(0)).tensor('modulation').shape).toEqual([1, 6, 256]);
  });

  it('goes on with its own blocks when nothing follows after all', async () => {
    using stream = await open(2);
    using weights = await Weights.upload(test.gpu, source);
    for (const index of [0, 1, 2, 3]) {
      if (index === 2) stream.followWith(filledSource({ fill_prefix: 'other.', tensors }));
      await stream.block(index);
    }
    stream.followWith(undefined);
    for (const index of [0, 1]) {
      const name = 'modulation';
      const bytes = await test.gpu.memory.read((await stream.block(index)).tensor(name));
      expect(bytes).toEqual(await test.gpu.memory.read(weights.at(`blocks.${index}.`).tensor(name)));
    }
  });

  it('reports a block that cannot be read, and tries again', async () => {
    let broken = true;
    const failing: TensorSource = {
      entries: source.entries,
      read(name) {
        if (broken && name.startsWith('blocks.1.ffn')) return Promise.reject(new Error('the disk is gone'));
        return source.read(name);
      },
    };
    const before = test.gpu.memory.liveBytes;
    const stream = await open(2, failing);
    await stream.block(0);
    await expect(stream.block(1)).rejects.toThrow('the disk is gone');
    broken = false;
    expect((await stream.block(1)).tensor('modulation').shape).toEqual([1, 6, 256]);
    stream[Symbol.dispose]();
    await expect.poll(() => test.gpu.memory.liveBytes).toBe(before);
  });

  it('frees what the next block in a slot has not', async () => {
    const before = test.gpu.memory.liveBytes;
    const extra = { name: 'blocks.1.extra', shape: [64], scale: 1, offset: 0 };
    const stream = await open(2, filledSource({ fill_prefix: '', tensors: [...tensors, extra] }));
    for (const index of [0, 1, 2, 3]) await stream.block(index);
    stream[Symbol.dispose]();
    await expect.poll(() => test.gpu.memory.liveBytes).toBe(before);
  });

  it('writes through few staging buffers, whatever the size', async () => {
    const { gpu } = test;
    using tensor = gpu.memory.tensor('target', 'uint8', [10_007]);
    using staging = new Staging(gpu, 1000, 3 * 1008);
    const bytes = Uint8Array.from({ length: 10_007 }, (_, i) => i * 7);
    await staging.write(tensor, new Uint8Array(10_007).fill(255));
    await staging.write(tensor, bytes);
    expect(await gpu.memory.read(tensor)).toEqual(bytes);
    expect(gpu.memory.stagingBytes).toBeLessThanOrEqual(3 * 1008);
    staging[Symbol.dispose]();
    expect(gpu.memory.stagingBytes).toBe(0);
    await expect(staging.write(tensor, bytes)).rejects.toMatchObject({ code: 'internal' });
  });

  it('adds at most 5 % where computing takes longer than reading', async () => {
    const { gpu } = test;
    const slowly: TensorSource = {
      entries: source.entries,
      async read(name) {
        if (name.endsWith('.modulation')) await new Promise((resolve) => setTimeout(resolve, 20)); // once a block
        return source.read(name);
      },
    };
    const stream = await open(2, slowly);
    // The slow kernel: 67 million multiply-adds, 0.1 s and more on a CPU.
    const shape = {
      type: 'f32',
      queries: 256,
      keys: 1024,
      heads: 1,
      qHeads: 1,
      headOffset: 0,
      lastKeyBias: 0,
    } as const;
    using q = gpu.memory.tensor('q', 'float32', [1, 256, 128]);
    using kv = gpu.memory.tensor('k', 'float32', [1, 1024, 128]);
    using out = gpu.memory.tensor('out', 'float32', [256, 128]);
    const pass = async () => {
      for (let index = 0; index < CONFIG.numLayers; index++) {
        await stream.block(index);
        await attention.run(gpu, { ...shape, queryBegin: 0, queryCount: 256 }, { q, k: kv, v: kv, out });
        await gpu.device.queue.onSubmittedWorkDone();
      }
    };
    await pass(); // the first block of all is waited for
    const before = stream.report();
    const began = performance.now();
    await pass();
    const ms = performance.now() - began;
    const { stallMs, uploadedBytes, blocks, ready } = stream.report();
    console.log(
      `A pass of ${ms.toFixed(0)} ms waited ${(stallMs - before.stallMs).toFixed(1)} ms for ${uploadedBytes - before.uploadedBytes} bytes of weights.`,
    );
    expect(stallMs - before.stallMs).toBeLessThan(0.05 * ms);
    expect([blocks - before.blocks, ready - before.ready]).toEqual([CONFIG.numLayers, CONFIG.numLayers]);
    stream[Symbol.dispose]();
  });

  it('refuses a single slot', async () => {
    await expect(open(1)).rejects.toMatchObject({ code: 'internal' });
  });
});
