/** Frames in, MP4 out: the encoder and the writer put together. */
import { messageOf, unlessAborted, ZoetropeError } from '../errors';
import { type EncodeOptions, encodeFrames, type I420Frame, type VideoHost } from './encode';
import type { EncoderSettings, VideoCodec, WriteMode } from './levels';
import { type ByteSink, createMp4Stream, createMp4Writer, type Mp4Stream, type Mp4Writer } from './mp4';

/** Media type of every file that {@link encodeMp4} makes. */
export const MP4_CONTENT_TYPE = 'video/mp4';

export interface Mp4Options {
  host: VideoHost;
  /** From `chooseEncoder`, best before the generation begins, so that a browser without a codec costs no waiting. */
  settings: EncoderSettings;
  /** Frames that will come. */
  frameCount: number;
  writeMode: WriteMode;
}

/** What is in a finished video. */
export interface EncodedVideo {
  codec: VideoCodec;
  /** As the encoder reports it, e.g. `avc1.64001f`; its level may differ from the one asked for. */
  codecString: string;
  width: number;
  height: number;
  frames: number;
  framesPerSecond: number;
  durationSeconds: number;
}

/**
 * Encodes `frames` as they come and returns the file. Throws what {@link encodeFrames} throws.
 * `onProgress` gets the number of encoded frames.
 */
export async function encodeMp4(
  frames: AsyncIterable<I420Frame>,
  options: Mp4Options,
  signal?: AbortSignal,
  onProgress?: (encodedFrames: number) => void,
): Promise<EncodedVideo & { data: ArrayBuffer }> {
  const writer = createMp4Writer(options.settings, options.writeMode);
  const video = await encodeInto(writer, frames, options, signal, onProgress);
  return { ...video, data: writer.finalize() };
}

/**
 * Encodes `frames` into a file of the caller's. With write mode `fast` it is a fragmented MP4, written while frames
 * come; the index of the others is known at the end only, so they are written then. The file is closed at the end, and
 * given up where that is not reached, so that what the file held before stays. Throws what {@link encodeFrames} throws,
 * and `storage-full` or `storage-unavailable` where the sink fails.
 */
export async function saveMp4(
  frames: AsyncIterable<I420Frame>,
  options: Mp4Options,
  file: ByteSink,
  signal?: AbortSignal,
  onProgress?: (encodedFrames: number) => void,
): Promise<EncodedVideo> {
  const sink = explained(file);
  try {
    const { settings, writeMode } = options;
    let video: EncodedVideo;
    if (writeMode === 'fast') {
      const stream = createMp4Stream(settings, sink);
      video = await encodeInto(stream, frames, options, signal, onProgress);
      await unlessAborted(stream.finalize(), signal);
    } else {
      const { data, ...made } = await encodeMp4(frames, options, signal, onProgress);
      await unlessAborted(sink.write(data), signal);
      video = made;
    }
    await sink.close();
    return video;
  } catch (error) {
    const givenUp = sink.abort(error).catch(() => undefined); // it may be what has failed
    if (!signal?.aborted) await givenUp; // A disk that hangs keeps nobody who has cancelled.
    throw error;
  }
}

async function encodeInto(
  writer: Mp4Writer | Mp4Stream,
  frames: AsyncIterable<I420Frame>,
  { host, settings, frameCount }: Mp4Options,
  signal: AbortSignal | undefined,
  onProgress: ((encodedFrames: number) => void) | undefined,
): Promise<EncodedVideo> {
  const { width, height, framerate } = settings.config;
  let codecString = settings.config.codec;
  const onChunk: EncodeOptions['onChunk'] = (chunk, metadata) => {
    codecString = metadata?.decoderConfig?.codec ?? codecString;
    writer.addChunk(chunk, metadata);
  };
  const paced = 'written' in writer ? pace(frames, writer, signal) : frames;
  await encodeFrames(paced, { host, settings, frameCount, onChunk }, signal, onProgress);
  return {
    codec: settings.codec,
    codecString,
    width,
    height,
    frames: frameCount,
    framesPerSecond: framerate,
    durationSeconds: frameCount / framerate,
  };
}

/** The frames, none before the disk has what came of those before. */
async function* pace(
  frames: AsyncIterable<I420Frame>,
  stream: Mp4Stream,
  signal: AbortSignal | undefined,
): AsyncGenerator<I420Frame> {
  for await (const frame of frames) {
    await unlessAborted(stream.written(), signal);
    yield frame;
  }
}

/** The sink with reasons that say what to do. */
function explained(sink: ByteSink): ByteSink {
  const explain = (cause: unknown): never => {
    const full = cause instanceof DOMException && cause.name === 'QuotaExceededError';
    const remedy = full ? 'Make room on the disk' : 'Choose another file';
    throw new ZoetropeError(
      full ? 'storage-full' : 'storage-unavailable',
      `The video could not be written to its file: ${messageOf(cause)}. ${remedy} and ask again.`,
      { cause },
    );
  };
  return {
    write: (data) => sink.write(data).catch(explain),
    close: () => sink.close().catch(explain),
    abort: (reason) => sink.abort(reason),
  };
}
