import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { generateIn, openChromium, openModel } from '../harness/chromium';

/**
 * Budget of the page, gzip: everything but the wasm of ONNX Runtime and the model that a browser fetches for a first
 * video.
 */
const LIMIT_BYTES = 150 * 1024;

const built = resolve(import.meta.dirname, '../../dist/page');

it('stays small without the wasm of ONNX Runtime', async () => {
  const chromium = await openChromium();
  const fetched = new Set<string>();
  try {
    const page = await chromium.open('about:blank');
    page.on('request', (request) => fetched.add(new URL(request.url()).pathname));
    await page.goto(`${chromium.url}?idle`);
    await openModel(page);
    await generateIn(chromium, page, {
      prompt: 'a red circle',
      num_frames: 17,
      num_inference_steps: 2,
      aspect_ratio: '1:1',
      interpolator_model: 'none',
    });
  } finally {
    await chromium.close();
  }
  const files = [...fetched]
    .filter((path) => path === '/' || /\.(html|css|js|mjs)$/.test(path))
    .map((path): [string, number] => {
      const name = path === '/' ? 'index.html' : path.slice(1);
      return [name, gzipSync(readFileSync(join(built, name)), { level: 9 }).length];
    })
    .sort((a, b) => b[1] - a[1]);
  const total = files.reduce((sum, [, bytes]) => sum + bytes, 0);
  const kilobytes = (bytes: number) => `${(bytes / 1024).toFixed(1).padStart(6)} KB`;
  for (const [name, bytes] of files) console.log(`${kilobytes(bytes)}  ${name}`);
  console.log(`${kilobytes(total)}  in all, gzip, of ${LIMIT_BYTES / 1024} KB`);
  for (const part of [/index-.*\.js$/, /engine-.*\.js$/, /ort\.\w+\.bundle/]) {
    expect(files.filter(([name]) => part.test(name))).toHaveLength(1);
  }
  expect(total).toBeLessThan(LIMIT_BYTES);
});

it('holds the wasm of both builds of ONNX Runtime as files', () => {
  const wasm = readdirSync(join(built, 'assets')).filter((name) => name.endsWith('.wasm'));
  expect(wasm.map((name) => name.replace(/-[\w-]{8}\.wasm$/, '.wasm')).sort()).toEqual([
    'ort-wasm-simd-threaded.asyncify.wasm',
    'ort-wasm-simd-threaded.jspi.wasm',
  ]);
});
