import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { WAN_14B } from '../../src/checkpoint/released';
import { browserArguments, findBrowser } from '../../src/cli/browser';
import { startServer } from '../../src/cli/server';
import buildPage from '../harness/build-page';
import { heapTable, measureHeap } from '../harness/heap';
import { serveSynthetic } from '../harness/synthetic-model';

/**
 * npm run heap [-- --layers 14]
 *
 * Memory of a page that downloads, verifies and reads a model of A14B's width with some of its 40 layers (0.21 GB
 * each), made by a server as it is asked for. Prints the most above idle of each stage; exits with 1 above the budget
 * of 128 MiB.
 */

const { values: options } = parseArgs({
  args: process.argv.slice(2).filter((argument) => argument !== '--'),
  options: { layers: { type: 'string', default: '14' } },
});
const LIMIT_BYTES = 128 * 2 ** 20;

buildPage();
const model = await serveSynthetic({ ...WAN_14B, numLayers: Number(options.layers) });
const server = await startServer({ folders: { '/': resolve(import.meta.dirname, '../../dist/page') } });
const { path, env } = await findBrowser(true);
const profile = mkdtempSync(join(tmpdir(), 'zoetrope-heap-'));
// With a profile on the disk: without one, Chromium keeps a page's files in memory, and no more than 1.3 GB of them.
const context = await chromium.launchPersistentContext(profile, {
  executablePath: path,
  args: browserArguments(process.platform),
  env: { ...process.env, ...env } as Record<string, string>,
  chromiumSandbox: process.platform !== 'linux',
});
try {
  const page = await context.newPage();
  await page.goto(`${server.url}?idle`);
  const version = await page.evaluate(() => /Chrome\/([\d.]+)/.exec(navigator.userAgent)![1]);
  console.log(`Chromium ${version}, a model of ${(model.sizeBytes / 1e9).toFixed(2)} GB. MiB above idle:`);
  const report = await measureHeap(page, model);
  console.log(heapTable(report));
  const over = report.stages.filter(({ peak }) => peak.heapBytes - report.idle.heapBytes > LIMIT_BYTES);
  if (over.length > 0) {
    console.log(`Above ${LIMIT_BYTES / 2 ** 20} MiB: ${over.map(({ name }) => name).join(', ')}`);
    process.exitCode = 1;
  }
} finally {
  await context.close();
  await server.close();
  await model.close();
  rmSync(profile, { recursive: true, force: true });
}
