/** Encoded chunks into an MP4 file. The only file that knows mp4-muxer. */
import { ArrayBufferTarget, Muxer, StreamTarget } from 'mp4-muxer';
import { messageOf, ZoetropeError } from '../errors';
import { BT709_LIMITED } from './encode';
import { durationMicroseconds, type EncoderSettings, type WriteMode } from './levels';

/** Takes the chunks of one video track. */
interface ChunkWriter {
  /**
   * Chunks in the order of their timestamps, the first at 0 with `metadata.decoderConfig`. Throws `encoding-failed`.
   */
  addChunk(chunk: EncodedVideoChunk, metadata: EncodedVideoChunkMetadata | undefined): void;
}

/** Collects the track and gives the finished file. */
export interface Mp4Writer extends ChunkWriter {
  /** The file; the writer is used up. Throws `encoding-failed` if no chunk came. */
  finalize(): ArrayBuffer;
}

/** Writes the track while it comes. */
export interface Mp4Stream extends ChunkWriter {
  /** Resolves when all that is ready is with the sink. Rejects with what the sink's `write` rejected with. */
  written(): Promise<void>;
  /** Writes the rest; the sink stays open. Throws `encoding-failed` if no chunk came. */
  finalize(): Promise<void>;
}

/** Where a file's bytes go; a `FileSystemWritableFileStream` is one. */
export type ByteSink = Pick<FileSystemWritableFileStream, 'write' | 'close' | 'abort'>;

/**
 * A writer for the video that `settings` encodes. With write mode `fast` the index lies at the end of the file, which
 * saves a copy of the video; otherwise at its start, so that a player can begin before it has the whole file.
 */
export function createMp4Writer(settings: EncoderSettings, writeMode: WriteMode): Mp4Writer {
  const target = new ArrayBufferTarget();
  const track = startTrack(settings, target, writeMode === 'fast' ? false : 'in-memory');
  return {
    addChunk: track.addChunk,
    finalize() {
      track.finalize();
      return target.buffer;
    },
  };
}

/**
 * A writer that holds one fragment at a time, from a key frame to the next, and hands it to the sink when it is whole:
 * the video is never in memory, and what was written plays even if the end never comes.
 */
export function createMp4Stream(settings: EncoderSettings, sink: ByteSink): Mp4Stream {
  let last: Promise<void> = Promise.resolve();
  const target = new StreamTarget({
    onData(data, position) {
      last = last.then(() => sink.write({ type: 'write', data: data as Uint8Array<ArrayBuffer>, position }));
      last.catch(() => undefined); // whoever asks for `written` hears of it
    },
  });
  const track = startTrack(settings, target, 'fragmented');
  return {
    addChunk: track.addChunk,
    written: () => last,
    finalize() {
      track.finalize();
      return last;
    },
  };
}

/** A file of one track that mp4-muxer writes to `target`. */
function startTrack(
  { codec, config }: EncoderSettings,
  target: ArrayBufferTarget | StreamTarget,
  fastStart: false | 'in-memory' | 'fragmented',
): ChunkWriter & { finalize(): void } {
  const { width, height, framerate } = config;
  const muxer = new Muxer({
    target,
    // A time scale of one tick per frame makes the rate exact; mp4-muxer allows it for whole numbers.
    video: { codec, width, height, ...(Number.isInteger(framerate) ? { frameRate: framerate } : {}) },
    fastStart,
    // Every key frame begins a fragment: mp4-muxer 5.2.2 forgets the flag of a second one in the same fragment.
    minFragmentDuration: 0,
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
 * The decoder configuration with a complete colour space: the encoder's where it states all of it, else the frames'
 * own. mp4-muxer needs one for VP9 and writes a broken box for one with gaps.
 */
function withColour(metadata: EncodedVideoChunkMetadata | undefined): EncodedVideoChunkMetadata {
  const decoderConfig = metadata!.decoderConfig!;
  const { primaries, transfer, matrix, fullRange } = decoderConfig.colorSpace ?? {};
  const complete = primaries && transfer && matrix && fullRange !== null && fullRange !== undefined;
  const colorSpace = complete ? { primaries, transfer, matrix, fullRange } : BT709_LIMITED;
  return { decoderConfig: { ...decoderConfig, colorSpace } };
}
