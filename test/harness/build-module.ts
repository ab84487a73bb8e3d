import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { build } from 'vite';

/** A module of this folder, built for a page. */
export interface BuiltModule extends Disposable {
  /** Holds `module.js`. */
  folder: string;
}

/** Bundles `test/harness/<name>.ts` with what it imports into a folder that a test's server can offer. */
export async function buildModule(name: string): Promise<BuiltModule> {
  const folder = mkdtempSync(join(tmpdir(), `zoetrope-${name}-`));
  await build({
    configFile: false,
    logLevel: 'warn',
    publicDir: false,
    build: {
      outDir: folder,
      emptyOutDir: true,
      lib: { entry: resolve(import.meta.dirname, `${name}.ts`), formats: ['es'], fileName: 'module' },
    },
  });
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
}
