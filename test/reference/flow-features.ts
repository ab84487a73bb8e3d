import type { FlowFeaturesShape } from '../../kernels/flow-features';
import { resized } from './flow-update';

/**
 * A picture [height, width, channels] at a position, clamped to its edges and interpolated bilinearly, channel by
 * channel.
 */
export function sample(
  picture: ArrayLike<number>,
  [height, width]: readonly [number, number],
  channels: number,
  x: number,
  y: number,
  channel: number,
): number {
  const cx = Math.min(Math.max(x, 0), width - 1);
  const cy = Math.min(Math.max(y, 0), height - 1);
  const [left, top] = [Math.floor(cx), Math.floor(cy)];
  const value = (row: number, column: number) =>
    picture[(Math.min(row, height - 1) * width + Math.min(column, width - 1)) * channels + channel]!;
  const upper = value(top, left) * (1 - (cx - left)) + value(top, left + 1) * (cx - left);
  const lower = value(top + 1, left) * (1 - (cx - left)) + value(top + 1, left + 1) * (cx - left);
  return upper * (1 - (cy - top)) + lower * (cy - top);
}

/**
 * A block's input in float64, step by step as the network states it: warp whole pictures, stack the planes, resize each
 * with half-pixel centres. Gives [h / scale + 2, w / scale + 2, channels] with a border of `border`.
 */
export function flowFeaturesReference(
  { size, scale, encoded, passed, headScale, time, first }: Omit<FlowFeaturesShape, 'type'>,
  before: ArrayLike<number>,
  after: ArrayLike<number>,
  flow: ArrayLike<number>,
  mask: ArrayLike<number>,
  head: ArrayLike<number>,
  border: number,
): Float64Array {
  const [height, width] = size;
  const planes: ((row: number, column: number) => number)[] = [];
  const stored = 4 + encoded;
  for (const [from, to] of [[0, 3] as const, [4, stored] as const]) {
    for (const [picture, axis] of [[before, 0] as const, [after, 2] as const]) {
      for (let channel = from; channel < to; channel++) {
        planes.push((row, column) => {
          const at = row * width + column;
          if (first) return picture[at * stored + channel]!;
          const [dx, dy] = [flow[4 * at + axis]!, flow[4 * at + axis + 1]!];
          return sample(picture, size, stored, column + dx, row + dy, channel);
        });
      }
    }
  }
  planes.push(() => time);
  planes.push((row, column) => (first ? 0 : mask[row * width + column]!));
  if (!first)
    for (let i = 0; i < passed; i++) planes.push((row, column) => resized(head, 5 + i, size, headScale, row, column));
  if (!first) for (let i = 0; i < 4; i++) planes.push((row, column) => flow[(row * width + column) * 4 + i]! / scale);

  const [high, wide] = [height / scale, width / scale];
  const x = new Float64Array((high + 2) * (wide + 2) * planes.length).fill(border);
  for (let row = 0; row < high; row++) {
    for (let column = 0; column < wide; column++) {
      const [sy, sx] = [(row + 0.5) * scale - 0.5, (column + 0.5) * scale - 0.5];
      const [top, left] = [Math.floor(sy), Math.floor(sx)];
      const [fy, fx] = [sy - top, sx - left];
      planes.forEach((plane, channel) => {
        let value = 0;
        for (const [dy, wy] of [[0, 1 - fy] as const, [1, fy] as const]) {
          for (const [dx, wx] of [[0, 1 - fx] as const, [1, fx] as const]) {
            if (wy * wx > 0) value += wy * wx * plane(top + dy, left + dx);
          }
        }
        x[((row + 1) * (wide + 2) + column + 1) * planes.length + channel] = value;
      });
    }
  }
  return x;
}
