import { describe, expect, it } from 'vitest';
import {
  durationMicroseconds,
  encoderCandidates,
  macroblocks,
  timestampMicroseconds,
  type VideoFormat,
  videoBitrate,
} from '../../src/video/levels';

const format = (
  width: number,
  height: number,
  framesPerSecond: number,
  more: Partial<VideoFormat> = {},
): VideoFormat => ({
  width,
  height,
  framesPerSecond,
  quality: 'high',
  writeMode: 'balanced',
  ...more,
});
const codecs = (f: VideoFormat) => encoderCandidates(f).map(({ config }) => config.codec);

describe('levels', () => {
  it('counts macroblocks that are cut at the edge', () => {
    expect(macroblocks(1280, 720)).toBe(3600);
    expect(macroblocks(832, 480)).toBe(1560);
    expect(macroblocks(960, 960)).toBe(3600);
    expect(macroblocks(18, 2)).toBe(2);
  });

  it('chooses the H.264 level of the published table for every rate', () => {
    const level = (width: number, height: number, fps: number) => codecs(format(width, height, fps))[0];
    const at720 = { 16: '1f', 30: '1f', 32: '20', 48: '20', 64: '28', 80: '2a', 120: '2a', 300: '34' };
    for (const [fps, code] of Object.entries(at720)) {
      for (const [width, height] of [
        [1280, 720],
        [720, 1280],
        [960, 960],
      ] as const) {
        expect(level(width, height, Number(fps)), `${width}×${height} at ${fps}`).toBe(`avc1.6400${code}`);
      }
    }
    expect(level(832, 480, 16)).toBe('avc1.64001e');
    expect(level(832, 480, 32)).toBe('avc1.64001f');
    expect(level(832, 480, 80)).toBe('avc1.640020');
    expect(level(64, 64, 300)).toBe('avc1.64001e');
    const at1080 = { 30: '28', 60: '2a' };
    for (const [fps, code] of Object.entries(at1080)) {
      expect(level(1920, 1080, Number(fps)), `1920×1080 at ${fps}`).toBe(`avc1.6400${code}`);
    }
    expect(level(2560, 1440, 30)).toBe('avc1.640032');
    expect(level(3840, 2160, 30)).toBe('avc1.640033');
    expect(level(3840, 2160, 60)).toBe('avc1.640034');
  });

  it('raises the level for the bitrate, sooner for the profiles that allow less', () => {
    // 0.45 × 1.25 bits at 1280×720 and 30 fps: 15.6 Mbit/s, between 14 (Main) and 17.5 (High) of level 3.1.
    const chosen = codecs(format(1280, 720, 30, { quality: 'maximum', writeMode: 'fast' }));
    expect(chosen.slice(0, 3)).toEqual(['avc1.64001f', 'avc1.4d0020', 'avc1.42e020']);
    // 21.0 Mbit/s, between 20 (Main) and 25 (High) of level 4.0.
    const large = codecs(format(1920, 1080, 30, { quality: 'maximum', writeMode: 'small' }));
    expect(large.slice(0, 2)).toEqual(['avc1.640028', 'avc1.4d0029']);
  });

  it('caps the bitrate at the level’s where no level that fits allows more', () => {
    const candidates = encoderCandidates(format(3840, 2160, 60, { quality: 'maximum', writeMode: 'fast' }));
    const av1 = candidates.find(({ codec }) => codec === 'av1')!;
    expect(av1.config).toMatchObject({ codec: 'av01.0.14M.08', bitrate: 60_000_000 });
    expect(videoBitrate(format(3840, 2160, 60, { quality: 'maximum', writeMode: 'fast' }), 'av1')).toBeGreaterThan(
      60e6,
    );
  });

  it('leaves out codecs that have no level for the size, and refuses what none has', () => {
    expect(encoderCandidates(format(3840, 2160, 100)).map(({ codec }) => codec)).toEqual(['vp9', 'av1']);
    expect(() => encoderCandidates(format(8192, 4320, 30))).toThrowError(/8192×4320 at 30/);
  });

  it('chooses VP9 and AV1 levels by luma samples', () => {
    expect(codecs(format(1280, 720, 16)).slice(-2)).toEqual(['vp09.00.31.08', 'av01.0.05M.08']);
    expect(codecs(format(1280, 720, 60)).slice(-2)).toEqual(['vp09.00.40.08', 'av01.0.08M.08']);
    expect(codecs(format(1280, 720, 300)).slice(-2)).toEqual(['vp09.00.50.08', 'av01.0.13M.08']);
    expect(codecs(format(64, 64, 16)).slice(-2)).toEqual(['vp09.00.30.08', 'av01.0.04M.08']);
    expect(codecs(format(1920, 1080, 75)).slice(-2)).toEqual(['vp09.00.41.08', 'av01.0.12M.08']);
  });
});

describe('videoBitrate', () => {
  it('gives the published Mbit/s at 1280×720', () => {
    const table = {
      low: [0.9, 1.5, 2.9],
      medium: [1.7, 2.9, 5.8],
      high: [3.5, 5.8, 11.5],
      maximum: [7.8, 13.1, 26.0],
    } as const;
    for (const [quality, row] of Object.entries(table)) {
      [16, 32, 80].forEach((fps, column) => {
        const bits = videoBitrate(format(1280, 720, fps, { quality: quality as keyof typeof table }), 'avc');
        expect(Math.abs(bits / 1e6 - row[column]!), `${quality} at ${fps}`).toBeLessThanOrEqual(0.06);
      });
    }
  });

  it('scales with codec and write mode', () => {
    const base = videoBitrate(format(1280, 720, 16), 'avc');
    const relative = (more: Partial<VideoFormat>, codec: 'avc' | 'vp9' | 'av1') =>
      videoBitrate(format(1280, 720, 16, more), codec) / base;
    expect(relative({}, 'vp9')).toBeCloseTo(0.6, 5);
    expect(relative({}, 'av1')).toBeCloseTo(0.45, 5);
    expect(relative({ writeMode: 'fast' }, 'avc')).toBeCloseTo(1.25, 5);
    expect(relative({ writeMode: 'small' }, 'avc')).toBeCloseTo(0.75, 5);
    expect(Number.isInteger(base)).toBe(true);
  });
});

describe('encoderCandidates', () => {
  it('orders H.264 High, Main, Baseline, then VP9, then AV1', () => {
    expect(codecs(format(832, 480, 16))).toEqual([
      'avc1.64001e',
      'avc1.4d001e',
      'avc1.42e01e',
      'vp09.00.30.08',
      'av01.0.04M.08',
    ]);
  });

  it('asks for hardware first when fast, software first when small, and then for anything', () => {
    const accelerations = (writeMode: VideoFormat['writeMode']) =>
      encoderCandidates(format(832, 480, 16, { writeMode })).map(({ config }) => config.hardwareAcceleration);
    const any = 'no-preference';
    const hard = 'prefer-hardware';
    const soft = 'prefer-software';
    expect(accelerations('balanced')).toEqual([any, any, any, any, any]);
    expect(accelerations('fast')).toEqual([hard, hard, hard, any, any, any, any, any]);
    expect(accelerations('small')).toEqual([soft, soft, soft, any, any, any, any, any]);
  });

  it('describes the video completely', () => {
    const [avc] = encoderCandidates(format(1280, 720, 32));
    expect(avc).toEqual({
      codec: 'avc',
      keyFrameEvery: 64,
      config: {
        codec: 'avc1.640020',
        width: 1280,
        height: 720,
        framerate: 32,
        bitrate: videoBitrate(format(1280, 720, 32), 'avc'),
        bitrateMode: 'variable',
        latencyMode: 'quality',
        hardwareAcceleration: 'no-preference',
        avc: { format: 'avc' },
      },
    });
    const vp9 = encoderCandidates(format(1280, 720, 32)).find(({ codec }) => codec === 'vp9')!;
    expect(vp9.config).not.toHaveProperty('avc');
  });

  it('sets a key frame every second, two or four', () => {
    const every = (writeMode: VideoFormat['writeMode']) =>
      encoderCandidates(format(64, 64, 16, { writeMode }))[0]!.keyFrameEvery;
    expect([every('fast'), every('balanced'), every('small')]).toEqual([16, 32, 64]);
  });

  it('refuses odd and empty sizes', () => {
    const refused = expect.objectContaining({ code: 'unsupported-codec' });
    for (const [width, height] of [
      [853, 480],
      [480, 853],
      [1, 1],
      [0, 64],
      [64, -2],
      [64, 16.5],
      [Number.NaN, 64],
    ] as const) {
      expect(() => encoderCandidates(format(width, height, 16)), `${width}×${height}`).toThrowError(refused);
    }
    expect(encoderCandidates(format(854, 480, 16))).not.toHaveLength(0);
  });
});

describe('timestamps', () => {
  it('are whole microseconds that never drift, and durations fill the gaps', () => {
    for (const fps of [4, 7, 16, 24, 30, 60, 300, 23.976]) {
      let time = 0;
      for (let index = 0; index < 601; index++) {
        const timestamp = timestampMicroseconds(index, fps);
        expect(timestamp).toBe(time);
        expect(Math.abs(timestamp - (index * 1e6) / fps)).toBeLessThanOrEqual(0.5);
        time += durationMicroseconds(index, fps);
      }
    }
    expect([0, 1, 2, 3].map((index) => timestampMicroseconds(index, 30))).toEqual([0, 33333, 66667, 100000]);
    expect([0, 1, 2].map((index) => durationMicroseconds(index, 30))).toEqual([33333, 33334, 33333]);
  });
});
