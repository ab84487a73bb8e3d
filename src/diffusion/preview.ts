import type { PreviewMatrix } from '../manifest';

/**
 * Pictures of latents without a decoder: rgb = weights^T z + bias at each position, the linear map that ComfyUI
 * published for Wan's VAE, or one fitted at import.
 * @param latents [C, T, h, w] in normalised space.
 * @returns T pictures of w×h pixels, RGBA.
 */
export function previewFrames(
  latents: Float32Array,
  [channels, frames, height, width]: readonly number[],
  { weights, bias }: PreviewMatrix,
): Uint8ClampedArray<ArrayBuffer>[] {
  const size = height! * width!;
  return Array.from({ length: frames! }, (_, frame) => {
    const pixels = new Uint8ClampedArray(size * 4);
    for (let at = 0; at < size; at++) {
      for (let color = 0; color < 3; color++) {
        let value = bias[color]!;
        for (let c = 0; c < channels!; c++) value += latents[(c * frames! + frame) * size + at]! * weights[c]![color]!;
        pixels[at * 4 + color] = (value + 1) * 127.5;
      }
      pixels[at * 4 + 3] = 255;
    }
    return pixels;
  });
}
