/**
 * The flow networks RIFE 4.6, 4.22.lite, 4.25 and 4.26 in float64, plane by plane, as their description states them:
 * whole planes are warped, stacked and resized, and nothing is fused. Never shipped; shares no code with the kernels
 * and their references.
 */

/** Planes of one size. */
interface Planes {
  count: number;
  height: number;
  width: number;
  values: Float64Array;
}

/** Tensors by their PyTorch names. */
export type RifeTensors = ReadonlyMap<string, { shape: readonly number[]; values: ArrayLike<number> }>;

/** What tells the networks of the family apart. */
export interface RifeVersion {
  scales: readonly number[];
  /** Pictures are extended to multiples of this. */
  multiple: number;
  /** There is an image encoder; then a block replaces the mask, and passes eight planes on. */
  encoder: boolean;
}

function planes(count: number, height: number, width: number): Planes {
  return { count, height, width, values: new Float64Array(count * height * width) };
}

function concat(...parts: readonly Planes[]): Planes {
  const { height, width } = parts[0]!;
  const all = planes(
    parts.reduce((sum, { count }) => sum + count, 0),
    height,
    width,
  );
  let at = 0;
  for (const { values } of parts) {
    all.values.set(values, at);
    at += values.length;
  }
  return all;
}

function slice(x: Planes, from: number, to: number): Planes {
  const size = x.height * x.width;
  return { ...x, count: to - from, values: x.values.slice(from * size, to * size) };
}

function times(x: Planes, factor: number): Planes {
  return { ...x, values: x.values.map((value) => value * factor) };
}

function plus(a: Planes, b: Planes): Planes {
  return { ...a, values: a.values.map((value, i) => value + b.values[i]!) };
}

function leaky(x: Planes): Planes {
  return { ...x, values: x.values.map((value) => (value < 0 ? 0.2 * value : value)) };
}

function convolution(x: Planes, weights: RifeTensors, name: string, stride: 1 | 2): Planes {
  const { shape, values: weight } = weights.get(`${name}.weight`)!;
  const { values: bias } = weights.get(`${name}.bias`)!;
  const [out, into] = shape as [number, number];
  const { height, width } = x;
  if (into !== x.count) throw new RangeError(`${name} reads ${into} planes, there are ${x.count}`);
  const y = planes(out, height / stride, width / stride);
  for (let o = 0; o < out; o++) {
    for (let row = 0; row < y.height; row++) {
      for (let column = 0; column < y.width; column++) {
        let sum = bias[o]!;
        for (let i = 0; i < into; i++) {
          for (let dy = 0; dy < 3; dy++) {
            const sy = stride * row + dy - 1;
            if (sy < 0 || sy >= height) continue;
            for (let dx = 0; dx < 3; dx++) {
              const sx = stride * column + dx - 1;
              if (sx < 0 || sx >= width) continue;
              sum += weight[((o * into + i) * 3 + dy) * 3 + dx]! * x.values[(i * height + sy) * width + sx]!;
            }
          }
        }
        y.values[(o * y.height + row) * y.width + column] = sum;
      }
    }
  }
  return y;
}

/** torch's ConvTranspose2d of kernel 4, stride 2 and padding 1: what each value adds to the 4 × 4 values round it. */
function transposed(x: Planes, weights: RifeTensors, name: string): Planes {
  const { shape, values: weight } = weights.get(`${name}.weight`)!;
  const { values: bias } = weights.get(`${name}.bias`)!;
  const [into, out] = shape as [number, number];
  const y = planes(out, 2 * x.height, 2 * x.width);
  for (let o = 0; o < out; o++) y.values.fill(bias[o]!, o * y.height * y.width, (o + 1) * y.height * y.width);
  for (let i = 0; i < into; i++) {
    for (let row = 0; row < x.height; row++) {
      for (let column = 0; column < x.width; column++) {
        const value = x.values[(i * x.height + row) * x.width + column]!;
        for (let ky = 0; ky < 4; ky++) {
          const oy = 2 * row - 1 + ky;
          if (oy < 0 || oy >= y.height) continue;
          for (let kx = 0; kx < 4; kx++) {
            const ox = 2 * column - 1 + kx;
            if (ox < 0 || ox >= y.width) continue;
            for (let o = 0; o < out; o++) {
              y.values[(o * y.height + oy) * y.width + ox]! += value * weight[((i * out + o) * 4 + ky) * 4 + kx]!;
            }
          }
        }
      }
    }
  }
  return y;
}

function pixelShuffle(x: Planes): Planes {
  const y = planes(x.count / 4, 2 * x.height, 2 * x.width);
  for (let channel = 0; channel < x.count; channel++) {
    const [k, dy, dx] = [Math.floor(channel / 4), Math.floor((channel % 4) / 2), channel % 2];
    for (let row = 0; row < x.height; row++) {
      for (let column = 0; column < x.width; column++) {
        const value = x.values[(channel * x.height + row) * x.width + column]!;
        y.values[(k * y.height + 2 * row + dy) * y.width + 2 * column + dx] = value;
      }
    }
  }
  return y;
}

/** A plane at a position, coordinates clamped to it. */
function bilinear(x: Planes, plane: number, px: number, py: number): number {
  const { height, width, values } = x;
  const [cx, cy] = [Math.min(Math.max(px, 0), width - 1), Math.min(Math.max(py, 0), height - 1)];
  const [left, top] = [Math.floor(cx), Math.floor(cy)];
  const at = (row: number, column: number) =>
    values[(plane * height + Math.min(row, height - 1)) * width + Math.min(column, width - 1)]!;
  const [fx, fy] = [cx - left, cy - top];
  return (
    (at(top, left) * (1 - fx) + at(top, left + 1) * fx) * (1 - fy) +
    (at(top + 1, left) * (1 - fx) + at(top + 1, left + 1) * fx) * fy
  );
}

/** torch's `interpolate(scale_factor=factor, mode='bilinear', align_corners=False)`. */
function resize(x: Planes, factor: number): Planes {
  const y = planes(x.count, x.height * factor, x.width * factor);
  for (let plane = 0; plane < x.count; plane++) {
    for (let row = 0; row < y.height; row++) {
      for (let column = 0; column < y.width; column++) {
        const value = bilinear(x, plane, (column + 0.5) / factor - 0.5, (row + 0.5) / factor - 0.5);
        y.values[(plane * y.height + row) * y.width + column] = value;
      }
    }
  }
  return y;
}

/** Planes moved by the first two planes of `flow`, in pixels: right and down. */
function warp(x: Planes, flow: Planes): Planes {
  const size = x.height * x.width;
  const y = planes(x.count, x.height, x.width);
  for (let plane = 0; plane < x.count; plane++) {
    for (let at = 0; at < size; at++) {
      const [column, row] = [at % x.width, Math.floor(at / x.width)];
      const [dx, dy] = [flow.values[at]!, flow.values[size + at]!];
      y.values[plane * size + at] = bilinear(x, plane, column + dx, row + dy);
    }
  }
  return y;
}

/** RGB planes [3, height, width], extended to the right and below by their edge. */
function padded(rgb: ArrayLike<number>, [height, width]: readonly [number, number], multiple: number): Planes {
  const up = (side: number) => Math.ceil(side / multiple) * multiple;
  const y = planes(3, up(height), up(width));
  for (let i = 0; i < y.values.length; i++) {
    const [column, row] = [i % y.width, Math.floor(i / y.width) % y.height];
    const plane = Math.floor(i / y.width / y.height);
    y.values[i] = rgb[(plane * height + Math.min(row, height - 1)) * width + Math.min(column, width - 1)]!;
  }
  return y;
}

function encode(picture: Planes, weights: RifeTensors): Planes {
  let x = leaky(convolution(picture, weights, 'encode.cnn0', 2));
  x = leaky(convolution(x, weights, 'encode.cnn1', 1));
  x = leaky(convolution(x, weights, 'encode.cnn2', 1));
  return transposed(x, weights, 'encode.cnn3');
}

/** A block's head at the pictures' size: flow in pixels, mask, and what is passed on. */
function block(input: Planes, flow: Planes | undefined, scale: number, weights: RifeTensors, name: string): Planes {
  let x = resize(input, 1 / scale);
  if (flow) x = concat(x, times(resize(flow, 1 / scale), 1 / scale));
  x = leaky(convolution(x, weights, `${name}.conv0.0.0`, 2));
  x = leaky(convolution(x, weights, `${name}.conv0.1.0`, 2));
  for (let k = 0; k < 8; k++) {
    const y = convolution(x, weights, `${name}.convblock.${k}.conv`, 1);
    const beta = weights.get(`${name}.convblock.${k}.beta`)?.values;
    const size = y.height * y.width;
    x = leaky(plus({ ...y, values: y.values.map((value, i) => value * (beta?.[Math.floor(i / size)] ?? 1)) }, x));
  }
  const head = resize(pixelShuffle(transposed(x, weights, `${name}.lastconv.0`)), scale);
  return concat(times(slice(head, 0, 4), scale), slice(head, 4, head.count));
}

/** What the network finds between two frames. */
export interface RifeFound {
  /** The frame, [3, height, width]. */
  rgb: Float64Array;
  /** Planes of the padded size: the flow in pixels, and the mask before its sigmoid. */
  flow: Float64Array;
  mask: Float64Array;
}

/**
 * The frame between two, RGB planes [3, height, width] in 0..1, at a time between 0 and 1. `weights` may lack `beta`,
 * which is 1 then.
 */
export function rifeReference(
  weights: RifeTensors,
  { scales, multiple, encoder }: RifeVersion,
  [first, second]: readonly [ArrayLike<number>, ArrayLike<number>],
  size: readonly [height: number, width: number],
  time: number,
): RifeFound {
  const [img0, img1] = [padded(first, size, multiple), padded(second, size, multiple)];
  const { height, width } = img0;
  const t = planes(1, height, width);
  t.values.fill(time);
  const encoded = encoder ? [encode(img0, weights), encode(img1, weights)] : [];
  let [warped0, warped1] = [img0, img1];
  let flow: Planes | undefined;
  let mask: Planes | undefined;
  let passed: Planes | undefined;
  scales.forEach((scale, index) => {
    const moved = encoded.map((x, side) => (flow ? warp(x, slice(flow, 2 * side, 2 * side + 2)) : x));
    const rest = [mask, passed].filter((x) => x !== undefined);
    const head = block(concat(warped0, warped1, ...moved, t, ...rest), flow, scale, weights, `block${index}`);
    const found = slice(head, 0, 4);
    flow = flow ? plus(flow, found) : found;
    mask = mask && !encoder ? plus(mask, slice(head, 4, 5)) : slice(head, 4, 5);
    if (encoder) passed = slice(head, 5, head.count);
    warped0 = warp(img0, slice(flow, 0, 2));
    warped1 = warp(img1, slice(flow, 2, 4));
  });
  const rgb = new Float64Array(3 * size[0] * size[1]);
  for (let i = 0; i < rgb.length; i++) {
    const [column, row] = [i % size[1], Math.floor(i / size[1]) % size[0]];
    const at = row * width + column;
    const from = Math.floor(i / size[1] / size[0]) * height * width + at;
    const share = 1 / (1 + Math.exp(-mask!.values[at]!));
    rgb[i] = warped0.values[from]! * share + warped1.values[from]! * (1 - share);
  }
  return { rgb, flow: flow!.values, mask: mask!.values };
}
