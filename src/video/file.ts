/** Frames in, MP4 bytes out: the encoder and the writer put together. */
import { type EncodeOptions, encodeFrames, type I420Frame, type VideoHost } from './encode';
import type { EncoderSettings, VideoCodec, WriteMode } from './levels';
import { createMp4Writer } from './mp4';

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

/** A finished video and what is in it. */
export interface EncodedVideo {
  data: ArrayBuffer;
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
  { host, settings, frameCount, writeMode }: Mp4Options,
  signal?: AbortSignal,
  onProgress?: (encodedFrames: number) => void,
): Promise<EncodedVideo> {
  const { width, height, framerate } = settings.config;
  const writer = createMp4Writer(settings, writeMode);
  let codecString = settings.config.codec;
  const onChunk: EncodeOptions['onChunk'] = (chunk, metadata) => {
    codecString = metadata?.decoderConfig?.codec ?? codecString;
    writer.addChunk(chunk, metadata);
  };
  await encodeFrames(frames, { host, settings, frameCount, onChunk }, signal, onProgress);
  return {
    data: writer.finalize(),
    codec: settings.codec,
    codecString,
    width,
    height,
    frames: frameCount,
    framesPerSecond: framerate,
    durationSeconds: frameCount / framerate,
  };
}
