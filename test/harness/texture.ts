import { seededUniform } from './near';

/** A wave of a texture. */
interface Wave {
  x: number;
  y: number;
  phase: number;
  amplitude: number;
}

/**
 * A colour texture that is known at every point, so that it can be moved by any part of a pixel without resampling: for
 * each colour a sum of sine waves in random directions, of wavelengths from `shortest` to `longest` pixels, amplitudes
 * falling with the frequency as in photographs. Values lie in 0..1.
 */
export function movingTexture(seed: number, shortest: number, longest: number) {
  const uniform = seededUniform(seed);
  const colors = Array.from({ length: 3 }, () =>
    Array.from({ length: WAVES }, (): Wave => {
      const frequency = (2 * Math.PI) / (shortest * (longest / shortest) ** uniform());
      const direction = 2 * Math.PI * uniform();
      return {
        x: frequency * Math.cos(direction),
        y: frequency * Math.sin(direction),
        phase: 2 * Math.PI * uniform(),
        amplitude: 1 / frequency,
      };
    }),
  );
  /** Planes [3, height, width] of the texture after it has moved by (dx, dy) pixels. */
  return (width: number, height: number, dx: number, dy: number): Float32Array => {
    const planes = new Float32Array(3 * width * height);
    colors.forEach((waves, color) => {
      const total = Math.sqrt(waves.reduce((sum, { amplitude }) => sum + amplitude ** 2, 0));
      for (let row = 0; row < height; row++) {
        for (let column = 0; column < width; column++) {
          let value = 0;
          for (const { x, y, phase, amplitude } of waves) {
            value += amplitude * Math.sin(x * (column - dx) + y * (row - dy) + phase);
          }
          const scaled = 0.5 + (0.25 * value) / total;
          planes[(color * height + row) * width + column] = Math.min(1, Math.max(0, scaled));
        }
      }
    });
    return planes;
  };
}

/** Waves of a colour. */
const WAVES = 24;

/** Peak signal-to-noise ratio of values in 0..1, in dB. */
export function psnr(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let squares = 0;
  for (let i = 0; i < expected.length; i++) squares += (actual[i]! - expected[i]!) ** 2;
  return 10 * Math.log10(expected.length / squares);
}
