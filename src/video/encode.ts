/** I420 frames through WebCodecs: choosing an encoder that really works, and running it with back-pressure. */
import { messageOf, throwIfAborted, unlessAborted, ZoetropeError } from '../errors';
import { durationMicroseconds, type EncoderSettings, timestampMicroseconds } from './levels';

/** The WebCodecs constructors: `globalThis` in a browser, fakes in tests. */
export interface VideoHost {
  VideoEncoder: typeof VideoEncoder;
  VideoFrame: typeof VideoFrame;
}

/** One picture in 4:2:0, BT.709 limited range. */
export interface I420Frame {
  /**
   * The y plane [height, width], then u and v [height / 2, width / 2], without gaps. Read before the next frame is
   * taken.
   */
  data: Uint8Array;
  width: number;
  height: number;
}

export interface EncodeOptions {
  host: VideoHost;
  settings: EncoderSettings;
  /** Frames that will come; anything else is an error. */
  frameCount: number;
  /** Takes each chunk in the order of its timestamp; the first brings `metadata.decoderConfig`. */
  onChunk: (chunk: EncodedVideoChunk, metadata: EncodedVideoChunkMetadata | undefined) => void;
}

/** How the frames' colours are to be read: what `i420.ts` converts to, and what nearly every SDR video uses. */
export const BT709_LIMITED = {
  primaries: 'bt709',
  transfer: 'bt709',
  matrix: 'bt709',
  fullRange: false,
} as const satisfies VideoColorSpaceInit;

/** Frames that may wait inside the encoder; more only hold memory (1.4 MB each at 720p). */
const MAX_QUEUED_FRAMES = 4;

/** Longest wait before the queue is looked at again, for encoders without the `dequeue` event (Chrome before 106). */
const QUEUE_POLL_MS = 50;

/** Longest wait for the trial frame: an encoder that takes it and never answers must not hide those behind it. */
const TRIAL_MS = 20_000;

/** Bytes of an I420 picture with even sides. */
export function i420Bytes(width: number, height: number): number {
  return (width * height * 3) / 2;
}

/**
 * The first of `candidates` that encodes a trial frame. `isConfigSupported` alone is no proof: Firefox may accept a
 * configuration that then fails, Safari has thrown for ones it does not know.
 * @param trialMs that an encoder has for it. Default 20 seconds.
 * Throws `unsupported-codec` with the reason for each candidate, or `aborted`.
 */
export async function chooseEncoder(
  host: VideoHost,
  candidates: readonly EncoderSettings[],
  signal?: AbortSignal,
  trialMs = TRIAL_MS,
): Promise<EncoderSettings> {
  if (typeof host.VideoEncoder !== 'function' || typeof host.VideoFrame !== 'function') {
    throw new ZoetropeError(
      'unsupported-codec',
      'This browser has no VideoEncoder. Use Chrome or Edge, Safari 16.4 or newer, or Firefox on a desktop, ' +
        'and open the page over https or from localhost.',
    );
  }
  const tried: string[] = [];
  for (const settings of candidates) {
    throwIfAborted(signal);
    const reason = await refusal(host, settings, signal, trialMs);
    if (reason === undefined) return settings;
    tried.push(`${settings.config.codec} (${settings.config.hardwareAcceleration}): ${reason}`);
  }
  const { width, height, framerate } = candidates[0]?.config ?? {};
  throw new ZoetropeError(
    'unsupported-codec',
    `No video encoder of this browser takes ${width}×${height} at ${framerate} frames per second. ` +
      `Tried ${tried.join('; ')}. Choose a smaller size or fewer frames per second, or another browser.`,
  );
}

/** Why the host cannot encode with these settings, or undefined if it can. */
async function refusal(
  host: VideoHost,
  settings: EncoderSettings,
  signal: AbortSignal | undefined,
  trialMs: number,
): Promise<string | undefined> {
  const late = AbortSignal.timeout(trialMs);
  const ended = signal ? AbortSignal.any([signal, late]) : late;
  try {
    const { supported } = await unlessAborted(host.VideoEncoder.isConfigSupported(settings.config), ended);
    if (!supported) return 'not supported';
    let decoderConfig: VideoDecoderConfig | undefined;
    const onChunk: EncodeOptions['onChunk'] = (_chunk, metadata) => {
      decoderConfig = metadata?.decoderConfig;
    };
    await encodeFrames(trialFrame(settings.config), { host, settings, frameCount: 1, onChunk }, ended);
    if (!decoderConfig) return 'gave no decoder configuration';
    if (settings.codec === 'avc' && !decoderConfig.description) return 'gave no avcC description';
    return undefined;
  } catch (error) {
    throwIfAborted(signal);
    return late.aborted ? `gave no frame within ${trialMs / 1000} s` : messageOf(error);
  }
}

async function* trialFrame({ width, height }: VideoEncoderConfig): AsyncGenerator<I420Frame> {
  yield { data: new Uint8Array(i420Bytes(width, height)).fill(128), width, height };
}

/**
 * Encodes the frames and hands each chunk to `onChunk`. Holds at most a few frames at a time; `onProgress` gets the
 * number of encoded frames. Closes the encoder and ends `frames`, also on errors.
 * Throws `encoding-failed` if the encoder fails, drops or reorders frames, `aborted` when the signal fires, `internal`
 * if the frames have the wrong size or number; errors of `frames` and `onChunk` pass through.
 */
export async function encodeFrames(
  frames: AsyncIterable<I420Frame>,
  options: EncodeOptions,
  signal?: AbortSignal,
  onProgress?: (encodedFrames: number) => void,
): Promise<void> {
  const { host, settings, frameCount, onChunk } = options;
  const { config, keyFrameEvery } = settings;
  throwIfAborted(signal);

  let failure: unknown;
  let rejectStopped: (reason: unknown) => void = () => {};
  const stopped = new Promise<never>((_, reject) => {
    rejectStopped = reject;
  });
  stopped.catch(() => {}); // raced against below; not every run waits
  const stop = (reason: unknown) => {
    failure ??= reason;
    rejectStopped(failure);
  };
  const onAbort = () => stop(new ZoetropeError('aborted', 'The encoding was cancelled.', { cause: signal?.reason }));

  let chunks = 0;
  let lastTimestamp = -1;
  const encoder = new host.VideoEncoder({
    // An exception that leaves this callback would reach the worker's global error handler instead of the caller.
    output(chunk, metadata) {
      if (failure) return;
      try {
        if (chunk.timestamp <= lastTimestamp) {
          throw encodingFailed(settings, `put ${chunk.timestamp} µs after ${lastTimestamp} µs, out of order`);
        }
        lastTimestamp = chunk.timestamp;
        onChunk(chunk, metadata);
        chunks++;
        onProgress?.(chunks);
      } catch (error) {
        stop(error);
      }
    },
    error: (error) => stop(encodingFailed(settings, `reported "${error.message}"`, error)),
  });
  signal?.addEventListener('abort', onAbort);
  // A closed encoder rejects flush() and throws from encode(); the error callback, which knows why, may come after.
  const attempt = async (call: () => unknown) => {
    try {
      await call();
    } catch (error) {
      await new Promise((resolve) => setTimeout(resolve));
      throw failure ?? encodingFailed(settings, `threw "${messageOf(error)}"`, error);
    }
  };

  try {
    await attempt(() => encoder.configure(config));
    let index = 0;
    for await (const frame of frames) {
      if (failure) throw failure;
      checkFrame(frame, config, index, frameCount);
      await attempt(() => encodeFrame(host, encoder, frame, index, config.framerate, index % keyFrameEvery === 0));
      index++;
      while (encoder.encodeQueueSize >= MAX_QUEUED_FRAMES) await Promise.race([dequeued(encoder), stopped]);
    }
    if (index !== frameCount) {
      throw new ZoetropeError('internal', `The encoder was promised ${frameCount} frames and got ${index}.`);
    }
    await attempt(() => Promise.race([stopped, encoder.flush()]));
    if (chunks !== frameCount) throw encodingFailed(settings, `gave ${chunks} chunks for ${frameCount} frames`);
  } finally {
    signal?.removeEventListener('abort', onAbort);
    if (encoder.state !== 'closed') encoder.close();
  }
}

function encodeFrame(
  host: VideoHost,
  encoder: VideoEncoder,
  { data, width, height }: I420Frame,
  index: number,
  framesPerSecond: number,
  keyFrame: boolean,
): void {
  const videoFrame = new host.VideoFrame(data, {
    format: 'I420',
    codedWidth: width,
    codedHeight: height,
    timestamp: timestampMicroseconds(index, framesPerSecond),
    duration: durationMicroseconds(index, framesPerSecond),
    colorSpace: BT709_LIMITED,
  });
  try {
    encoder.encode(videoFrame, { keyFrame });
  } finally {
    videoFrame.close();
  }
}

function checkFrame(frame: I420Frame, config: VideoEncoderConfig, index: number, frameCount: number): void {
  const { data, width, height } = frame;
  if (width !== config.width || height !== config.height || data.byteLength !== i420Bytes(width, height)) {
    throw new ZoetropeError(
      'internal',
      `Frame ${index} is ${width}×${height} in ${data.byteLength} bytes; the encoder was set up for ` +
        `${config.width}×${config.height} in ${i420Bytes(config.width, config.height)} bytes.`,
    );
  }
  if (index >= frameCount) {
    throw new ZoetropeError('internal', `The encoder was promised ${frameCount} frames and got more.`);
  }
}

/** Resolves when the encoder has taken a frame from its queue, or after a while. */
function dequeued(encoder: VideoEncoder): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      encoder.removeEventListener('dequeue', done);
      resolve();
    };
    const timer = setTimeout(done, QUEUE_POLL_MS);
    encoder.addEventListener('dequeue', done);
  });
}

function encodingFailed({ config }: EncoderSettings, what: string, cause?: unknown): ZoetropeError {
  return new ZoetropeError(
    'encoding-failed',
    `The video encoder (${config.codec}, ${config.width}×${config.height} at ${config.framerate} frames per second) ` +
      `${what}. Try another video_write_mode or browser.`,
    { cause },
  );
}
