import { BufferSource, EncodedPacketSink, Input, MP4 } from 'mediabunny';
import { describe, expect, it } from 'vitest';
import type { GpuTensor } from '../../src/gpu/memory';
import type { Interpolator, RgbFrame } from '../../src/interpolate/interpolator';
import { retime, timesBetween } from '../../src/interpolate/retime';
import type { Sizes } from '../../src/manifest';
import { resolveRequest } from '../../src/request';
import { videoShape } from '../../src/shape';
import { chooseEncoder, type I420Frame, i420Bytes } from '../../src/video/encode';
import { encodeMp4 } from '../../src/video/file';
import { encoderCandidates } from '../../src/video/levels';
import { replayHost } from '../harness/replay';

/** A frame that holds the time it stands for, counted in given frames. */
const frameAt = (time: number): RgbFrame => ({ rgb: { time } as unknown as GpuTensor, frame: 0 });
const timeOf = ({ rgb }: RgbFrame) => (rgb as unknown as { time: number }).time;

interface Prepared extends Disposable {
  time: number;
}

/** An interpolator that blends times, and knows what is alive. */
function fakeInterpolator(fail: { prepare?: number; between?: number } = {}) {
  const log = { prepared: 0, live: 0, mostLive: 0, pairs: [] as [number, number][] };
  const interpolator: Interpolator<Prepared> = {
    async prepare(frame) {
      const time = timeOf(frame);
      if (time === fail.prepare) throw new Error('prepare failed');
      log.prepared++;
      log.mostLive = Math.max(log.mostLive, ++log.live);
      let freed = false;
      return {
        time,
        [Symbol.dispose]() {
          expect(freed, 'freed twice').toBe(false);
          freed = true;
          log.live--;
        },
      };
    },
    async *between(before, after, count) {
      log.pairs.push([before.time, after.time]);
      for (const t of timesBetween(count)) {
        if (before.time === fail.between) throw new Error('between failed');
        yield frameAt(before.time + t * (after.time - before.time));
      }
    },
    [Symbol.dispose]: () => undefined,
  };
  return { interpolator, log };
}

async function* clip(count: number, ended: { value: boolean } = { value: false }): AsyncGenerator<RgbFrame> {
  try {
    for (let i = 0; i < count; i++) yield frameAt(i);
  } finally {
    ended.value = true;
  }
}

describe('retime', () => {
  it.each([1, 2, 3, 4])('puts %i frames at equal distances into each pair', async (count) => {
    const { interpolator, log } = fakeInterpolator();
    const times = [];
    for await (const frame of retime(clip(5), interpolator, count)) times.push(timeOf(frame));
    expect(times).toHaveLength(5 + 4 * count);
    times.forEach((time, i) => {
      expect(time).toBeCloseTo(i / (count + 1), 12);
    });
    expect(log).toEqual({
      prepared: 5,
      live: 0,
      mostLive: 2,
      pairs: [
        [0, 1],
        [1, 2],
        [2, 3],
        [3, 4],
      ],
    });
  });

  it('asks for a frame only when those before it have been taken', async () => {
    const { interpolator } = fakeInterpolator();
    let given = 0;
    async function* counted() {
      for await (const frame of clip(4)) {
        given++;
        yield frame;
      }
    }
    const taken = [];
    for await (const frame of retime(counted(), interpolator, 2)) {
      taken.push(timeOf(frame));
      expect(given).toBe(Math.ceil(timeOf(frame)) + 1);
    }
    expect(taken).toHaveLength(10);
  });

  it.each([0, 1])('passes a clip of %i frames', async (frames) => {
    const { interpolator, log } = fakeInterpolator();
    const times = [];
    for await (const frame of retime(clip(frames), interpolator, 3)) times.push(timeOf(frame));
    expect(times).toEqual(frames === 0 ? [] : [0]);
    expect(log.live).toBe(0);
  });

  it.each([0, 1, 2, 5])('frees everything and ends the clip when nobody takes more than %i frames', async (taken) => {
    const { interpolator, log } = fakeInterpolator();
    const ended = { value: false };
    const frames = retime(clip(4, ended), interpolator, 2);
    for (let i = 0; i < taken; i++) await frames.next();
    await frames.return(undefined);
    expect(log.live).toBe(0);
    expect(ended.value).toBe(taken > 0);
  });

  it.each([{ prepare: 0 }, { prepare: 2 }, { between: 0 }, { between: 2 }])(
    'frees everything and ends the clip when %o fails',
    async (fail) => {
      const { interpolator, log } = fakeInterpolator(fail);
      const ended = { value: false };
      const all = async () => {
        for await (const _ of retime(clip(4, ended), interpolator, 2));
      };
      await expect(all()).rejects.toThrow('failed');
      expect(log.live).toBe(0);
      expect(ended.value).toBe(true);
    },
  );
});

const square: Record<'16:9' | '9:16' | '1:1', [number, number]> = {
  '16:9': [64, 64],
  '9:16': [64, 64],
  '1:1': [64, 64],
};
const SIZES: Sizes = { '480p': square, '580p': square, '720p': square };

/** Everything between a request and the file but the pictures: counts, rate, order, timestamps. */
async function makeFile(fields: {
  num_frames: number;
  frames_per_second: number;
  num_interpolated_frames: number;
  adjust_fps_for_interpolation: boolean;
  interpolator_model: 'none' | 'rife';
}): Promise<ArrayBuffer> {
  const parts = { film: false, rife: true, promptExpansion: false, safetyChecker: false };
  const shape = videoShape(
    resolveRequest({ prompt: 'x', ...fields }, parts, () => 1),
    SIZES,
  );
  const { width, height, frames, interpolatedFrames, outputFrames, outputFramesPerSecond: framesPerSecond } = shape;
  const format = { width, height, framesPerSecond, quality: 'high', writeMode: 'balanced' } as const;
  const settings = await chooseEncoder(replayHost, encoderCandidates(format));
  const { interpolator } = fakeInterpolator();
  const decoded = clip(frames);
  const retimed = interpolatedFrames > 0 ? retime(decoded, interpolator, interpolatedFrames) : decoded;
  async function* pictures(): AsyncGenerator<I420Frame> {
    for await (const _ of retimed) yield { data: new Uint8Array(i420Bytes(width, height)), width, height };
  }
  const options = { host: replayHost, settings, frameCount: outputFrames, writeMode: 'balanced' } as const;
  return (await encodeMp4(pictures(), options)).data;
}

describe.each([17, 18, 20, 33])('a video of %i frames', (num_frames) => {
  describe.each([4, 16, 23, 60])('at %i frames per second', (frames_per_second) => {
    const combinations = [0, 1, 2, 3, 4].flatMap((num_interpolated_frames) =>
      [true, false].flatMap((adjust_fps_for_interpolation) =>
        (['none', 'rife'] as const).map(
          (interpolator_model) => [num_interpolated_frames, adjust_fps_for_interpolation, interpolator_model] as const,
        ),
      ),
    );
    it.each(combinations)('with %i between, rate adjusted %s, %s', async (between, adjust, interpolator_model) => {
      const file = await makeFile({
        num_frames,
        frames_per_second,
        num_interpolated_frames: between,
        adjust_fps_for_interpolation: adjust,
        interpolator_model,
      });
      // As the endpoint states it, written down here once more.
      const added = interpolator_model === 'rife' ? between : 0;
      const count = num_frames + (num_frames - 1) * added;
      const rate = adjust ? frames_per_second * (added + 1) : frames_per_second;

      using input = new Input({ source: new BufferSource(file), formats: [MP4] });
      const track = (await input.getPrimaryVideoTrack())!;
      const packets = [];
      for await (const packet of new EncodedPacketSink(track).packets()) packets.push(packet);
      expect(packets).toHaveLength(count);
      // Whole multiples of the frame's time, in units of a time scale that holds them exactly.
      const resolution = await track.getTimeResolution();
      expect(resolution % rate).toBe(0);
      packets.forEach(({ timestamp, duration }, index) => {
        expect(Math.round(timestamp * resolution) / (resolution / rate)).toBe(index);
        expect(Math.round(duration * resolution) / (resolution / rate)).toBe(1);
      });
      expect(await track.computeDuration()).toBeCloseTo(count / rate, 9);
    });
  });
});
