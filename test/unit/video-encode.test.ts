import { describe, expect, it } from 'vitest';
import { chooseEncoder, encodeFrames, type I420Frame, i420Bytes, type VideoHost } from '../../src/video/encode';
import { type EncoderSettings, encoderCandidates } from '../../src/video/levels';

const WIDTH = 32;
const HEIGHT = 48;
const [settings, ...others] = encoderCandidates({
  width: WIDTH,
  height: HEIGHT,
  framesPerSecond: 30,
  quality: 'high',
  writeMode: 'balanced',
}) as [EncoderSettings, ...EncoderSettings[]];

/** How a fake encoder behaves; the default is a good one. */
interface Behaviour {
  /** Answer of `isConfigSupported`; may throw. */
  supports?: (codec: string) => boolean;
  /** Codecs whose encoder reports an error at this frame. */
  failAt?: { frame: number; codecs?: string[] };
  /** What that error does first: `encode` throws, or `flush` rejects, before the error callback runs. */
  failsFirst?: 'encode' | 'flush';
  /** Frame that gives no chunk. */
  drop?: number;
  /** Chunks of these two neighbours change places. */
  swap?: [number, number];
  /** Whether the `dequeue` event exists. */
  dequeueEvent?: boolean;
  /** Never takes a frame from the queue; the encoders of these codecs, or all. */
  stuck?: boolean | string[];
  /** First chunk comes without decoder configuration or without description. */
  lacks?: 'decoderConfig' | 'description';
  /** `configure` throws. */
  badConfig?: boolean;
}

interface Log {
  frames: { init: VideoFrameBufferInit; firstByte: number; closed: boolean }[];
  keyFrames: boolean[];
  maxQueue: number;
  encoders: { state: CodecState }[];
}

/** WebCodecs without a codec: chunks carry the number of their frame. */
function fakeHost(behaviour: Behaviour = {}): { host: VideoHost; log: Log } {
  const log: Log = { frames: [], keyFrames: [], maxQueue: 0, encoders: [] };

  class FakeFrame {
    readonly entry: Log['frames'][number];
    readonly timestamp: number;
    constructor(data: Uint8Array, init: VideoFrameBufferInit) {
      this.entry = { init, firstByte: data[0]!, closed: false };
      this.timestamp = init.timestamp;
      log.frames.push(this.entry);
    }
    close(): void {
      this.entry.closed = true;
    }
  }

  class FakeEncoder extends EventTarget {
    static async isConfigSupported(config: VideoEncoderConfig) {
      return { config, supported: behaviour.supports?.(config.codec) ?? true };
    }
    state: CodecState = 'unconfigured';
    encodeQueueSize = 0;
    private codec = '';
    private count = 0;
    private emitted = 0;
    private held: { timestamp: number; index: number } | undefined;
    private work: Promise<void> = Promise.resolve();

    constructor(private readonly init: VideoEncoderInit) {
      super();
      log.encoders.push(this);
    }
    configure(config: VideoEncoderConfig): void {
      if (behaviour.badConfig) throw new TypeError('bad config');
      this.state = 'configured';
      this.codec = config.codec;
    }
    private fails(): boolean {
      const { frame, codecs } = behaviour.failAt ?? {};
      return frame === this.count && (codecs?.includes(this.codec) ?? true);
    }
    private stuck(): boolean {
      return behaviour.stuck === true || (behaviour.stuck || []).includes(this.codec);
    }
    private die(): void {
      this.state = 'closed';
      this.encodeQueueSize = 0;
      this.init.error(new DOMException('out of macroblocks', 'EncodingError'));
    }
    encode(frame: FakeFrame, { keyFrame }: { keyFrame: boolean }): void {
      if (this.state !== 'configured') throw new DOMException('closed codec', 'InvalidStateError');
      if (frame.entry.closed) throw new TypeError('closed frame');
      if (this.fails() && behaviour.failsFirst === 'encode') {
        setTimeout(() => this.die());
        throw new DOMException('closed codec', 'InvalidStateError');
      }
      const failing = this.fails();
      const index = this.count++;
      log.keyFrames.push(keyFrame);
      log.maxQueue = Math.max(log.maxQueue, ++this.encodeQueueSize);
      if (this.stuck()) return;
      this.work = this.work.then(async () => {
        await new Promise((resolve) => setTimeout(resolve, 1));
        if (this.state !== 'configured') return;
        if (failing && behaviour.failsFirst !== 'flush') return this.die();
        this.encodeQueueSize--;
        if (behaviour.dequeueEvent !== false) this.dispatchEvent(new Event('dequeue'));
        if (index !== behaviour.drop) this.emit({ timestamp: frame.timestamp, index });
      });
    }
    private emit(chunk: { timestamp: number; index: number }): void {
      if (chunk.index === behaviour.swap?.[0]) {
        this.held = chunk;
        return;
      }
      const description = behaviour.lacks === 'description' ? {} : { description: new Uint8Array([1, 100, 0, 30]) };
      const metadata =
        this.emitted++ === 0 && behaviour.lacks !== 'decoderConfig'
          ? { decoderConfig: { codec: this.codec, ...description } }
          : {};
      this.init.output({ timestamp: chunk.timestamp, index: chunk.index } as unknown as EncodedVideoChunk, metadata);
      if (chunk.index === behaviour.swap?.[1] && this.held) {
        this.init.output(this.held as unknown as EncodedVideoChunk, {});
      }
    }
    async flush(): Promise<void> {
      if (this.stuck()) return new Promise(() => {});
      await this.work;
      if (behaviour.failsFirst === 'flush') {
        setTimeout(() => this.die());
        throw new DOMException('aborted', 'AbortError');
      }
      if (this.state !== 'configured') throw new DOMException('closed codec', 'InvalidStateError');
    }
    close(): void {
      this.state = 'closed';
    }
  }
  const host = { VideoEncoder: FakeEncoder, VideoFrame: FakeFrame } as unknown as VideoHost;
  return { host, log };
}

/** Frames whose bytes are their number; says how far it was read and whether it was ended. */
function source(count: number, size: { width: number; height: number } = { width: WIDTH, height: HEIGHT }) {
  const state = { read: 0, ended: false };
  async function* frames(): AsyncGenerator<I420Frame> {
    try {
      for (let index = 0; index < count; index++) {
        state.read++;
        yield { ...size, data: new Uint8Array(i420Bytes(size.width, size.height)).fill(index) };
      }
    } finally {
      state.ended = true;
    }
  }
  return { frames: frames(), state };
}

async function run(behaviour: Behaviour, count: number, signal?: AbortSignal, frameCount = count) {
  const { host, log } = fakeHost(behaviour);
  const { frames, state } = source(count);
  const chunks: number[] = [];
  const progress: number[] = [];
  const onChunk = (chunk: EncodedVideoChunk) => chunks.push((chunk as unknown as { index: number }).index);
  const outcome = encodeFrames(frames, { host, settings, frameCount, onChunk }, signal, (done) => progress.push(done));
  const error = await outcome.then(
    () => undefined,
    (reason: unknown) => reason as Error & { code: string },
  );
  expect(log.frames.every(({ closed }) => closed)).toBe(true);
  expect(log.encoders.every((encoder) => encoder.state === 'closed')).toBe(true);
  expect(state.ended || state.read === 0).toBe(true);
  return { error, log, chunks, progress, read: state.read };
}
const upTo = (count: number) => Array.from({ length: count }, (_, index) => index);

describe('encodeFrames', () => {
  it('passes every frame on, in order, with its time and colour, and closes it', async () => {
    const { error, log, chunks, progress } = await run({}, 7);
    expect(error).toBeUndefined();
    expect(chunks).toEqual(upTo(7));
    expect(progress).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(log.frames.map(({ firstByte }) => firstByte)).toEqual(upTo(7));
    expect(log.frames.map(({ init }) => [init.timestamp, init.duration])).toEqual(
      [0, 33333, 66667, 100000, 133333, 166667, 200000].map((time, index) => [time, index % 3 === 1 ? 33334 : 33333]),
    );
    expect(log.frames[0]!.init).toMatchObject({
      format: 'I420',
      codedWidth: WIDTH,
      codedHeight: HEIGHT,
      colorSpace: { primaries: 'bt709', transfer: 'bt709', matrix: 'bt709', fullRange: false },
    });
  });

  it('works without a progress callback', async () => {
    const { host } = fakeHost();
    await encodeFrames(source(3).frames, { host, settings, frameCount: 3, onChunk: () => {} });
  });

  it('asks for a key frame first and then at the given distance', async () => {
    const { log } = await run({}, settings.keyFrameEvery * 2 + 1);
    const keys = log.keyFrames.flatMap((key, index) => (key ? [index] : []));
    expect(keys).toEqual([0, settings.keyFrameEvery, settings.keyFrameEvery * 2]);
  });

  it('lets at most four frames wait, with the dequeue event and without', async () => {
    for (const dequeueEvent of [true, false]) {
      const { error, log, chunks } = await run({ dequeueEvent }, 20);
      expect(error).toBeUndefined();
      expect(chunks).toHaveLength(20);
      expect(log.maxQueue).toBe(4);
    }
  });

  it('surfaces the error callback, whatever else the dead encoder throws first', async () => {
    for (const failsFirst of ['encode', 'flush', undefined] as const) {
      const { error } = await run({ failAt: { frame: 9 }, ...(failsFirst ? { failsFirst } : {}) }, 12);
      expect(error, failsFirst).toMatchObject({ code: 'encoding-failed' });
      expect(error!.message, failsFirst).toContain('out of macroblocks');
      expect(error!.message, failsFirst).toContain(settings.config.codec);
    }
  });

  it('stops reading frames when the encoder dies', async () => {
    const { read } = await run({ failAt: { frame: 2 } }, 100);
    expect(read).toBeLessThan(12);
  });

  it('refuses a dropped frame', async () => {
    for (const drop of [0, 3, 6]) {
      const { error } = await run({ drop }, 7);
      expect(error).toMatchObject({
        code: 'encoding-failed',
        message: expect.stringContaining('6 chunks for 7 frames'),
      });
    }
  });

  it('refuses chunks out of order', async () => {
    const { error, chunks } = await run({ swap: [2, 3] }, 7);
    expect(error).toMatchObject({ code: 'encoding-failed', message: expect.stringContaining('out of order') });
    expect(chunks).toEqual([0, 1, 3]);
  });

  it('refuses more or fewer frames than promised', async () => {
    for (const promised of [4, 6]) {
      const { error } = await run({}, 5, undefined, promised);
      expect(error).toMatchObject({ code: 'internal', message: expect.stringContaining(`promised ${promised}`) });
    }
  });

  it('refuses frames of another size or with missing bytes', async () => {
    const { host } = fakeHost();
    const options = { host, settings, frameCount: 1, onChunk: () => {} };
    for (const size of [
      { width: HEIGHT, height: WIDTH },
      { width: WIDTH, height: HEIGHT + 16 },
    ]) {
      const outcome = encodeFrames(source(1, size).frames, options);
      await expect(outcome).rejects.toMatchObject({ code: 'internal', message: expect.stringContaining('32×48') });
    }
    async function* short(): AsyncGenerator<I420Frame> {
      yield { width: WIDTH, height: HEIGHT, data: new Uint8Array(WIDTH * HEIGHT) };
    }
    await expect(encodeFrames(short(), options)).rejects.toMatchObject({ code: 'internal' });
  });

  it('passes on errors of the frames and of the chunk callback', async () => {
    const { host, log } = fakeHost();
    async function* broken(): AsyncGenerator<I420Frame> {
      yield* source(2).frames;
      throw broke;
    }
    const broke = new Error('decoder fell over');
    const full = new Error('disk full');
    const options = { host, settings, frameCount: 9, onChunk: () => {} };
    await expect(encodeFrames(broken(), options)).rejects.toBe(broke);
    const onChunk = () => {
      throw full;
    };
    await expect(encodeFrames(source(9).frames, { ...options, onChunk })).rejects.toBe(full);
    expect(log.encoders.map(({ state }) => state)).toEqual(['closed', 'closed']);
  });

  it('passes on an error of the very last chunk', async () => {
    const { host } = fakeHost();
    const full = new Error('disk full');
    const onChunk = (chunk: EncodedVideoChunk) => {
      if ((chunk as unknown as { index: number }).index === 2) throw full;
    };
    await expect(encodeFrames(source(3).frames, { host, settings, frameCount: 3, onChunk })).rejects.toBe(full);
  });

  it('encodes no frame that comes after an abort', async () => {
    const { host, log } = fakeHost();
    const controller = new AbortController();
    async function* frames(): AsyncGenerator<I420Frame> {
      yield* source(2).frames;
      controller.abort();
      yield* source(7).frames;
    }
    const options = { host, settings, frameCount: 9, onChunk: () => {} };
    await expect(encodeFrames(frames(), options, controller.signal)).rejects.toMatchObject({ code: 'aborted' });
    expect(log.frames).toHaveLength(2);
  });

  it('types what configure throws', async () => {
    const { error } = await run({ badConfig: true }, 3);
    expect(error).toMatchObject({ code: 'encoding-failed', message: expect.stringContaining('bad config') });
  });

  it('stops at an abort before, between and after the frames', async () => {
    const before = await run({}, 5, AbortSignal.abort('early'));
    expect(before.error).toMatchObject({ code: 'aborted', cause: 'early' });
    expect(before.log.encoders).toHaveLength(0);

    const controller = new AbortController();
    setTimeout(() => controller.abort('late'), 10);
    const waiting = await run({ stuck: true }, 20, controller.signal);
    expect(waiting.error).toMatchObject({ code: 'aborted', cause: 'late' });
    expect(waiting.read).toBe(4);

    const flushing = new AbortController();
    setTimeout(() => flushing.abort('last'), 10);
    expect((await run({ stuck: true }, 3, flushing.signal)).error).toMatchObject({ code: 'aborted' });
  });
});

describe('chooseEncoder', () => {
  const candidates = [settings, ...others];
  const choose = (behaviour: Behaviour, signal?: AbortSignal) =>
    chooseEncoder(fakeHost(behaviour).host, candidates, signal);

  it('takes the first candidate that encodes a frame', async () => {
    expect(await choose({})).toBe(settings);
    expect(await choose({ supports: (codec) => codec.startsWith('vp09') })).toMatchObject({ codec: 'vp9' });
    expect(await choose({ failAt: { frame: 0, codecs: [settings.config.codec] } })).toBe(others[0]);
  });

  it('passes over an encoder that takes the frame and never answers', async () => {
    const { host, log } = fakeHost({ stuck: [settings.config.codec] });
    expect(await chooseEncoder(host, candidates, new AbortController().signal, 10)).toBe(others[0]);
    expect(log.encoders.map(({ state }) => state)).toEqual(['closed', 'closed']);
    const none = chooseEncoder(fakeHost({ stuck: true }).host, candidates, undefined, 10);
    await expect(none).rejects.toThrowError(/gave no frame within 0\.01 s/);
  });

  it('takes an exception of isConfigSupported for a no', async () => {
    const supports = (codec: string) => {
      if (codec.startsWith('avc1')) throw new TypeError('not on this phone');
      return true;
    };
    expect(await choose({ supports })).toMatchObject({ codec: 'vp9' });
  });

  it('closes every trial encoder', async () => {
    const { host, log } = fakeHost({ failAt: { frame: 0, codecs: [settings.config.codec] } });
    await chooseEncoder(host, candidates);
    expect(log.encoders.map(({ state }) => state)).toEqual(['closed', 'closed']);
  });

  it('passes over encoders whose output no player could read', async () => {
    await expect(choose({ lacks: 'decoderConfig' })).rejects.toThrowError(/gave no decoder configuration/);
    expect(await choose({ lacks: 'description' })).toMatchObject({ codec: 'vp9' });
  });

  it('lists what was tried when nothing works', async () => {
    const outcome = choose({ supports: () => false });
    await expect(outcome).rejects.toMatchObject({ code: 'unsupported-codec' });
    const { message } = (await outcome.catch((error: unknown) => error)) as Error;
    for (const { config } of candidates) expect(message).toContain(`${config.codec} (no-preference): not supported`);
    expect(message).toContain('32×48 at 30');
    await expect(choose({ failAt: { frame: 0 } })).rejects.toThrowError(/out of macroblocks/);
  });

  it('names a browser without VideoEncoder as what it is', async () => {
    await expect(chooseEncoder({} as VideoHost, candidates)).rejects.toMatchObject({
      code: 'unsupported-codec',
      message: expect.stringContaining('no VideoEncoder'),
    });
  });

  it('stops at an abort instead of trying the next', async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 10);
    await expect(choose({ stuck: true }, controller.signal)).rejects.toMatchObject({ code: 'aborted' });
    await expect(choose({}, AbortSignal.abort())).rejects.toMatchObject({ code: 'aborted' });
  });
});
