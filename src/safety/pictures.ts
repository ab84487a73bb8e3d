import { ZoetropeError } from '../errors';
import type { HostModel, Ort } from '../gpu/ort';
import { type Folder, hashPiece } from '../manifest';
import { contentPolicyError, type Verdict } from './checker';
import { PICTURE, PROBABILITIES, pictureGraph, type TfModel } from './tfjs';

/**
 * Looks at frames: MobileNetV2Mid of nsfwjs 4.4.0 (MIT), on the CPU. An extra of ours; the hosted endpoint has none.
 */

/** Classes in the model's order. */
export const CLASSES = ['Drawing', 'Hentai', 'Neutral', 'Porn', 'Sexy'] as const;

/** Side of the pictures that the model takes. */
export const SIDE = 224;

/** Files and their SHA-256, as infinitered/nsfwjs d55a54c has them; `model.json` without white space. */
const FILES: readonly (readonly [path: string, sha256: string])[] = [
  ['model.json', '935a537cc627402ee7303f75e59083809ab857ae99969523ba1aa726c65c8161'],
  ['group1-shard1of2', '70e4519134a0a12417ad80b6c299d8a2b90e52ce389d03d9d56b08df6b7f5b09'],
  ['group1-shard2of2', '70f6216b39b52b6f1e31e13683c71987a587dc1a85644adffa17cb48c2e9bee7'],
];

/** Frames that are looked at, evenly spaced; ours. */
const SAMPLES = 8;
/** Mean and highest sum of Porn and Hentai above which a clip is refused; ours, not tuned on real content. */
const MEAN_LIMIT = 0.5;
const FRAME_LIMIT = 0.85;

/** A frame as the encoder takes it: I420, BT.709, limited range. */
export interface Picture {
  data: Uint8Array;
  width: number;
  height: number;
}

/** Reads and verifies the model's files. Throws `unreadable-source`, `corrupt-data`. */
export async function openPictureModel(folder: Folder, ort: Ort): Promise<HostModel> {
  const parts: Uint8Array[] = [];
  for (const [path, sha256] of FILES) {
    const file = await folder.open(path);
    const bytes = await file.read(0, file.sizeBytes);
    if ((await hashPiece(bytes)) !== sha256) {
      const message = `${path} of the picture classifier is not the published file. Put it in place again.`;
      throw new ZoetropeError('corrupt-data', message);
    }
    parts.push(bytes);
  }
  const model = JSON.parse(new TextDecoder().decode(parts[0])) as TfModel;
  const weights = new Uint8Array(parts[1]!.length + parts[2]!.length);
  weights.set(parts[1]!);
  weights.set(parts[2]!, parts[1]!.length);
  return ort.openOnHost('picture classifier', pictureGraph(model, weights, SIDE).toModel());
}

/** Probabilities of {@link CLASSES} for colours [3, SIDE, SIDE], 0 to 1. */
export async function classify(model: HostModel, colours: Float32Array): Promise<number[]> {
  const outputs = await model.run({ [PICTURE]: { type: 'float32', data: colours, dims: [1, 3, SIDE, SIDE] } });
  return Array.from(outputs[PROBABILITIES]!);
}

/**
 * Bilinear resize of planes [3, height, width] to [3, SIDE, SIDE], corners on corners, the shape not kept, as nsfwjs
 * does.
 */
export function resize(planes: Float32Array, width: number, height: number): Float32Array {
  const out = new Float32Array(3 * SIDE * SIDE);
  const axis = (size: number) =>
    Array.from({ length: SIDE }, (_, i) => {
      const at = (i * (size - 1)) / (SIDE - 1);
      const low = Math.floor(at);
      return [low, Math.min(low + 1, size - 1), at - low] as const;
    });
  const [xs, ys] = [axis(width), axis(height)];
  for (let c = 0; c < 3; c++) {
    const plane = planes.subarray(c * width * height, (c + 1) * width * height);
    ys.forEach(([y0, y1, fy], y) => {
      xs.forEach(([x0, x1, fx], x) => {
        const above = plane[y0 * width + x0]! * (1 - fx) + plane[y0 * width + x1]! * fx;
        const below = plane[y1 * width + x0]! * (1 - fx) + plane[y1 * width + x1]! * fx;
        out[(c * SIDE + y) * SIDE + x] = above * (1 - fy) + below * fy;
      });
    });
  }
  return out;
}

/** R, G and B planes, 0 to 1, of an I420 picture: BT.709 limited range (ITU-R BT.709-6, item 3), chroma repeated. */
export function coloursOf({ data, width, height }: Picture): Float32Array {
  const size = width * height;
  const planes = new Float32Array(3 * size);
  const clamp = (value: number) => Math.min(1, Math.max(0, value));
  for (let i = 0; i < size; i++) {
    const chroma = size + ((Math.floor(i / width) >> 1) * width) / 2 + ((i % width) >> 1);
    const y = (data[i]! - 16) / 219;
    const u = (data[chroma]! - 128) / 224;
    const v = (data[chroma + size / 4]! - 128) / 224;
    planes[i] = clamp(y + 1.5748 * v);
    planes[size + i] = clamp(y - 0.1873 * u - 0.4681 * v);
    planes[2 * size + i] = clamp(y + 1.8556 * u);
  }
  return planes;
}

/** Frames to look at, of `count`. */
export function sampleFrames(count: number): Set<number> {
  const samples = Math.min(SAMPLES, count);
  return new Set(Array.from({ length: samples }, (_, i) => Math.round(((i + 0.5) * count) / samples - 0.5)));
}

/** The verdict on a clip by its frames' probabilities: means of every class. */
export function judgeFrames(frames: readonly (readonly number[])[]): Verdict {
  const mean = (of: (frame: readonly number[]) => number) =>
    frames.reduce((sum, frame) => sum + of(frame), 0) / Math.max(1, frames.length);
  const unsafe = (frame: readonly number[]) => frame[1]! + frame[3]!;
  const flagged = mean(unsafe) > MEAN_LIMIT || frames.some((frame) => unsafe(frame) > FRAME_LIMIT);
  const categories = Object.fromEntries(CLASSES.map((name, i) => [name, mean((frame) => frame[i]!)]));
  return { checker: 'frames', flagged, categories };
}

/**
 * Passes frames on and looks at some as they come. Throws `content-policy-violation` behind the last one, before a
 * video is made of them; `loc` is the body, since no single field is to blame.
 */
export async function* checkFrames<T extends Picture>(
  frames: AsyncIterable<T>,
  count: number,
  model: HostModel,
): AsyncGenerator<T> {
  const samples = sampleFrames(count);
  const seen: number[][] = [];
  let index = 0;
  for await (const frame of frames) {
    if (samples.has(index++)) {
      seen.push(await classify(model, resize(coloursOf(frame), frame.width, frame.height)));
    }
    yield frame;
  }
  const verdict = judgeFrames(seen);
  if (verdict.flagged) throw contentPolicyError(['body'], undefined, verdict);
}
