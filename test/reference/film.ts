import type { FilmConfig } from '../../src/part/film';

/**
 * FILM in float64, written after its definition in planes and concatenations, in torch's order of channels. Slow and
 * plain.
 */

/** Planes [channels][height * width]. */
interface Planes {
  height: number;
  width: number;
  planes: Float64Array[];
}

/** Tensors by name, with torch's shapes. */
export type FilmTensors = ReadonlyMap<string, { shape: readonly number[]; values: ArrayLike<number> }>;

function map(
  size: Pick<Planes, 'height' | 'width'>,
  count: number,
  value: (c: number, y: number, x: number) => number,
) {
  const { height, width } = size;
  const planes = Array.from({ length: count }, (_, c) => {
    const plane = new Float64Array(height * width);
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) plane[y * width + x] = value(c, y, x);
    return plane;
  });
  return { height, width, planes };
}

function concat(...parts: Planes[]): Planes {
  const { height, width } = parts[0]!;
  return { height, width, planes: parts.flatMap(({ planes }) => planes) };
}

/** A convolution; even kernels have their padding below and to the right. */
function conv(tensors: FilmTensors, name: string, x: Planes, leaky = true): Planes {
  const weight = tensors.get(`${name}.weight`)!;
  const bias = tensors.get(`${name}.bias`)!.values;
  const [out, into, kernel] = weight.shape as [number, number, number];
  if (into !== x.planes.length) throw new Error(`${name} reads ${into} channels, got ${x.planes.length}.`);
  const before = Math.floor((kernel - 1) / 2);
  const { height, width } = x;
  const planes = Array.from({ length: out }, (_, o) => {
    const plane = new Float64Array(height * width).fill(bias[o]!);
    for (let i = 0; i < into; i++) {
      for (let ky = 0; ky < kernel; ky++) {
        for (let kx = 0; kx < kernel; kx++) {
          const w = weight.values[((o * into + i) * kernel + ky) * kernel + kx]!;
          const [dy, dx] = [ky - before, kx - before];
          for (let y = Math.max(0, -dy); y < Math.min(height, height - dy); y++) {
            for (let column = Math.max(0, -dx); column < Math.min(width, width - dx); column++) {
              plane[y * width + column]! += w * x.planes[i]![(y + dy) * width + column + dx]!;
            }
          }
        }
      }
    }
    return leaky ? plane.map((value) => (value < 0 ? 0.2 * value : value)) : plane;
  });
  return { height, width, planes };
}

function halve(x: Planes): Planes {
  const size = { height: x.height / 2, width: x.width / 2 };
  return map(size, x.planes.length, (c, y, column) => {
    const plane = x.planes[c]!;
    const at = 2 * y * x.width + 2 * column;
    return (plane[at]! + plane[at + 1]! + plane[at + x.width]! + plane[at + x.width + 1]!) / 4;
  });
}

/** Value at a place between pixels, clamped to the picture. */
function sample({ height, width, planes }: Planes, c: number, y: number, x: number): number {
  const [cy, cx] = [Math.min(Math.max(y, 0), height - 1), Math.min(Math.max(x, 0), width - 1)];
  const [top, left] = [Math.floor(cy), Math.floor(cx)];
  const [bottom, right] = [Math.min(top + 1, height - 1), Math.min(left + 1, width - 1)];
  const plane = planes[c]!;
  const upper = plane[top * width + left]! * (1 - cx + left) + plane[top * width + right]! * (cx - left);
  const lower = plane[bottom * width + left]! * (1 - cx + left) + plane[bottom * width + right]! * (cx - left);
  return upper * (1 - cy + top) + lower * (cy - top);
}

const double = (x: Planes) => ({ height: 2 * x.height, width: 2 * x.width });

function warp(x: Planes, flow: Planes, scale = 1): Planes {
  return map(x, x.planes.length, (c, y, column) => {
    const at = y * x.width + column;
    return sample(x, c, y + scale * flow.planes[1]![at]!, column + scale * flow.planes[0]![at]!);
  });
}

function pyramid(tensors: FilmTensors, picture: Planes): { pictures: Planes[]; features: Planes[] } {
  const pictures = [picture];
  for (let level = 1; level < 7; level++) pictures.push(halve(pictures[level - 1]!));
  const stages = pictures.map((from, level) => {
    const made: Planes[] = [];
    for (let stage = 0; stage < Math.min(4, 7 - level); stage++) {
      const name = `extract.extract_sublevels.convs.${stage}`;
      const input = stage === 0 ? from : halve(made[stage - 1]!);
      made.push(conv(tensors, `${name}.1.0`, conv(tensors, `${name}.0.0`, input)));
    }
    return made;
  });
  const features = pictures.map((_, level) =>
    concat(...[0, 1, 2, 3].filter((stage) => stage <= level).map((stage) => stages[level - stage]![stage]!)),
  );
  return { pictures, features };
}

function flows(tensors: FilmTensors, first: Planes[], second: Planes[]): Planes[] {
  const levels: Planes[] = [];
  for (let level = 6; level >= 0; level--) {
    const predictor = level >= 3 ? '_predictor' : `_predictors.${2 - level}`;
    const name = (layer: number) => `predict_flow.${predictor}._convs.${layer}.0`;
    const coarse = levels[level + 1];
    const before = coarse && map(double(coarse), 2, (c, y, x) => 2 * sample(coarse, c, y / 2 - 0.25, x / 2 - 0.25));
    let x = concat(first[level]!, before ? warp(second[level]!, before) : second[level]!);
    for (let layer = 0; layer < 4; layer++) x = conv(tensors, name(layer), x);
    const residual = conv(tensors, name(4), x, false);
    const sum = (c: number, at: number) => residual.planes[c]![at]! + (before ? before.planes[c]![at]! : 0);
    levels[level] = map(residual, 2, (c, y, column) => sum(c, y * residual.width + column));
  }
  return levels;
}

/**
 * The frame at a time between two pictures [3, height, width] in 0..1, not clamped. Sides that are no multiples of 64
 * are extended by zeros, half on each side.
 */
export function filmReferenceFrame(
  { filters }: FilmConfig,
  tensors: FilmTensors,
  pair: readonly [ArrayLike<number>, ArrayLike<number>],
  [height, width]: readonly [number, number],
  time: number,
): Float64Array {
  const size = { height: Math.ceil(height / 64) * 64, width: Math.ceil(width / 64) * 64 };
  const [top, left] = [Math.floor((size.height - height) / 2), Math.floor((size.width - width) / 2)];
  const pyramids = pair.map((picture) => {
    const inside = (y: number, x: number) => y >= 0 && x >= 0 && y < height && x < width;
    const read = (c: number, y: number, x: number) => (inside(y, x) ? picture[(c * height + y) * width + x]! : 0);
    return pyramid(
      tensors,
      map(size, 3, (c, y, x) => read(c, y - top, x - left)),
    );
  });
  const [first, second] = pyramids as [ReturnType<typeof pyramid>, ReturnType<typeof pyramid>];
  const forward = flows(tensors, first.features, second.features);
  const backward = flows(tensors, second.features, first.features);
  const scaled = (flow: Planes, by: number) => ({ ...flow, planes: flow.planes.map((p) => p.map((v) => v * by)) });
  const aligned = (level: number) =>
    concat(
      warp(concat(first.pictures[level]!, first.features[level]!), backward[level]!, time),
      warp(concat(second.pictures[level]!, second.features[level]!), forward[level]!, 1 - time),
      scaled(backward[level]!, time),
      scaled(forward[level]!, 1 - time),
    );
  let net = aligned(4);
  for (let level = 3; level >= 0; level--) {
    const name = `fuse.convs.${3 - level}`;
    const coarse = net;
    const nearest = map(double(coarse), coarse.planes.length, (c, y, x) => {
      return coarse.planes[c]![Math.floor(y / 2) * coarse.width + Math.floor(x / 2)]!;
    });
    const up = conv(tensors, `${name}.0.0`, nearest, false);
    net = conv(tensors, `${name}.2.0`, conv(tensors, `${name}.1.0`, concat(aligned(level), up)));
  }
  if (net.planes.length !== filters) throw new Error(`${net.planes.length} channels at the end, not ${filters}.`);
  const out = conv(tensors, 'fuse.output_conv', net, false);
  const rgb = new Float64Array(3 * height * width);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        rgb[(c * height + y) * width + x] = out.planes[c]![(y + top) * size.width + x + left]!;
      }
    }
  }
  return rgb;
}
