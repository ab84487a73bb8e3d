/** RGB to I420 in float64 and plain loops: what the WGSL kernel must match to one level. Never shipped. */

/** BT.709 luma weights (ITU-R BT.709-6, item 3.2). */
const RED = 0.2126;
const GREEN = 0.7152;
const BLUE = 0.0722;

/**
 * I420 bytes of an RGB picture: planes y [height, width], u and v [height / 2, width / 2], without gaps.
 * BT.709, limited range (luma 16..235, chroma 16..240), chroma averaged over 2×2 pixels, rounded to nearest.
 *
 * @param rgb planar [3, height, width], -1..1; values outside are clamped first, as the model's last step does.
 * @param width even. @param height even.
 */
export function i420Reference(rgb: ArrayLike<number>, width: number, height: number): Uint8Array {
  if (width % 2 !== 0 || height % 2 !== 0) throw new RangeError(`4:2:0 needs even sides, got ${width}×${height}`);
  const pixels = width * height;
  if (rgb.length !== 3 * pixels) throw new RangeError(`expected ${3 * pixels} values, got ${rgb.length}`);
  const unit = (channel: number, pixel: number) => {
    const value = rgb[channel * pixels + pixel]!;
    return (Math.min(1, Math.max(-1, value)) + 1) / 2;
  };
  const out = new Uint8Array((pixels * 3) / 2);
  for (let pixel = 0; pixel < pixels; pixel++) {
    const y = RED * unit(0, pixel) + GREEN * unit(1, pixel) + BLUE * unit(2, pixel);
    out[pixel] = Math.round(16 + 219 * y);
  }
  for (let row = 0; row < height / 2; row++) {
    for (let column = 0; column < width / 2; column++) {
      let blueDifference = 0;
      let redDifference = 0;
      for (const [dy, dx] of [
        [0, 0],
        [0, 1],
        [1, 0],
        [1, 1],
      ] as const) {
        const pixel = (2 * row + dy) * width + 2 * column + dx;
        const y = RED * unit(0, pixel) + GREEN * unit(1, pixel) + BLUE * unit(2, pixel);
        blueDifference += (unit(2, pixel) - y) / (2 * (1 - BLUE)) / 4;
        redDifference += (unit(0, pixel) - y) / (2 * (1 - RED)) / 4;
      }
      const cell = row * (width / 2) + column;
      out[pixels + cell] = Math.round(128 + 224 * blueDifference);
      out[pixels + pixels / 4 + cell] = Math.round(128 + 224 * redDifference);
    }
  }
  return out;
}
