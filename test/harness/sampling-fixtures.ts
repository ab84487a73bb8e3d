import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as fixture from '../fixtures/case';

/** The numerical fixtures and the demo model beside the repository, if they are there. */
const SHARED = new URL('../../../shared/', import.meta.url);
export const hasFixtures = existsSync(new URL('fixtures/index.json', SHARED));
export const hasDemoGoldens = existsSync(new URL('data/demo-model/golden/', SHARED));

/** `case.json` of a folder below the shared one, e.g. `fixtures/noise`. */
export function readCase<T>(folder: string): T {
  return fixture.readCase<T>(fileURLToPath(new URL(folder, SHARED)));
}

/** Reads F32 tensors of a safetensors file below the shared folder by name, flattened. */
export function openF32(path: string): (name: string) => Float32Array {
  const tensors = fixture.readTensors(fileURLToPath(new URL(path, SHARED)));
  return (name) => tensors.get(name)!.values as Float32Array;
}

/** The fill rule of the fixtures: `count` values of offset + scale * u, u in [-0.5, 0.5). */
export function fill(name: string, scale: number, count: number, offset = 0): Float32Array {
  return fixture.fill(name, scale, offset, count);
}

/** How far `actual` is from `expected`; NaN anywhere makes every figure NaN. */
export function deviation(actual: ArrayLike<number>, expected: ArrayLike<number>) {
  const figures = fixture.deviation(actual, expected);
  let maxAbs = 0;
  for (let i = 0; i < expected.length; i++) maxAbs = Math.max(maxAbs, Math.abs(actual[i]! - expected[i]!));
  return { ...figures, maxAbs };
}
