/** The operators of `src/onnx/ops.ts` in float64 and plain loops, over flat arrays in row-major order. */

/** Flat values with their shape. */
export interface Array64 {
  shape: readonly number[];
  data: ArrayLike<number>;
}

const count = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

/** Index along each axis of element `flat`. */
function indexOf(flat: number, shape: readonly number[]): number[] {
  const index = new Array<number>(shape.length);
  let rest = flat;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = rest % shape[axis]!;
    rest = Math.floor(rest / shape[axis]!);
  }
  return index;
}

/** Element at an index; axes of size 1 repeat, missing leading axes too. */
function at({ shape, data }: Array64, index: readonly number[]): number {
  const skipped = index.length - shape.length;
  return data[shape.reduce((flat, size, axis) => flat * size + (size === 1 ? 0 : index[axis + skipped]!), 0)]!;
}

/** An array of `shape` whose element at an index is `value(index)`. */
function generate(shape: readonly number[], value: (index: number[]) => number): Array64 & { data: Float64Array } {
  return { shape, data: Float64Array.from({ length: count(shape) }, (_, flat) => value(indexOf(flat, shape))) };
}

/** `f` of two arrays element by element, in the broadcast `shape`. */
export const binary = (a: Array64, b: Array64, shape: readonly number[], f: (x: number, y: number) => number) =>
  generate(shape, (index) => f(at(a, index), at(b, index)));

/** `f` of each element. */
export const map = (x: Array64, f: (value: number) => number) => generate(x.shape, (index) => f(at(x, index)));

export const transpose = (x: Array64, order: readonly number[]) =>
  generate(
    order.map((axis) => x.shape[axis]!),
    (index) => {
      const from = new Array<number>(order.length);
      order.forEach((axis, i) => {
        from[axis] = index[i]!;
      });
      return at(x, from);
    },
  );

export const slice = (x: Array64, axis: number, begin: number, end: number) =>
  generate(
    x.shape.map((size, i) => (i === axis ? end - begin : size)),
    (index) =>
      at(
        x,
        index.map((n, i) => (i === axis ? n + begin : n)),
      ),
  );

export function concat(parts: readonly Array64[], axis: number) {
  const size = parts.reduce((sum, part) => sum + part.shape[axis]!, 0);
  return generate(
    parts[0]!.shape.map((n, i) => (i === axis ? size : n)),
    (index) => {
      let along = index[axis]!;
      for (const part of parts) {
        if (along < part.shape[axis]!) return at(part, index.with(axis, along));
        along -= part.shape[axis]!;
      }
      throw new RangeError('past the last part');
    },
  );
}

/** Product over the last two axes, the leading ones broadcast to `batch`. */
export function matmul(a: Array64, b: Array64, batch: readonly number[]) {
  const [m, k] = a.shape.slice(-2) as [number, number];
  const n = b.shape.at(-1)!;
  return generate([...batch, m, n], (index) => {
    const column = index.pop()!;
    const row = index.pop()!;
    let sum = 0;
    for (let i = 0; i < k; i++) sum += at(a, [...index, row, i]) * at(b, [...index, i, column]);
    return sum;
  });
}

/** x [tokens, columns] times the transpose of matrix [rows, columns], plus bias [rows]. */
export const linear = (x: Array64, matrix: Array64, bias: ArrayLike<number> | null) =>
  generate([x.shape[0]!, matrix.shape[0]!], ([token, row]) => {
    let sum = bias?.[row!] ?? 0;
    for (let i = 0; i < x.shape[1]!; i++) sum += at(x, [token!, i]) * at(matrix, [row!, i]);
    return sum;
  });

/** Rows of the table at whole-number indices. */
export const gather = (table: Array64, indices: Array64) =>
  generate([...indices.shape, ...table.shape.slice(1)], (index) =>
    at(table, [at(indices, index.slice(0, indices.shape.length)), ...index.slice(indices.shape.length)]),
  );

export const reduceSum = (x: Array64, axis: number) =>
  generate(
    x.shape.map((size, i) => (i === axis ? 1 : size)),
    (index) => {
      let sum = 0;
      for (let i = 0; i < x.shape[axis]!; i++) sum += at(x, index.with(axis, i));
      return sum;
    },
  );

/** Rows along the last axis, each replaced by `f` of itself. */
function rows(x: Array64, f: (row: number[]) => number[]) {
  const width = x.shape.at(-1)!;
  const data = new Float64Array(count(x.shape));
  for (let begin = 0; begin < data.length; begin += width) {
    data.set(f(Array.from({ length: width }, (_, i) => x.data[begin + i]!)), begin);
  }
  return { shape: x.shape, data };
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** (x - mean) / sqrt(biased variance + eps) * weight + bias over the last axis. */
export const layerNorm = (x: Array64, weight: ArrayLike<number>, bias: ArrayLike<number> | null, eps: number) =>
  rows(x, (row) => {
    const centre = mean(row);
    const deviation = Math.sqrt(mean(row.map((value) => (value - centre) ** 2)) + eps);
    return row.map((value, i) => ((value - centre) / deviation) * weight[i]! + (bias?.[i] ?? 0));
  });

/** x / sqrt(mean(x^2) + eps) * weight over the last axis. */
export const rmsNorm = (x: Array64, weight: ArrayLike<number>, eps: number) =>
  rows(x, (row) => {
    const rms = Math.sqrt(mean(row.map((value) => value * value)) + eps);
    return row.map((value, i) => (value / rms) * weight[i]!);
  });

export const softmax = (x: Array64) =>
  rows(x, (row) => {
    const top = Math.max(...row);
    const powers = row.map((value) => Math.exp(value - top));
    const total = powers.reduce((sum, power) => sum + power, 0);
    return powers.map((power) => power / total);
  });

/** Cross-correlation of NCHW with weight [out, in, kh, kw], zeros beyond the edges. */
export function conv2d(x: Array64, weight: Array64, bias: ArrayLike<number>, pad: number) {
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const [out, , kh, kw] = weight.shape as [number, number, number, number];
  return generate([batch, out, height + 2 * pad - kh + 1, width + 2 * pad - kw + 1], ([n, o, row, column]) => {
    let sum = bias[o!]!;
    for (let c = 0; c < channels; c++) {
      for (let dy = 0; dy < kh; dy++) {
        for (let dx = 0; dx < kw; dx++) {
          const [y, x2] = [row! + dy - pad, column! + dx - pad];
          if (y < 0 || y >= height || x2 < 0 || x2 >= width) continue;
          sum += at(x, [n!, c, y, x2]) * at(weight, [o!, c, dy, dx]);
        }
      }
    }
    return sum;
  });
}

export const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
export const geluTanh = (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** A quantised matrix as a model file holds it, and what it stands for. */
export interface Quantised {
  /** [rows, columns / 32, 4 * bits], low bits first. */
  bytes: Uint8Array;
  /** [rows, columns / 32]. */
  scales: Float32Array;
  /** [rows, ceil(columns / 32 * bits / 8)], low bits first, each row starting a byte. */
  zeroPoints: Uint8Array | null;
  /** (q - zero point) * scale, the zero point 2^(bits - 1) where there is none. */
  matrix: Array64;
}

/** A matrix of random codes, scales and zero points. `random` gives numbers in [0, 1). */
export function quantised(
  [rows, columns]: [number, number],
  bits: 8 | 4,
  withZeroPoints: boolean,
  random: () => number,
): Quantised {
  const blocks = columns / 32;
  const codes = Array.from({ length: rows * columns }, () => Math.floor(random() * 2 ** bits));
  const points = Array.from({ length: rows * blocks }, () => Math.floor(random() * 2 ** bits));
  const scales = Float32Array.from({ length: rows * blocks }, () => (0.5 + random()) / 2 ** bits);
  const zeroPoints = new Uint8Array(rows * Math.ceil((blocks * bits) / 8));
  for (let row = 0; row < rows; row++) pack(zeroPoints, row, points.slice(row * blocks, (row + 1) * blocks), bits);
  const bytes = new Uint8Array((rows * columns * bits) / 8);
  for (let row = 0; row < rows; row++) pack(bytes, row, codes.slice(row * columns, (row + 1) * columns), bits);
  const matrix = generate([rows, columns], ([row, column]) => {
    const block = row! * blocks + Math.floor(column! / 32);
    const zero = withZeroPoints ? points[block]! : 2 ** (bits - 1);
    return (codes[row! * columns + column!]! - zero) * scales[block]!;
  });
  return { bytes, scales, zeroPoints: withZeroPoints ? zeroPoints : null, matrix };
}

/** Writes the codes of a row, the first into the low bits. */
function pack(into: Uint8Array, row: number, codes: readonly number[], bits: 8 | 4): void {
  const perByte = 8 / bits;
  const begin = row * Math.ceil(codes.length / perByte);
  codes.forEach((code, i) => {
    into[begin + Math.floor(i / perByte)]! |= code << (bits * (i % perByte));
  });
}
