import { describe, expect, it } from 'vitest';
import { previewFrames } from '../../src/diffusion/preview';

describe('previewFrames', () => {
  it('maps each latent position by the matrix, frame by frame', () => {
    // Two channels, two frames, 1×3 positions.
    const latents = Float32Array.from([0, 1, -1, 0.5, 0, 0, 0, 0, 0, 1, 1, 1]);
    const matrix = {
      weights: [
        [1, 0, 0],
        [0, 0.5, 0],
      ],
      bias: [0, 0, 1],
    };
    const frames = previewFrames(latents, [2, 2, 1, 3], matrix);
    expect(frames).toHaveLength(2);
    // -1..1 becomes 0..255; the array clamps and rounds to nearest, ties to even.
    expect([...frames[0]!]).toEqual([128, 128, 255, 255, 255, 128, 255, 255, 0, 128, 255, 255]);
    expect([...frames[1]!]).toEqual([191, 191, 255, 255, 128, 191, 255, 255, 128, 191, 255, 255]);
  });
});
