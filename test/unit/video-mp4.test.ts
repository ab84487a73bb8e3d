import { readFileSync } from 'node:fs';
import { BufferSource, EncodedPacketSink, Input, MP4 } from 'mediabunny';
import { describe, expect, it } from 'vitest';
import { ZoetropeError } from '../../src/errors';
import type { I420Frame, VideoHost } from '../../src/video/encode';
import { encodeMp4, saveMp4 } from '../../src/video/file';
import { type EncoderSettings, encoderCandidates, timestampMicroseconds, type WriteMode } from '../../src/video/levels';
import { type ByteSink, createMp4Writer } from '../../src/video/mp4';
import { replayHost } from '../harness/replay';

interface Golden {
  framesPerSecond: number;
  width: number;
  height: number;
  decoderConfig: VideoDecoderConfig & { description: string; colorSpace: VideoColorSpaceInit };
  chunks: { type: 'key' | 'delta'; timestamp: number; data: string }[];
}
const golden: Golden = JSON.parse(readFileSync(new URL('../golden/avc-64x64.json', import.meta.url), 'utf8'));
const bytes = (base64: string) => new Uint8Array(Buffer.from(base64, 'base64'));
const decoderConfig = (): VideoDecoderConfig => ({
  ...golden.decoderConfig,
  description: bytes(golden.decoderConfig.description),
});

function settingsFor(framesPerSecond: number, codec = 'avc'): EncoderSettings {
  const { width, height } = golden;
  return encoderCandidates({ width, height, framesPerSecond, quality: 'low', writeMode: 'balanced' }).find(
    (candidate) => candidate.codec === codec,
  )!;
}

/** A canned chunk at the time that the rate gives it. Its duration is missing, as some encoders leave it. */
function chunk(index: number, framesPerSecond: number): EncodedVideoChunk {
  const { type, data } = golden.chunks[index]!;
  const contents = bytes(data);
  return {
    type,
    timestamp: timestampMicroseconds(index, framesPerSecond),
    duration: null,
    byteLength: contents.byteLength,
    copyTo: (destination: AllowSharedBufferSource) => (destination as Uint8Array).set(contents),
  };
}

function write(
  framesPerSecond: number,
  writeMode: WriteMode,
  config: VideoDecoderConfig = decoderConfig(),
): ArrayBuffer {
  const writer = createMp4Writer(settingsFor(framesPerSecond), writeMode);
  golden.chunks.forEach((_, index) => {
    writer.addChunk(chunk(index, framesPerSecond), index === 0 ? { decoderConfig: config } : {});
  });
  return writer.finalize();
}

/** What an independent demuxer reads. */
async function read(file: ArrayBuffer) {
  using input = new Input({ source: new BufferSource(file), formats: [MP4] });
  const track = (await input.getPrimaryVideoTrack())!;
  const packets = [];
  for await (const packet of new EncodedPacketSink(track).packets()) packets.push(packet);
  return {
    packets,
    codec: track.codec,
    size: [track.displayWidth, track.displayHeight],
    duration: await input.computeDuration(),
    config: (await track.getDecoderConfig())!,
    headerDuration: await input.getDurationFromMetadata(),
    tracks: (await input.getTracks()).length,
  };
}

/** Names of the top-level boxes, in order. */
function boxes(file: ArrayBuffer): string[] {
  const view = new DataView(file);
  const names: string[] = [];
  for (let at = 0; at < file.byteLength; ) {
    names.push(String.fromCharCode(...new Uint8Array(file, at + 4, 4)));
    const size = view.getUint32(at);
    at += size === 1 ? Number(view.getBigUint64(at + 8)) : size;
  }
  return names;
}

/** Primaries, transfer, matrix and full-range flag of the `colr` box. */
function colourBox(file: ArrayBuffer): number[] {
  const at = Buffer.from(file).indexOf('colrnclx') + 8;
  expect(at).toBeGreaterThan(8);
  const view = new DataView(file, at);
  return [view.getUint16(0), view.getUint16(2), view.getUint16(4), view.getUint8(6) >> 7];
}

describe('createMp4Writer', () => {
  it('writes a file from which an independent demuxer gets every chunk back', async () => {
    const { packets, codec, size, duration, headerDuration, config, tracks } = await read(write(16, 'balanced'));
    expect(tracks).toBe(1);
    expect(codec).toBe('avc');
    expect(size).toEqual([64, 64]);
    expect(packets).toHaveLength(17);
    expect(packets.map(({ data }) => Buffer.from(data).toString('base64'))).toEqual(golden.chunks.map((c) => c.data));
    expect(packets.map(({ type }) => type)).toEqual(golden.chunks.map((c) => c.type));
    expect(packets.map(({ timestamp }) => timestamp)).toEqual(golden.chunks.map((_, index) => index / 16));
    expect(duration).toBe(17 / 16);
    expect(headerDuration).toBe(17 / 16);
    expect(new Uint8Array(config.description as Uint8Array)).toEqual(bytes(golden.decoderConfig.description));
  });

  it('keeps exact frame times and the last frame’s length at rates that microseconds cannot hold', async () => {
    for (const fps of [4, 7, 30, 59, 60, 300]) {
      const { packets, duration } = await read(write(fps, 'balanced'));
      packets.forEach(({ timestamp, duration: length }, index) => {
        expect(timestamp, `${fps} fps`).toBeCloseTo(index / fps, 9);
        expect(length, `${fps} fps`).toBeCloseTo(1 / fps, 9);
      });
      expect(duration).toBeCloseTo(17 / fps, 9);
    }
  });

  it('falls back to fine ticks for a rate that is no whole number', async () => {
    const { packets, duration } = await read(write(23.976, 'balanced'));
    expect(packets).toHaveLength(17);
    expect(duration).toBeCloseTo(17 / 23.976, 4);
  });

  it('puts the index first, but last when fast', () => {
    expect(boxes(write(16, 'balanced'))).toEqual(['ftyp', 'moov', 'mdat']);
    expect(boxes(write(16, 'small'))).toEqual(['ftyp', 'moov', 'mdat']);
    expect(boxes(write(16, 'fast'))).toEqual(['ftyp', 'mdat', 'moov']);
  });

  it('reads back the same either way', async () => {
    const [first, last] = [await read(write(16, 'small')), await read(write(16, 'fast'))];
    expect(last.packets.map(({ data }) => data)).toEqual(first.packets.map(({ data }) => data));
    expect(last.duration).toBe(first.duration);
  });

  it('states BT.709 limited where the encoder says nothing or leaves gaps, else what the encoder says', () => {
    const limited = { primaries: 'bt709', transfer: 'bt709', matrix: 'bt709', fullRange: false };
    const { colorSpace: _, ...silent } = decoderConfig();
    const stated = (colorSpace: object | undefined) =>
      colourBox(write(16, 'balanced', { ...silent, ...(colorSpace ? { colorSpace } : {}) }));
    // Code points of ITU-T H.273: 1 is BT.709 for all three.
    expect(stated(undefined)).toEqual([1, 1, 1, 0]);
    expect(stated({ ...limited, transfer: null })).toEqual([1, 1, 1, 0]);
    expect(stated({ ...limited, fullRange: null })).toEqual([1, 1, 1, 0]);
    expect(stated({ ...limited, transfer: 'iec61966-2-1', fullRange: true })).toEqual([1, 13, 1, 1]);
  });

  it('gives a single frame its length', async () => {
    const writer = createMp4Writer(settingsFor(16), 'balanced');
    writer.addChunk(chunk(0, 16), { decoderConfig: decoderConfig() });
    const { duration, headerDuration } = await read(writer.finalize());
    expect(duration).toBe(1 / 16);
    expect(headerDuration).toBe(1 / 16);
  });

  it('refuses a first chunk that no decoder could start from', () => {
    const { description: _, ...bare } = decoderConfig();
    const first = (codec: string, metadata: EncodedVideoChunkMetadata | undefined) => () =>
      createMp4Writer(settingsFor(16, codec), 'balanced').addChunk(chunk(0, 16), metadata);
    const failed = expect.objectContaining({ code: 'encoding-failed' });
    expect(first('avc', undefined)).toThrowError(failed);
    expect(first('avc', {})).toThrowError(failed);
    expect(first('avc', { decoderConfig: bare })).toThrowError(/avcC/);
    expect(first('vp9', { decoderConfig: { codec: 'vp09.00.10.08' } })).not.toThrow();
  });

  it('refuses a file that does not start at zero, and one without chunks', () => {
    const writer = createMp4Writer(settingsFor(16), 'balanced');
    const failed = expect.objectContaining({ code: 'encoding-failed' });
    expect(() => writer.addChunk(chunk(8, 16), { decoderConfig: decoderConfig() })).toThrowError(failed);
    expect(() => createMp4Writer(settingsFor(16), 'balanced').finalize()).toThrowError(failed);
  });
});

/** As many pictures as there are canned chunks. */
async function* frames(): AsyncGenerator<I420Frame> {
  for (const _ of golden.chunks) yield { width: 64, height: 64, data: new Uint8Array((64 * 64 * 3) / 2) };
}

/** Three key frames. */
const options = (writeMode: WriteMode) => ({
  host: replayHost,
  settings: { ...settingsFor(16), keyFrameEvery: 8 },
  frameCount: 17,
  writeMode,
});

/** A file that keeps what it is given; `room` bytes of it. */
class FakeFile implements ByteSink {
  readonly bytes: number[] = [];
  readonly calls: string[] = [];
  constructor(private readonly room = Number.POSITIVE_INFINITY) {}
  async write(data: FileSystemWriteChunkType): Promise<void> {
    this.calls.push('write');
    const { data: part, position } = data instanceof ArrayBuffer ? { data, position: 0 } : (data as WriteParams);
    const bytes = new Uint8Array(part as ArrayBuffer);
    if (position! + bytes.length > this.room) throw new DOMException('No space left.', 'QuotaExceededError');
    bytes.forEach((byte, i) => {
      this.bytes[position! + i] = byte;
    });
  }
  async close(): Promise<void> {
    this.calls.push('close');
  }
  async abort(_reason?: unknown): Promise<void> {
    this.calls.push('abort');
  }
}

describe('encodeMp4', () => {
  it('says what is in the file it made', async () => {
    const progress: number[] = [];
    const video = await encodeMp4(frames(), options('balanced'), undefined, (encoded) => progress.push(encoded));
    expect(video).toMatchObject({
      codec: 'avc',
      codecString: golden.decoderConfig.codec,
      width: 64,
      height: 64,
      frames: 17,
      framesPerSecond: 16,
      durationSeconds: 17 / 16,
    });
    expect(progress.at(-1)).toBe(17);
    const settings = { ...options('balanced').settings };
    settings.config = { ...settings.config, codec: 'avc1.42e01f' };
    const { codecString } = await encodeMp4(frames(), { ...options('balanced'), settings });
    expect(codecString, 'what the encoder wrote, not what it was asked for').toBe(golden.decoderConfig.codec);
    const { packets, duration } = await read(video.data);
    expect(packets).toHaveLength(17);
    expect(duration).toBe(video.durationSeconds);
  });
});

describe('saveMp4', () => {
  it('writes fragments while frames come with fast, and the same chunks with every mode', async () => {
    const first = await read((await encodeMp4(frames(), options('balanced'))).data);
    for (const mode of ['fast', 'balanced', 'small'] as const) {
      const file = new FakeFile();
      const seen: number[] = [];
      const video = await saveMp4(frames(), options(mode), file, undefined, () => seen.push(file.bytes.length));
      const written = new Uint8Array(file.bytes).buffer;
      const fragmented = ['ftyp', 'moov', ...Array(3).fill(['moof', 'mdat']).flat(), 'mfra'];
      expect(boxes(written)).toEqual(mode === 'fast' ? fragmented : ['ftyp', 'moov', 'mdat']);
      expect(seen.at(-1)! > 0, 'written before the end').toBe(mode === 'fast');
      expect(file.calls.at(-1)).toBe('close');
      expect(video).toMatchObject({ frames: 17, framesPerSecond: 16, codecString: golden.decoderConfig.codec });
      const { packets } = await read(written);
      expect(packets.map(({ data, timestamp, type }) => [data, timestamp, type])).toEqual(
        first.packets.map(({ data, timestamp, type }) => [data, timestamp, type]),
      );
    }
  });

  it('gives the file up when the job is cancelled, the frames fail or the disk is full', async () => {
    const controller = new AbortController();
    const cancelled = new FakeFile();
    const cancelling = saveMp4(frames(), options('fast'), cancelled, controller.signal, () => controller.abort());
    await expect(cancelling).rejects.toMatchObject({ code: 'aborted' });
    async function* failing(): AsyncGenerator<I420Frame> {
      yield* [];
      throw new ZoetropeError('device-lost', 'Gone.');
    }
    const broken = new FakeFile();
    await expect(saveMp4(failing(), options('fast'), broken)).rejects.toMatchObject({ code: 'device-lost' });
    for (const mode of ['fast', 'small'] as const) {
      const full = new FakeFile(900);
      await expect(saveMp4(frames(), options(mode), full)).rejects.toMatchObject({ code: 'storage-full' });
      expect(full.calls.at(-1)).toBe('abort');
      expect(full.calls).not.toContain('close');
    }
    expect([cancelled.calls.at(-1), broken.calls.at(-1)]).toEqual(['abort', 'abort']);
  });

  it('encodes no frame before a slow disk has what came of those before, and closes the file behind the last byte', async () => {
    class SlowFile extends FakeFile {
      pending = 0;
      override async write(data: FileSystemWriteChunkType): Promise<void> {
        this.pending++;
        await new Promise((resolve) => setTimeout(resolve, 2));
        await super.write(data);
        this.pending--;
      }
      override async close(): Promise<void> {
        expect(this.pending).toBe(0);
        await super.close();
      }
    }
    const file = new SlowFile();
    const pending: number[] = [];
    const host = {
      ...replayHost,
      VideoFrame: class extends replayHost.VideoFrame {
        constructor(data: AllowSharedBufferSource, init: VideoFrameBufferInit) {
          super(data, init);
          pending.push(file.pending);
        }
      },
    } as unknown as VideoHost;
    await saveMp4(frames(), { ...options('fast'), host }, file);
    expect(pending).toEqual(Array(17).fill(0));
    expect(file.calls.at(-1)).toBe('close');
    expect((await read(new Uint8Array(file.bytes).buffer)).packets).toHaveLength(17);
  });

  it.each(['fast', 'small'] as const)('can be cancelled while the disk hangs, with %s', async (mode) => {
    const hangs = () => new Promise<never>(() => undefined);
    const controller = new AbortController();
    const file = new FakeFile();
    file.write = () => {
      controller.abort();
      return hangs();
    };
    const given: unknown[] = [];
    file.abort = (reason?: unknown) => {
      given.push(reason);
      return hangs();
    };
    const saving = saveMp4(frames(), options(mode), file, controller.signal);
    await expect(saving).rejects.toMatchObject({ code: 'aborted' });
    expect(given).toEqual([expect.objectContaining({ code: 'aborted' })]);
  });

  it('says what to do when the file fails, also when that shows at the end only', async () => {
    const fail = (name: string) => () => Promise.reject(new DOMException('Refused.', name));
    for (const [name, code] of [
      ['QuotaExceededError', 'storage-full'],
      ['NotAllowedError', 'storage-unavailable'],
    ] as const) {
      for (const part of ['write', 'close'] as const) {
        const file = new FakeFile();
        file[part] = fail(name);
        await expect(saveMp4(frames(), options('fast'), file), `${part}: ${name}`).rejects.toMatchObject({ code });
        expect(file.calls.at(-1)).toBe('abort');
      }
    }
  });
});
