/** Encoded chunks into an MP4 file. The only file that knows mp4-muxer. */
import { ArrayBufferTarget, Muxer } from 'mp4-muxer';
import { messageOf, ZoetropeError } from '../errors';
import { BT709_LIMITED } from './encode';
import { durationMicroseconds, type EncoderSettings, type WriteMode } from './levels';

/** Collects one video track and gives the finished file. */
export interface Mp4Writer {
  /** Chunks in the order of their timestamps, the first at 0 with `metadata.decoderConfig`. Throws `encoding-failed`. */
  addChunk(chunk: EncodedVideoChunk, metadata: EncodedVideoChunkMetadata | undefined): void;
  /** The file; the writer is used up. Throws `encoding-failed` if no chunk came. */
  finalize(): ArrayBuffer;
}

/**
 * A writer for the video that `settings` encodes. With write mode `fast` the index lies at the end of the file, which
 * saves a copy of the video; otherwise at its start, so that a player can begin before it has the whole file.
 */
export function createMp4Writer({ codec, config }: EncoderSettings, writeMode: WriteMode): Mp4Writer {
  const { width, height, framerate } = config;
  const target = new ArrayBufferTarget();
  const muxer = new Muxer({
    target,
    // A time scale of one tick per frame makes the rate exact; mp4-muxer allows it for whole numbers.
    video: { codec, width, height, ...(Number.isInteger(framerate) ? { frameRate: framerate } : {}) },
    fastStart: writeMode === 'fast' ? false : 'in-memory',
  });
  let chunks = 0;
  return {
    addChunk(chunk, metadata) {
      const first = chunks === 0;
      if (first) checkDecoderConfig(metadata?.decoderConfig, codec);
      const data = new Uint8Array(chunk.byteLength);
      chunk.copyTo(data);
      // Not chunk.duration, which encoders may leave out: the last frame would then last no time at all.
      const duration = durationMicroseconds(chunks++, framerate);
      try {
        muxer.addVideoChunkRaw(data, chunk.type, chunk.timestamp, duration, first ? withColour(metadata) : undefined);
      } catch (error) {
        throw new ZoetropeError('encoding-failed', `The MP4 writer refused a chunk: ${messageOf(error)}`, {
          cause: error,
        });
      }
    },
    finalize() {
      if (chunks === 0) throw new ZoetropeError('encoding-failed', 'The encoder gave no chunk, so there is no video.');
      muxer.finalize();
      return target.buffer;
    },
  };
}

function checkDecoderConfig(decoderConfig: VideoDecoderConfig | undefined, codec: EncoderSettings['codec']): void {
  if (decoderConfig && (codec !== 'avc' || decoderConfig.description)) return;
  const what = decoderConfig ? 'no avcC description' : 'no decoder configuration';
  throw new ZoetropeError(
    'encoding-failed',
    `The encoder gave ${what} with its first chunk, without which no player can decode the file. Try another browser.`,
  );
}

/**
 * The decoder configuration with a complete colour space: the encoder's where it states all of it, else the frames' own.
 * mp4-muxer needs one for VP9 and writes a broken box for one with gaps.
 */
function withColour(metadata: EncodedVideoChunkMetadata | undefined): EncodedVideoChunkMetadata {
  const decoderConfig = metadata!.decoderConfig!;
  const { primaries, transfer, matrix, fullRange } = decoderConfig.colorSpace ?? {};
  const complete = primaries && transfer && matrix && fullRange !== null && fullRange !== undefined;
  const colorSpace = complete ? { primaries, transfer, matrix, fullRange } : BT709_LIMITED;
  return { decoderConfig: { ...decoderConfig, colorSpace } };
}
