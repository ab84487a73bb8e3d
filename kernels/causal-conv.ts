import { ZoetropeError } from '../src/errors';
import { defineKernel, MAX_GROUPS } from '../src/gpu/kernel';
import source from './causal-conv.wgsl?raw';

/** Side of the square of pixels that an invocation makes; the shader names each row. */
const SQUARE = 4;
/** Invocations of a workgroup: neighbours in the output channels first, so that they read neighbouring weights. */
const WORKGROUP = 64;
const MAX_LANES = 16;

/** A convolution of a whole tensor. */
export interface CausalConv {
  /** Element type of y, weight and the present frames. */
  type: 'f16' | 'f32';
  /** Present frames that are convolved. */
  frames: number;
  /** The first of them in x. Default 0. */
  firstFrame?: number;
  /** Pixels of x, border not counted. */
  from: readonly [height: number, width: number];
  /** Channels of x, a multiple of 4. */
  into: number;
  /** Pixels of y, border not counted. */
  to: readonly [height: number, width: number];
  /** Channels that the weight makes, a multiple of 4. */
  out: number;
  /** Frames that a value depends on: the present one, and with 3 the two before it. */
  taps: 1 | 3;
  /** 3: a square of 3 pixels; 1: the pixel itself. */
  kernel: 1 | 3;
  /** Frames of y that one of x makes: the output channels are theirs one after the other. Default 1. */
  parts?: 1 | 2;
  /** Reads x as if every pixel were repeated 2 × 2: y begins at this pixel of the doubled x. Default: x as it is. */
  doubledFrom?: readonly [row: number, column: number];
  /** Adds to what y holds. Default false. */
  accumulate?: boolean;
}

/** How the two frames before the present ones lie in a tensor. */
export interface Past {
  /** Element type; half floats in pairs, as `pack2x16float` makes them. */
  type: 'f16' | 'f32';
  /** Which of the two frames lies further back. */
  older: 0 | 1;
}

/** One launch of a convolution: some of the workgroups that take either the past or the present frames as x. */
export interface CausalConvShape extends CausalConv {
  /** What x is when it is the two frames before the present ones. These launches come first. */
  past?: Past;
  first: number;
  groups: number;
}

function lanes(out: number): number {
  let count = MAX_LANES;
  while ((out / 4) % count !== 0) count /= 2;
  return count;
}

/** Frames of the past that x holds. */
const PAST_FRAMES = 2;

type Part = Omit<CausalConvShape, 'first' | 'groups'>;

/** Frames of y, counted before parts, to which x contributes: the past reaches two frames far. */
function reached({ frames, past }: Part): number {
  return past ? Math.min(frames, PAST_FRAMES) : frames;
}

/** Workgroups of all launches of one part. */
function groupCount(part: Part): number {
  const { to, out } = part;
  const count = lanes(out);
  const squares = reached(part) * Math.ceil(to[0] / SQUARE) * Math.ceil(to[1] / SQUARE);
  return Math.ceil(squares / (WORKGROUP / count)) * (out / 4 / count);
}

/** Multiply-adds of one part of a convolution, squares that reach over the edge counted whole. */
export function causalConvMac(conv: Part): number {
  const fromPast = conv.taps === 1 ? 0 : conv.frames === 1 ? 2 : 3; // of frames and taps
  const products = conv.past ? fromPast : conv.taps * conv.frames - fromPast;
  return (groupCount(conv) * WORKGROUP * SQUARE ** 2 * 4 * conv.into * products * conv.kernel ** 2) / reached(conv);
}

/**
 * Launches that cover a convolution with about `maxMac` multiply-adds each, one workgroup at least.
 * @param past for a convolution over three frames: the launches with the past as x. Without, those with the present
 * frames, which go on with what the others left in y.
 */
export function causalConvLaunches(whole: CausalConv, maxMac: number, past?: Past): CausalConvShape[] {
  const conv: Part = past ? { ...whole, past } : whole;
  const total = groupCount(conv);
  const step = Math.min(MAX_GROUPS, Math.max(1, Math.floor((maxMac * total) / causalConvMac(conv))));
  return Array.from({ length: Math.ceil(total / step) }, (_, i) => ({
    ...conv,
    first: i * step,
    groups: Math.min(step, total - i * step),
  }));
}

function refuseMisfit(shape: CausalConvShape): void {
  const { frames, firstFrame = 0, from, into, to, out, taps, kernel } = shape;
  const { parts = 1, doubledFrom, past, first, groups } = shape;
  const refuse = (what: string): never => {
    throw new ZoetropeError('internal', `causal-conv ${what}.`);
  };
  if (into < 4 || into % 4 !== 0 || out < 4 || out % (4 * parts) !== 0) {
    refuse(`takes channels in fours, got ${into} to ${out} in ${parts} parts`);
  }
  if (past && taps === 1) refuse('has a past for a kernel of three frames only');
  if (
    frames < 1 ||
    firstFrame < 0 ||
    first < 0 ||
    groups < 1 ||
    groups > MAX_GROUPS ||
    first + groups > groupCount(shape)
  ) {
    refuse(
      `launches workgroups ${first}..${first + groups} of ${groupCount(shape)} for ${frames} frames from ${firstFrame}`,
    );
  }
  if (doubledFrom && (kernel !== 3 || taps !== 1)) refuse('doubles pixels for a 3 × 3 kernel of one frame only');
  for (const axis of [0, 1] as const) {
    const available = doubledFrom ? 2 * from[axis] - doubledFrom[axis] : from[axis];
    if (to[axis] < 1 || (doubledFrom?.[axis] ?? 0) < 0 || to[axis] > available) {
      refuse(`makes [${to}] pixels of [${from}]${doubledFrom ? ` doubled, from ${doubledFrom}` : ''}`);
    }
  }
}

/**
 * A convolution of Wan's VAE over frames and pixels, channels last, every frame with a border of one pixel of zeros: x
 * [frames, h + 2, w + 2, into], or in launches with a past [2, h + 2, w + 2, into], and y
 * [frames * parts, H + 2, W + 2, out / parts] of `type`. `weight` is [taps, into / 4, kernel², 4, out] of `type`,
 * `bias` f32 [out]. Borders of y stay as they are. Sums are f32, in an order that depends on nothing but the channels,
 * so that a tile equals the same part of the whole frame bit for bit, and one frame at a time equals many. The plan
 * throws `internal` for channels that do not come in fours and for pixels that x does not have.
 */
export const causalConv = defineKernel({
  name: 'causal-conv',
  source,
  bindings: { x: 'read', weight: 'read', bias: 'read', y: 'write', params: 'uniform' },
  plan: (shape: CausalConvShape) => {
    refuseMisfit(shape);
    const {
      type,
      frames,
      firstFrame = 0,
      from,
      into,
      to,
      out,
      taps,
      kernel,
      parts = 1,
      doubledFrom,
      accumulate,
      past,
      first,
      groups,
    } = shape;
    return {
      prelude: { T: type, X: past?.type === 'f16' ? 'u32' : type, SPATIAL: kernel === 3, PACKED: past?.type === 'f16' },
      overrides: { WORKGROUP },
      params: [
        first,
        lanes(out),
        reached(shape),
        ...to,
        into / 4,
        out / 4,
        taps,
        parts,
        ...from,
        doubledFrom ? 1 : 0,
        ...(doubledFrom ?? [0, 0]),
        accumulate ? 1 : 0,
        past ? 0 : firstFrame,
        past ? PAST_FRAMES : frames,
        past || taps === 1 ? 0 : PAST_FRAMES,
        past?.older ?? 0,
        past || taps === 1 ? 0 : Math.min(frames, PAST_FRAMES),
      ],
      groups: [groups, 1, 1],
    };
  },
});

/** The demo's finest level, the head, a doubling of the frame rate, and a tile's upsampling. */
const convolutions: readonly Omit<CausalConv, 'type'>[] = [
  { frames: 4, from: [64, 64], into: 16, to: [64, 64], out: 16, taps: 3, kernel: 3, accumulate: true },
  { frames: 4, from: [270, 263], into: 96, to: [270, 263], out: 4, taps: 3, kernel: 3 },
  { frames: 1, from: [90, 160], into: 384, to: [90, 160], out: 768, taps: 3, kernel: 1, parts: 2 },
  { frames: 4, from: [45, 50], into: 384, to: [78, 91], out: 192, taps: 1, kernel: 3, doubledFrom: [9, 0] },
];

/** Shapes that every build of the shader has to compile for. */
export const examples: readonly CausalConvShape[] = /* @__PURE__ */ (['f32', 'f16'] as const).flatMap((type) =>
  convolutions.flatMap((conv) => [
    ...(conv.taps === 3 ? causalConvLaunches({ ...conv, type }, 5e10, { type: 'f16', older: 1 }).slice(0, 1) : []),
    ...causalConvLaunches({ ...conv, type }, 5e10).slice(0, 1),
  ]),
);
