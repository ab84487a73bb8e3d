import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

/** `npm run full-size:import` imports a whole expert of A14B; here one of 1/1,200 of its size goes the same way. */

it.skipIf(process.platform !== 'linux')(
  'the built command, killed three times and continued, writes the same bytes in bounded memory',
  { timeout: 120_000 },
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'zoetrope-full-size-'));
    try {
      const script = ['vite-node', 'test/bench/full-size-import.ts', '--', '--layers', '2', '--heads', '4'];
      const { stdout } = await promisify(execFile)(
        'npx',
        [...script, '--kills', '3', '--log', '', '--folder', folder],
        {
          cwd: resolve(import.meta.dirname, '../..'),
        },
      );
      expect(stdout).not.toContain('FAIL');
      expect(stdout).toContain('ok   3 of 3 runs were killed');
      expect(stdout).toMatch(/ok {3}the same [\d.]+ GB, byte for byte/);
      expect(stdout.match(/ok {3}peak resident set/g)).toHaveLength(2);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
);
