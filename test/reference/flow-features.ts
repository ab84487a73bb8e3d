import type { FlowFeaturesShape } from '../../kernels/flow-features';

/** A picture [height, width, 4] at a position, clamped to its edges and interpolated bilinearly, channel by channel. */
export function sample(
  picture: ArrayLike<number>,
  [height, width]: readonly [number, number],
  x: number,
  y: number,
  channel: number,
): number {
  const cx = Math.min(Math.max(x, 0), width - 1);
  const cy = Math.min(Math.max(y, 0), height - 1);
  const [left, top] = [Math.floor(cx), Math.floor(cy)];
  const value = (row: number, column: number) =>
    picture[(Math.min(row, height - 1) * width + Math.min(column, width - 1)) * 4 + channel]!;
  const upper = value(top, left) * (1 - (cx - left)) + value(top, left + 1) * (cx - left);
  const lower = value(top + 1, left) * (1 - (cx - left)) + value(top + 1, left + 1) * (cx - left);
  return upper * (1 - (cy - top)) + lower * (cy - top);
}

/**
 * A block's input in float64, step by step as the network states it: warp whole pictures, stack the planes, resize each with
 * half-pixel centres. Gives [h / scale + 2, w / scale + 2, channels] with a border of `border`.
 */
export function flowFeaturesReference(
  { size, scale, time, first }: Omit<FlowFeaturesShape, 'type'>,
  before: ArrayLike<number>,
  after: ArrayLike<number>,
  flow: ArrayLike<number>,
  mask: ArrayLike<number>,
  border: number,
): Float64Array {
  const [height, width] = size;
  const planes: ((row: number, column: number) => number)[] = [];
  for (const [picture, axis] of [[before, 0] as const, [after, 2] as const]) {
    for (let channel = 0; channel < 3; channel++) {
      planes.push((row, column) => {
        const at = (row * width + column) * 4;
        if (first) return picture[at + channel]!;
        return sample(picture, size, column + flow[at + axis]!, row + flow[at + axis + 1]!, channel);
      });
    }
  }
  planes.push(() => time);
  planes.push((row, column) => (first ? 0 : mask[row * width + column]!));
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
