import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, it } from 'vitest';

/** Budget of the page, gzip: everything a browser fetches but the wasm of ONNX Runtime and the model. */
const LIMIT_BYTES = 150 * 1024;

const page = resolve(import.meta.dirname, '../../dist/page');

/** The page's own files with their sizes after gzip, largest first. */
function bundle(): [name: string, bytes: number][] {
  const files = readdirSync(page, { recursive: true, encoding: 'utf8' });
  return files
    .filter((name) => /\.(html|css|js|mjs|json|svg|webmanifest)$/.test(name) && !name.startsWith('models'))
    .map((name): [string, number] => [name, gzipSync(readFileSync(join(page, name)), { level: 9 }).length])
    .sort((a, b) => b[1] - a[1]);
}

it('stays small without the wasm of ONNX Runtime', () => {
  const files = bundle();
  // A browser loads one of ONNX Runtime's two builds; the larger one is counted.
  const runtimes = files.filter(([name]) => /ort\.\w+\.bundle/.test(name));
  expect(runtimes).toHaveLength(2);
  const fetched = files.filter((file) => file !== runtimes[1]);
  const total = fetched.reduce((sum, [, bytes]) => sum + bytes, 0);
  const kilobytes = (bytes: number) => `${(bytes / 1024).toFixed(1).padStart(6)} KB`;
  for (const [name, bytes] of fetched) console.log(`${kilobytes(bytes)}  ${name}`);
  console.log(`${kilobytes(total)}  in all, gzip, of ${LIMIT_BYTES / 1024} KB`);
  expect(total).toBeLessThan(LIMIT_BYTES);
});

it('holds the wasm of both builds of ONNX Runtime as files', () => {
  const wasm = readdirSync(join(page, 'assets')).filter((name) => name.endsWith('.wasm'));
  expect(wasm.map((name) => name.replace(/-[\w-]{8}\.wasm$/, '.wasm')).sort()).toEqual([
    'ort-wasm-simd-threaded.asyncify.wasm',
    'ort-wasm-simd-threaded.jspi.wasm',
  ]);
});
