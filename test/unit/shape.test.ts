import { describe, expect, it } from 'vitest';
import type { Sizes } from '../../src/manifest';
import { type ShapeRequest, videoShape } from '../../src/shape';

/** The sizes of A14B as this project chose them, and the small ones of a demo model. */
const A14B: Sizes = {
  '480p': { '16:9': [832, 480], '9:16': [480, 832], '1:1': [640, 640] },
  '580p': { '16:9': [1024, 576], '9:16': [576, 1024], '1:1': [768, 768] },
  '720p': { '16:9': [1280, 720], '9:16': [720, 1280], '1:1': [960, 960] },
};
const small = { '16:9': [112, 64], '9:16': [64, 112], '1:1': [64, 64] } satisfies Sizes['480p'];
const DEMO: Sizes = { '480p': small, '580p': small, '720p': small };

const defaults: ShapeRequest = {
  num_frames: 81,
  frames_per_second: 16,
  resolution: '720p',
  aspect_ratio: '16:9',
  interpolator_model: 'none',
  num_interpolated_frames: 1,
  adjust_fps_for_interpolation: true,
};
const shape = (request: Partial<ShapeRequest> = {}, sizes = A14B) => videoShape({ ...defaults, ...request }, sizes);

describe('videoShape', () => {
  it('gives the published latents and token counts', () => {
    expect(shape()).toMatchObject({ latentFrames: 21, latentHeight: 90, latentWidth: 160, tokens: 75600 });
    expect(shape({ resolution: '480p' })).toMatchObject({ latentHeight: 60, latentWidth: 104, tokens: 32760 });
    expect(shape({ resolution: '480p', aspect_ratio: '1:1' }).tokens).toBe(33600);
    expect(shape({ resolution: '480p', aspect_ratio: '9:16' })).toMatchObject({ width: 480, height: 832 });
  });

  it('handles sizes whose latent is not a multiple of four', () => {
    expect(shape({ num_frames: 17 }, DEMO)).toMatchObject({
      width: 112,
      height: 64,
      latentFrames: 5,
      latentHeight: 8,
      latentWidth: 14,
      tokens: 140,
    });
  });

  it('generates the next 4k + 1 frames for every count and drops at most three', () => {
    for (let frames = 1; frames <= 121; frames++) {
      const { generatedFrames, surplusFrames, latentFrames, ...rest } = shape({ num_frames: frames });
      expect(rest.frames).toBe(frames);
      expect(generatedFrames % 4).toBe(1);
      expect(generatedFrames - surplusFrames).toBe(frames);
      expect(surplusFrames).toBeGreaterThanOrEqual(0);
      expect(surplusFrames).toBeLessThan(4);
      expect(generatedFrames).toBe(1 + 4 * (latentFrames - 1));
    }
    const counts = [17, 18, 20, 21, 22, 121].map((num_frames) => shape({ num_frames }).generatedFrames);
    expect(counts).toEqual([17, 21, 21, 21, 25, 121]);
  });

  it('counts interpolated frames between the ones that were asked for, not the generated ones', () => {
    const film = { interpolator_model: 'film' } as const;
    expect(shape(film)).toMatchObject({ outputFrames: 161, outputFramesPerSecond: 32 });
    expect(shape({ ...film, num_frames: 18, num_interpolated_frames: 4, frames_per_second: 60 })).toMatchObject({
      generatedFrames: 21,
      outputFrames: 18 + 17 * 4,
      outputFramesPerSecond: 300,
    });
    expect(shape({ ...film, adjust_fps_for_interpolation: false })).toMatchObject({
      outputFrames: 161,
      outputFramesPerSecond: 16,
    });
    expect(shape({ ...film, num_interpolated_frames: 0 })).toMatchObject({
      outputFrames: 81,
      outputFramesPerSecond: 16,
    });
  });

  it('passes frames through without an interpolator', () => {
    expect(shape({ num_interpolated_frames: 4 })).toMatchObject({ outputFrames: 81, outputFramesPerSecond: 16 });
  });

  it('refuses sizes that the model cannot make', () => {
    const size = (width: number, height: number) => () =>
      shape({}, { ...A14B, '720p': { ...A14B['720p'], '16:9': [width, height] } });
    const refused = expect.objectContaining({ code: 'bad-checkpoint' });
    for (const bad of [8, 24, 853, 0, -16, 16.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(size(bad, 480)).toThrowError(refused);
      expect(size(832, bad)).toThrowError(refused);
    }
    expect(size(853, 480)).toThrowError(/720p at 16:9 is 853×480/);
    expect(size(16, 16)().tokens).toBe(21);
    expect(() => shape({}, { '480p': A14B['480p'] } as unknown as Sizes)).toThrowError(refused);
    expect(() => shape({}, { '720p': {} } as unknown as Sizes)).toThrowError(/missing/);
  });
});
