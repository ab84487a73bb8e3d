import { describe, expect, it } from 'vitest';
import { importCheckpoint } from '../../src/checkpoint/import';
import { HUGGING_FACE_UMT5 } from '../../src/checkpoint/names';
import { parseUmt5Config, umt5Shapes } from '../../src/config';
import { ZoetropeError } from '../../src/errors';
import { hashPiece } from '../../src/manifest';
import { openModel } from '../../src/store/verified';
import {
  checkpointFiles,
  checkpointTensors,
  componentTensors,
  replaceJson,
  SEEDS,
  TEXT_ENCODER,
} from '../harness/checkpoint';
import { type MemoryFolder, memoryFolder } from '../harness/memory-folder';
import { seededUniform } from '../harness/near';

const source = checkpointFiles();
/** Small, so that the tiny checkpoint is noted many times. */
const NOTE_BYTES = 50_000;

/** The folder as a process sees it that dies at its n-th write: that one is cut in the middle, and nothing follows. */
function dying(folder: MemoryFolder, writes: number): MemoryFolder {
  let left = writes;
  const guard = (file: Awaited<ReturnType<MemoryFolder['create']>>): typeof file => ({
    async write(position, bytes) {
      if (left === 0) throw new ZoetropeError('unreadable-source', 'The process is dead.');
      left--;
      await file.write(position, left === 0 ? bytes.subarray(0, bytes.length >> 1) : bytes);
      if (left === 0) throw new ZoetropeError('unreadable-source', 'The process dies.');
    },
    close: () => file.close(),
  });
  return {
    ...folder,
    create: async (path) => guard(await folder.create(path)),
    reopen: async (path) => guard(await folder.reopen(path)),
  };
}

function run(target: MemoryFolder, files = source, more = {}) {
  return importCheckpoint({
    folder: memoryFolder(files),
    sink: target,
    journal: target,
    quantization: 'q4',
    name: 'test',
    noteBytes: NOTE_BYTES,
    ...more,
  });
}

async function hashes({ files }: MemoryFolder) {
  return Object.fromEntries(
    await Promise.all([...files].map(async ([path, bytes]) => [path, await hashPiece(bytes)] as const)),
  );
}

describe('an import that is stopped', async () => {
  const whole = memoryFolder();
  await importCheckpoint({ folder: memoryFolder(source), sink: whole, quantization: 'q4', name: 'test' });
  const expected = await hashes(whole);

  it('is the same with a journal as without, and leaves none behind', async () => {
    const target = memoryFolder();
    await run(target);
    expect(await hashes(target)).toEqual(expected);
  });

  it('at ten seeded writes, each cut in the middle, goes on to the same bytes', { timeout: 60_000 }, async () => {
    const uniform = seededUniform(11);
    const target = memoryFolder();
    let deaths = 0;
    for (; deaths < 10; deaths++) {
      const failed = await run(dying(target, 1 + Math.floor(uniform() * 8))).catch((error) => error);
      if (!(failed instanceof Error)) break;
      expect(failed).toMatchObject({ code: 'unreadable-source' });
      expect(target.files.has('zoetrope.json')).toBe(false);
    }
    expect(deaths).toBeGreaterThan(2);
    await run(target);
    expect(await hashes(target)).toEqual(expected);
    await openModel(target);
  });

  it('does not convert again what was written', async () => {
    const target = memoryFolder();
    await run(dying(target, 14)).catch(() => undefined);
    const seen: { doneBytes: number; resumedBytes: number; totalBytes: number }[] = [];
    await run(target, source, { onProgress: (progress: (typeof seen)[number]) => seen.push(progress) });
    const last = seen.at(-1)!;
    expect(last.doneBytes).toBe(last.totalBytes);
    expect(last.resumedBytes).toBeGreaterThan(last.totalBytes / 4);
    expect(await hashes(target)).toEqual(expected);
  });

  it('goes on inside a tensor too large to convert at once', { timeout: 60_000 }, async () => {
    // 3 * 2^16 + 1 rows of 32: four slices, noted after each.
    const vocab = 3 * 2 ** 16 + 1;
    const shapes = umt5Shapes(parseUmt5Config({ ...TEXT_ENCODER, vocab_size: vocab }, 'test'));
    const tensors = checkpointTensors();
    tensors.text_encoder = componentTensors(SEEDS.text_encoder, shapes, HUGGING_FACE_UMT5);
    const files = checkpointFiles(tensors);
    replaceJson(files, 'text_encoder/config.json', { vocab_size: vocab });
    const plain = memoryFolder();
    await run(plain, files);
    const target = memoryFolder();
    // Tokenizer, then tail and journal (hash and text) for each note; the third note's tail is cut.
    await expect(run(dying(target, 8), files)).rejects.toMatchObject({ code: 'unreadable-source' });
    const seen: { resumedBytes: number }[] = [];
    await run(target, files, { onProgress: (progress: (typeof seen)[number]) => seen.push(progress) });
    expect(seen[0]!.resumedBytes).toBe(2 * 2 ** 16 * 32 * 2);
    expect(await hashes(target)).toEqual(await hashes(plain));
  });

  it('starts a file afresh whose bytes changed meanwhile', async () => {
    const target = memoryFolder();
    await run(dying(target, 14)).catch(() => undefined);
    for (const [path, bytes] of target.files) if (path.endsWith('.safetensors')) bytes[bytes.length >> 1]! ^= 1;
    await run(target);
    expect(await hashes(target)).toEqual(expected);
  });

  it.each([
    ['a bias', (name: string) => name === 'proj_out.bias'],
    // As a merged LoRA does: no bias, norm or modulation shows it.
    ['matrices alone', (name: string) => /\.(to_[qkv]|to_out\.0|proj|2)\.weight$/.test(name)],
  ])('is not continued with other weights in %s', async (_, changed) => {
    const target = memoryFolder();
    await run(dying(target, 14)).catch(() => undefined);
    const tensors = checkpointTensors();
    for (const [name, { values }] of tensors.transformer) if (changed(name)) values[0]! ^= 1;
    const files = checkpointFiles(tensors);
    await run(target, files);
    const other = memoryFolder();
    await run(other, files);
    expect(await hashes(target)).toEqual(await hashes(other));
  });

  it('is not continued from a journal that was cut or changed', async () => {
    const target = memoryFolder();
    await run(dying(target, 14)).catch(() => undefined);
    for (const path of ['import-journal-0.json', 'import-journal-1.json']) {
      const bytes = target.files.get(path);
      if (bytes) target.files.set(path, bytes.slice(0, -3));
    }
    await run(target);
    expect(await hashes(target)).toEqual(expected);
  });
});
