import { readFileSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Folder } from '../../src/manifest';
import { resize, SIDE } from '../../src/safety/pictures';

/** The picture classifier's files and the pictures of its golden case. */

const files = resolve(import.meta.dirname, '../../public/models/frames-check');

/** The shipped files; `change` alters what is read of one. */
export function classifierFolder(change: (path: string, bytes: Uint8Array) => void = () => undefined): Folder {
  return {
    async open(path) {
      const file = resolve(files, path);
      const { size } = await stat(file);
      return {
        sizeBytes: size,
        async read(begin, end) {
          const bytes = new Uint8Array(await readFile(file));
          change(path, bytes);
          return bytes.slice(begin, end);
        },
      };
    },
  };
}

/** What the case states. */
export interface PictureCase {
  config: { classes: string[] };
  tolerance: { abs: number };
  outputs: Record<keyof typeof PICTURES, number[]>;
}

/** The case in a folder. */
export function pictureCase(folder: string): PictureCase {
  return JSON.parse(readFileSync(resolve(folder, 'case.json'), 'utf8'));
}

/** Planes of a picture given by a formula of column, row and colour. */
function planes(width: number, height: number, value: (x: number, y: number, c: number) => number): Float32Array {
  return Float32Array.from({ length: 3 * width * height }, (_, i) =>
    value(i % width, Math.floor(i / width) % height, Math.floor(i / (width * height))),
  );
}

/** The case's inputs by name. */
export const PICTURES = {
  zeros: () => new Float32Array(3 * SIDE * SIDE),
  synth: () => planes(SIDE, SIDE, (x, y, c) => ((7 * y + 13 * x + 29 * c) % 256) / 255),
  ramp_160x90: () =>
    resize(
      planes(160, 90, (x, y, c) => ((3 * x + 5 * y + 40 * c) % 256) / 255),
      160,
      90,
    ),
};
