import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { peekSnapshot, readSnapshot, type Snapshot, writeSnapshot } from '../../src/store/snapshot';
import { type FakeDisk, fakeDisk } from '../harness/store-host';

/** Sizes with an odd one and an empty one; contents that differ with `n`. */
function snapshot(n: number): Snapshot {
  const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 7 + n * 31) & 255);
  const arrays = [
    ['a', bytes(1001)],
    ['none', bytes(0)],
    ['b', bytes(4 * n)],
  ] as const;
  return { facts: { n, text: `Zeit ${n} ⏳` }, arrays: new Map(arrays) };
}

const write = (disk: FakeDisk, n: number) => writeSnapshot(disk, 'job', 'state', snapshot(n));
const read = (disk: FakeDisk) => readSnapshot(disk, 'job', 'state');
const paths = ['job state-0', 'job state-1'];

describe('a snapshot', () => {
  it('is none before the first, and the last one written from then on', async () => {
    const disk = fakeDisk();
    expect(await read(disk)).toBeUndefined();
    expect(await peekSnapshot(disk, 'job', 'state')).toEqual({ facts: undefined, storedBytes: 0 });
    for (const n of [1, 2, 3, 4, 5]) {
      await write(disk, n);
      expect(await read(disk)).toEqual(snapshot(n));
      expect((await peekSnapshot(disk, 'job', 'state')).facts).toEqual(snapshot(n).facts);
    }
    expect([...disk.files.keys()].sort()).toEqual(paths);
  });

  it('is the former one when the disk is full or the tab dies at any write', async () => {
    for (let failing = 0; failing < 6; failing++) {
      for (const dies of [false, true]) {
        const disk = fakeDisk();
        await write(disk, 1);
        await write(disk, 2);
        let count = 0;
        disk.beforeWrite = () => {
          if (count++ === failing) throw new DOMException('full', 'QuotaExceededError');
        };
        const written = await write(disk, 3).then(
          () => true,
          () => false,
        );
        if (dies) disk.crash();
        disk.beforeWrite = () => undefined;
        expect(written).toBe(failing >= 5); // facts, three arrays, header
        // A full disk gets back what it gave.
        if (!written && !dies) expect(disk.files.get(paths[0]!)!.written).toHaveLength(0);
        expect(await read(disk), `write ${failing}`).toEqual(snapshot(written ? 3 : 2));
        await write(disk, 4);
        expect(await read(disk)).toEqual(snapshot(4));
      }
    }
  });

  it('is the former one when any byte of the file is changed or the file is cut anywhere', async () => {
    const disk = fakeDisk();
    await write(disk, 1);
    await write(disk, 2);
    const newest = disk.files.get(paths[1]!)!;
    const whole = newest.written;
    // Between the hash and the facts of the header lie unused bytes, which are held to be zeros.
    for (let at = 0; at < whole.length; at += at < 200 ? 1 : 61) {
      newest.written = whole.slice();
      newest.written[at]! ^= 4;
      expect(await read(disk), `byte ${at}`).toEqual(snapshot(1));
      newest.written = whole.slice(0, at);
      expect(await read(disk), `cut at ${at}`).toEqual(snapshot(1));
    }
    newest.written = whole;
    expect(await read(disk)).toEqual(snapshot(2));
  });

  it('writes its header when all behind it is on the disk', async () => {
    const disk = fakeDisk();
    await write(disk, 1);
    await write(disk, 2);
    const file = disk.files.get(paths[0]!)!;
    const before = file.flushed;
    const flushed: number[] = [];
    disk.beforeWrite = () => flushed.push(file.flushed.length);
    await write(disk, 3);
    expect(flushed.slice(0, -1)).toEqual(Array(4).fill(before.length));
    expect(flushed.at(-1)).toBe(file.written.length);
  });

  it('is none in a format of another version', async () => {
    const disk = fakeDisk();
    await write(disk, 1);
    const { written } = disk.files.get(paths[0]!)!;
    const [hashAt, headerBytes] = [24, 64];
    written[4] = 2;
    const factsBytes = new DataView(written.buffer).getUint32(16, true);
    const covered = [...written.subarray(0, hashAt), ...written.subarray(headerBytes, headerBytes + factsBytes)];
    written.set(createHash('sha256').update(Uint8Array.from(covered)).digest(), hashAt);
    expect(await read(disk)).toBeUndefined();
    written[4] = 1;
    expect(await read(disk)).toBeUndefined(); // the hash covers the version
  });

  it('is none when both files are spoilt', async () => {
    const disk = fakeDisk();
    await write(disk, 1);
    await write(disk, 2);
    for (const path of paths) disk.files.get(path)!.written[70]! ^= 1;
    expect(await read(disk)).toBeUndefined();
    await write(disk, 3);
    expect(await read(disk)).toEqual(snapshot(3));
  });
});
