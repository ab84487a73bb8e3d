import { describe, expect, it } from 'vitest';
import { guidanceOf, readsNegativePrompt } from '../../src/diffusion/guidance';
import { schedule } from '../../src/diffusion/schedule';

const wan = schedule({ solver: 'unipc', steps: 8, shift: 5, boundary: 0.875 });
const highOnly = schedule({ solver: 'unipc', steps: 2, shift: 8, boundary: 0.875 });
const lowOnly = schedule({ solver: 'unipc', steps: 2, shift: 8, boundary: 1 });

describe('guidance', () => {
  it('takes guidance_scale for the high-noise expert and guidance_scale_2 for the low-noise one', () => {
    const request = { guidance_scale: 3.5, guidance_scale_2: 4 };
    expect(guidanceOf('high', request)).toEqual({ scale: 3.5, unconditional: true });
    expect(guidanceOf('low', request)).toEqual({ scale: 4, unconditional: true });
  });

  it('leaves the negative pass out of a stage whose scale is exactly 1, whatever the other stage does', () => {
    const request = { guidance_scale: 1, guidance_scale_2: 4 };
    expect(guidanceOf('high', request)).toEqual({ scale: 1, unconditional: false });
    expect(guidanceOf('low', request).unconditional).toBe(true);
    expect(guidanceOf('low', { guidance_scale: 4, guidance_scale_2: 1 }).unconditional).toBe(false);
    expect(guidanceOf('high', { guidance_scale: 1 + 2 ** -40, guidance_scale_2: 1 }).unconditional).toBe(true);
  });

  it('reads the negative prompt when a stage that has steps is guided', () => {
    expect(highOnly.highSteps).toBe(2);
    expect(lowOnly.highSteps).toBe(0);
    const scales = (guidance_scale: number, guidance_scale_2: number) => ({ guidance_scale, guidance_scale_2 });
    expect(readsNegativePrompt(wan, scales(1, 1))).toBe(false);
    expect(readsNegativePrompt(wan, scales(3.5, 1))).toBe(true);
    expect(readsNegativePrompt(wan, scales(1, 4))).toBe(true);
    expect(readsNegativePrompt(highOnly, scales(1, 4))).toBe(false);
    expect(readsNegativePrompt(lowOnly, scales(3.5, 1))).toBe(false);
  });
});
