import { existsSync, readFileSync } from 'node:fs';

/** The numerical fixtures and the demo model beside the repository, if they are there. */
const SHARED = new URL('../../../shared/', import.meta.url);
export const hasFixtures = existsSync(new URL('fixtures/index.json', SHARED));
export const hasDemoGoldens = existsSync(new URL('data/demo-model/golden/', SHARED));

/** `case.json` of a folder below the shared one, e.g. `fixtures/noise`. */
export function readCase<T>(folder: string): T {
  return JSON.parse(readFileSync(new URL(`${folder}/case.json`, SHARED), 'utf8'));
}

/** Reads F32 tensors of a safetensors file by name, flattened. */
export function openF32(path: string): (name: string) => Float32Array {
  const bytes = readFileSync(new URL(path, SHARED));
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString('utf8', 8, start));
  return (name) => {
    const [begin, end] = header[name].data_offsets;
    return new Float32Array(new Uint8Array(bytes.subarray(start + begin, start + end)).buffer);
  };
}

/** The fill rule of the fixtures: `count` values of offset + scale * u, u in [-0.5, 0.5). */
export function fill(name: string, scale: number, count: number, offset = 0): Float32Array {
  let seed = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) seed = Math.imul(seed ^ byte, 0x01000193);
  return Float32Array.from({ length: count }, (_, i) => {
    let h = seed + Math.imul(i, 0x9e3779b1);
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h ^= h >>> 16;
    return offset + scale * ((h >>> 8) / 2 ** 24 - 0.5);
  });
}

/** How far `actual` is from `expected`; NaN anywhere makes every figure NaN. */
export function deviation(actual: ArrayLike<number>, expected: ArrayLike<number>) {
  if (actual.length !== expected.length) throw new Error(`${actual.length} values, expected ${expected.length}`);
  let squares = 0;
  let norm = 0;
  let maxAbs = 0;
  let peak = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    squares += difference ** 2;
    norm += expected[i]! ** 2;
    maxAbs = Math.max(maxAbs, difference);
    peak = Math.max(peak, Math.abs(expected[i]!));
  }
  return { relRms: Math.sqrt(squares / norm), maxRel: maxAbs / peak, maxAbs };
}
