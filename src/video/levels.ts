/**
 * What to ask a VideoEncoder for: codec levels, bitrates, key frames and timestamps. Pure decisions; `encode.ts`
 * carries them out.
 */
import { ZoetropeError } from '../errors';
import type { ResolvedRequest } from '../request';

export type VideoQuality = ResolvedRequest['video_quality'];
export type WriteMode = ResolvedRequest['video_write_mode'];

/** Codecs that MP4 holds and WebCodecs encodes, in the order in which they are tried. Every player takes the first. */
export type VideoCodec = 'avc' | 'vp9' | 'av1';

/** The finished video, as the encoder sees it. */
export interface VideoFormat {
  /** Pixels, even. */
  width: number;
  height: number;
  /** 4 to 300. */
  framesPerSecond: number;
  quality: VideoQuality;
  writeMode: WriteMode;
}

/** One way to encode a video. */
export interface EncoderSettings {
  codec: VideoCodec;
  config: VideoEncoderConfig & { framerate: number };
  /** Distance of key frames in frames; frame 0 is one. */
  keyFrameEvery: number;
}

/** What a decoder of a level must manage. */
interface Level {
  /** How the level appears in the codec string. */
  code: string;
  /** Largest picture: macroblocks of 16×16 for H.264, luma samples for the others. */
  picture: number;
  /** Most of these units in a second. */
  rate: number;
  /** Highest bitrate in kbit/s. */
  kbps: number;
}

const level = (code: string, rate: number, picture: number, kbps: number): Level => ({ code, rate, picture, kbps });

/** H.264 (ITU-T H.264, table A-1), levels 3.0 to 5.2, bitrates of the High profile. */
export const AVC_LEVELS: readonly Level[] = [
  level('1e', 40_500, 1_620, 12_500),
  level('1f', 108_000, 3_600, 17_500),
  level('20', 216_000, 5_120, 25_000),
  level('28', 245_760, 8_192, 25_000),
  level('29', 245_760, 8_192, 62_500),
  level('2a', 522_240, 8_704, 62_500),
  level('32', 589_824, 22_080, 168_750),
  level('33', 983_040, 36_864, 300_000),
  level('34', 2_073_600, 36_864, 300_000),
];

/** Main and Baseline allow the High profile's bitrate divided by this (ITU-T H.264, A.3.1 and table A-2). */
const AVC_HIGH_BITRATE = 1.25;

/** VP9 levels 3 to 5.2 (VP9 levels of the WebM project). */
const VP9_LEVELS: readonly Level[] = [
  level('30', 20_736_000, 552_960, 7_200),
  level('31', 36_864_000, 983_040, 12_000),
  level('40', 83_558_400, 2_228_224, 18_000),
  level('41', 160_432_128, 2_228_224, 30_000),
  level('50', 311_951_360, 8_912_896, 60_000),
  level('51', 588_251_136, 8_912_896, 120_000),
  level('52', 1_176_502_272, 8_912_896, 180_000),
];

/** AV1 levels 3.0 to 5.2, Main tier (AV1 specification, A.3); the code is `seq_level_idx`. */
const AV1_LEVELS: readonly Level[] = [
  level('04', 19_975_680, 665_856, 6_000),
  level('05', 31_950_720, 1_065_024, 10_000),
  level('08', 70_778_880, 2_359_296, 12_000),
  level('09', 141_557_760, 2_359_296, 20_000),
  level('12', 267_386_880, 8_912_896, 30_000),
  level('13', 534_773_760, 8_912_896, 40_000),
  level('14', 1_069_547_520, 8_912_896, 60_000),
];

/** Macroblocks of 16×16 pixels that a picture fills. */
export function macroblocks(width: number, height: number): number {
  return Math.ceil(width / 16) * Math.ceil(height / 16);
}

/**
 * Bits per pixel of H.264 at 30 frames per second, chosen by this project. Chromium's software encoder then gives a
 * clip of the demo model (64×64, 17 frames, 16 fps) a mean luma PSNR of 35, 39, 43 and 48 dB.
 */
const BITS_PER_PIXEL: Record<VideoQuality, number> = { low: 0.05, medium: 0.1, high: 0.2, maximum: 0.45 };

/** Bits that a codec needs for the quality of one bit of H.264. */
const CODEC_FACTOR: Record<VideoCodec, number> = { avc: 1, vp9: 0.6, av1: 0.45 };

interface WriteSettings {
  /** A quick encoder needs more bits for the same quality, a thorough one fewer. */
  bitrateFactor: number;
  keyFrameSeconds: number;
  /** H.264 encoders to ask for, in order. */
  acceleration: readonly HardwareAcceleration[];
}

const WRITE_SETTINGS: Record<WriteMode, WriteSettings> = {
  fast: { bitrateFactor: 1.25, keyFrameSeconds: 1, acceleration: ['prefer-hardware', 'no-preference'] },
  balanced: { bitrateFactor: 1, keyFrameSeconds: 2, acceleration: ['no-preference'] },
  small: { bitrateFactor: 0.75, keyFrameSeconds: 4, acceleration: ['prefer-software', 'no-preference'] },
};

/**
 * Bits per second to ask for. A hint to the encoder, which overshoots on short clips of noise.
 * The rate grows with fps^0.75: the more frames there are, the less each differs from the one before.
 */
export function videoBitrate(format: VideoFormat, codec: VideoCodec): number {
  const { width, height, framesPerSecond, quality, writeMode } = format;
  const pixelsPerSecond = width * height * 30 * (framesPerSecond / 30) ** 0.75;
  const factor = CODEC_FACTOR[codec] * WRITE_SETTINGS[writeMode].bitrateFactor;
  return Math.round(BITS_PER_PIXEL[quality] * pixelsPerSecond * factor);
}

/**
 * Smallest level for pictures of `picture` units; the highest one that fits the picture where only the bitrate is too
 * high.
 */
function smallestLevel(levels: readonly Level[], picture: number, framesPerSecond: number, bitrate: number) {
  const fitting = levels.filter((l) => picture <= l.picture && picture * framesPerSecond <= l.rate);
  return fitting.find((l) => bitrate <= l.kbps * 1000) ?? fitting.at(-1);
}

/**
 * Ways to encode the video, best first: H.264 High, Main and Baseline at the level that the size and rate need, each
 * with the acceleration that the write mode prefers, then VP9, then AV1. The bitrate is capped at the level's. Throws
 * `unsupported-codec` for sizes that are odd (4:2:0 chroma halves them) or beyond every level.
 */
export function encoderCandidates(format: VideoFormat): EncoderSettings[] {
  const { width, height, framesPerSecond, writeMode } = format;
  if (width % 2 !== 0 || height % 2 !== 0 || !(width > 0) || !(height > 0)) {
    throw new ZoetropeError(
      'unsupported-codec',
      `A video has an even width and height, got ${width}×${height}. Choose a size that is a multiple of 16.`,
    );
  }
  const { acceleration, keyFrameSeconds } = WRITE_SETTINGS[writeMode];
  const keyFrameEvery = Math.max(1, Math.round(framesPerSecond * keyFrameSeconds));
  const candidates: EncoderSettings[] = [];

  const add = (
    codec: VideoCodec,
    levels: readonly Level[],
    picture: number,
    codecString: (levelCode: string) => string,
    hardwareAcceleration: HardwareAcceleration = 'no-preference',
  ) => {
    const wanted = videoBitrate(format, codec);
    const chosen = smallestLevel(levels, picture, framesPerSecond, wanted);
    if (!chosen) return;
    const config: EncoderSettings['config'] = {
      codec: codecString(chosen.code),
      width,
      height,
      framerate: framesPerSecond,
      bitrate: Math.min(wanted, chosen.kbps * 1000),
      bitrateMode: 'variable',
      latencyMode: 'quality', // 'realtime' may drop frames
      hardwareAcceleration,
      ...(codec === 'avc' ? { avc: { format: 'avc' } } : {}), // length-prefixed with a description, as MP4 wants it
    };
    candidates.push({ codec, config, keyFrameEvery });
  };

  const lowProfiles = AVC_LEVELS.map((l) => ({ ...l, kbps: l.kbps / AVC_HIGH_BITRATE }));
  for (const preference of acceleration) {
    add('avc', AVC_LEVELS, macroblocks(width, height), (code) => `avc1.6400${code}`, preference);
    add('avc', lowProfiles, macroblocks(width, height), (code) => `avc1.4d00${code}`, preference);
    add('avc', lowProfiles, macroblocks(width, height), (code) => `avc1.42e0${code}`, preference);
  }
  add('vp9', VP9_LEVELS, width * height, (code) => `vp09.00.${code}.08`);
  add('av1', AV1_LEVELS, width * height, (code) => `av01.0.${code}M.08`);
  if (candidates.length === 0) {
    throw new ZoetropeError(
      'unsupported-codec',
      `No level of H.264, VP9 or AV1 reaches ${width}×${height} at ${framesPerSecond} frames per second. ` +
        'Choose a smaller size or fewer frames per second.',
    );
  }
  return candidates;
}

/** Time at which frame `index` appears, in whole microseconds. */
export function timestampMicroseconds(index: number, framesPerSecond: number): number {
  return Math.round((index * 1e6) / framesPerSecond);
}

/** Time until the next frame, so that timestamps and durations never drift apart. */
export function durationMicroseconds(index: number, framesPerSecond: number): number {
  return timestampMicroseconds(index + 1, framesPerSecond) - timestampMicroseconds(index, framesPerSecond);
}
