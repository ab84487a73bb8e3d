import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { importCheckpoint } from '../../src/checkpoint/import';
import { diskFolder } from '../../src/cli/files';
import type { ComponentName } from '../../src/manifest';
import { openModel } from '../../src/store/verified';
import { hashes, memoryFolder } from '../harness/memory-folder';

const DEMO = new URL('../../../shared/data/demo-model/', import.meta.url);
const SHIPPED = new URL('../../public/models/demo/', import.meta.url);

describe('the shipped demo model', () => {
  it('opens, and every byte of it is verified', async () => {
    const model = await openModel(diskFolder(SHIPPED.pathname));
    for (const name of Object.keys(model.manifest.components) as ComponentName[]) {
      let seen = 0;
      const component = model.component(name, { onProgress: ({ doneBytes }) => (seen = doneBytes) });
      const files = model.manifest.components[name]!;
      for (const { path } of files) await component.readFile(path);
      expect(seen).toBe(files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
    }
    expect(model.sizeBytes).toBeLessThan(20e6);
    expect(model.manifest).toMatchObject({ name: 'demo', license: 'Apache-2.0', quantization: 'q8' });
  });

  it.skipIf(!existsSync(DEMO))('is what importing the checkpoint gives, twice', { timeout: 60_000 }, async () => {
    const shipped = new Map<string, Uint8Array>();
    for (const path of readdirSync(SHIPPED)) {
      if (path !== 'README.md') shipped.set(path, new Uint8Array(readFileSync(new URL(path, SHIPPED))));
    }
    // The ratios are no part of the import: `zoetrope calibrate` has added them.
    const measured = new TextDecoder().decode(shipped.get('zoetrope.json'));
    const imported = measured.replace(/^"acceleration": .*\n/m, '');
    expect(imported.length).toBeLessThan(measured.length);
    shipped.set('zoetrope.json', new TextEncoder().encode(imported));
    const expected = (await hashes(shipped)).sort();
    for (let time = 0; time < 2; time++) {
      const sink = memoryFolder();
      const folder = diskFolder(DEMO.pathname);
      await importCheckpoint({ folder, sink, quantization: 'q8', name: 'demo', license: 'Apache-2.0' });
      expect((await hashes(sink.files)).sort()).toEqual(expected);
    }
  });
});
