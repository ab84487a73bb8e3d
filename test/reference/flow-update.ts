import type { FlowUpdateShape } from '../../kernels/flow-update';

/**
 * torch's `interpolate(mode='bilinear', align_corners=False)` on one plane of [planes, height / scale, width / scale],
 * at a pixel of [height, width].
 */
export function resized(
  planes: ArrayLike<number>,
  plane: number,
  [height, width]: readonly [number, number],
  scale: number,
  row: number,
  column: number,
): number {
  const [high, wide] = [height / scale, width / scale];
  const sy = Math.max((row + 0.5) / scale - 0.5, 0);
  const sx = Math.max((column + 0.5) / scale - 0.5, 0);
  const [top, left] = [Math.floor(sy), Math.floor(sx)];
  const value = (y: number, x: number) =>
    planes[(plane * high + Math.min(y, high - 1)) * wide + Math.min(x, wide - 1)]!;
  const upper = value(top, left) * (1 - (sx - left)) + value(top, left + 1) * (sx - left);
  const lower = value(top + 1, left) * (1 - (sx - left)) + value(top + 1, left + 1) * (sx - left);
  return upper * (1 - (sy - top)) + lower * (sy - top);
}

/** The update in float64. `flow` [h, w, 4] and `mask` [h, w] are what is added to. */
export function flowUpdateReference(
  { size, scale, first, replaceMask }: FlowUpdateShape,
  head: ArrayLike<number>,
  flow: ArrayLike<number>,
  mask: ArrayLike<number>,
): { flow: Float64Array; mask: Float64Array } {
  const [height, width] = size;
  const next = { flow: new Float64Array(4 * height * width), mask: new Float64Array(height * width) };
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const at = row * width + column;
      for (let i = 0; i < 4; i++) {
        next.flow[4 * at + i] = (first ? 0 : flow[4 * at + i]!) + scale * resized(head, i, size, scale, row, column);
      }
      next.mask[at] = (first || replaceMask ? 0 : mask[at]!) + resized(head, 4, size, scale, row, column);
    }
  }
  return next;
}
