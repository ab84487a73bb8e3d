import { expect, it } from 'vitest';
import { writePartShard } from '../../src/checkpoint/part-shard';
import type { TensorEntry } from '../../src/manifest';
import { memoryFolder } from '../harness/memory-folder';

const ENTRIES: ReadonlyMap<string, TensorEntry> = new Map([
  ['a', { dtype: 'F32', shape: [1] }],
  ['b', { dtype: 'F32', shape: [1] }],
]);

it('closes a shard whose tensors cannot be had, and does not go on behind an abort', async () => {
  const folder = memoryFolder();
  let open = 0;
  const sink = {
    ...folder,
    async create(path: string) {
      const file = await folder.create(path);
      open++;
      return { ...file, close: async () => void open-- };
    },
  };
  const broken = writePartShard({ sink }, 'x.safetensors', ENTRIES, (name) => {
    if (name === 'b') throw new Error('gone');
    return new Uint8Array(4);
  });
  await expect(broken).rejects.toThrow('gone');
  expect(open).toBe(0);

  const controller = new AbortController();
  const asked: string[] = [];
  const aborted = writePartShard({ sink, signal: controller.signal }, 'x.safetensors', ENTRIES, (name) => {
    asked.push(name);
    controller.abort();
    return new Uint8Array(4);
  });
  await expect(aborted).rejects.toMatchObject({ code: 'aborted' });
  expect(asked).toEqual(['a']);
  expect(open).toBe(0);
});
