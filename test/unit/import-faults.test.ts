import { expect, it } from 'vitest';
import { importCheckpoint } from '../../src/checkpoint/import';
import { ZoetropeError } from '../../src/errors';
import { type Folder, hashPiece } from '../../src/manifest';
import { openModel } from '../../src/store/verified';
import { checkpointFiles } from '../harness/checkpoint';
import { type MemoryFolder, memoryFolder } from '../harness/memory-folder';
import { seededUniform } from '../harness/near';

/** Faults over all imports together. */
const FAULTS = 100;

/** Small, so that the tiny checkpoint is noted many times. */
const NOTE_BYTES = 50_000;

const source = checkpointFiles();
const WRITES = 40;
const READS = 160;

type Uniform = () => number;
const upTo = (uniform: Uniform, end: number) => Math.floor(uniform() * end);

/** The target as a process sees it in which the n-th write goes wrong. */
function failingTarget(folder: MemoryFolder, nth: number, kind: 'killed' | 'full disk'): MemoryFolder {
  let left = nth;
  let over = false;
  const guard = (file: Awaited<ReturnType<MemoryFolder['create']>>): typeof file => ({
    async write(position, bytes) {
      if (!over && left-- > 0) return file.write(position, bytes);
      if (kind === 'killed' && over) throw new ZoetropeError('unreadable-source', 'The process is dead.');
      over = true;
      // Part of the bytes: a full disk takes some, a process dies between two.
      await file.write(position, bytes.subarray(0, bytes.length >> 1));
      throw new ZoetropeError('unreadable-source', `The target failed: ${kind}.`);
    },
    close: () => file.close(),
  });
  return {
    ...folder,
    create: async (path) => {
      if (over && kind === 'killed') throw new ZoetropeError('unreadable-source', 'The process is dead.');
      return guard(await folder.create(path));
    },
    reopen: async (path) => guard(await folder.reopen(path)),
  };
}

/**
 * The source at whose n-th read something happens: the import is stopped, the disk fails, or the file turns out to be
 * changed.
 */
function failingSource(folder: Folder, nth: number, kind: string, stop: () => void): Folder {
  let left = nth;
  return {
    async open(path) {
      const file = await folder.open(path);
      return {
        sizeBytes: file.sizeBytes,
        async read(begin, end) {
          const now = left-- === 0;
          if (now && kind === 'stopped') stop();
          else if (now) throw new ZoetropeError('unreadable-source', `${path}: ${kind}.`);
          return file.read(begin, end);
        },
      };
    },
  };
}

/** What happens to the target between two runs. */
const DAMAGES: Record<string, (target: MemoryFolder, path: string, uniform: Uniform) => void> = {
  'flipped bit': ({ files }, path, uniform) => {
    const bytes = files.get(path)!;
    if (bytes.length > 0) bytes[upTo(uniform, bytes.length)]! ^= 1 << upTo(uniform, 8);
  },
  'cut file': ({ files }, path, uniform) => {
    const bytes = files.get(path)!;
    files.set(path, bytes.slice(0, upTo(uniform, bytes.length)));
  },
  'evicted file': ({ files }, path) => void files.delete(path),
};

function run(target: MemoryFolder, from: Folder, signal?: AbortSignal) {
  const options = { quantization: 'q4', name: 'test', noteBytes: NOTE_BYTES, signal } as const;
  return importCheckpoint({ folder: from, sink: target, journal: target, ...options });
}

async function hashes({ files }: MemoryFolder) {
  const all = [...files].sort(([a], [b]) => (a < b ? -1 : 1));
  return Promise.all(all.map(async ([path, bytes]) => `${path} ${await hashPiece(bytes)}`));
}

it(`imports end with the same bytes after ${FAULTS} seeded faults`, { timeout: 120_000 }, async () => {
  const plain = memoryFolder();
  await run(plain, memoryFolder(source));
  const expected = await hashes(plain);
  const uniform = seededUniform(31);
  const faults = new Map<string, number>();
  const count = (kind: string) => faults.set(kind, (faults.get(kind) ?? 0) + 1);
  const total = () => [...faults.values()].reduce((sum, number) => sum + number, 0);
  let imports = 0;
  for (; total() < FAULTS; imports++) {
    const target = memoryFolder();
    for (let attempt = 0; ; attempt++) {
      expect(attempt, 'makes no progress').toBeLessThan(100);
      let sink = target;
      let from: Folder = memoryFolder(source);
      const stop = new AbortController();
      const kind = ['killed', 'full disk', 'read error', 'changed source', 'stopped', 'none'][upTo(uniform, 6)]!;
      if (kind === 'killed' || kind === 'full disk') sink = failingTarget(target, upTo(uniform, WRITES), kind);
      else if (kind !== 'none') from = failingSource(from, upTo(uniform, READS), kind, () => stop.abort());
      const result = await run(sink, from, stop.signal).catch((error: unknown) => error);
      if (!(result instanceof Error)) break;
      count(kind);
      expect(result).toBeInstanceOf(ZoetropeError);
      // Never a model until all of it is there.
      await expect(openModel(target)).rejects.toBeInstanceOf(ZoetropeError);
      if (uniform() < 0.3) {
        const damage = Object.keys(DAMAGES)[upTo(uniform, 3)]!;
        const paths = [...target.files.keys()];
        if (paths.length === 0) continue;
        count(damage);
        DAMAGES[damage]!(target, paths[upTo(uniform, paths.length)]!, uniform);
      }
    }
    expect(await hashes(target)).toEqual(expected);
  }
  console.log(`${total()} faults in ${imports} imports: ${JSON.stringify(Object.fromEntries(faults))}`);
  expect([...faults.keys()].sort()).toEqual(
    ['killed', 'full disk', 'read error', 'changed source', 'stopped', ...Object.keys(DAMAGES)].sort(),
  );
});
