import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { messageOf } from '../../src/errors';
import { openTestGpu } from '../harness/dawn';
import { attentionBench } from './attention';
import { filmBench } from './film';
import type { Bench, Row } from './registry';
import { rifeBench, warpBench } from './rife';
import { streamingBench } from './streaming';
import { clockName } from './timing';
import { blockBench, umt5Bench } from './transformer';
import { vaeBench } from './vae';

/**
 * npm run bench -- [--json FILE] [--only name,…]
 *
 * Measures kernels and stages on the adapter that Dawn finds (SwiftShader, or the system's with ZOETROPE_GPU=system),
 * variants in turn. Prints medians, spread and ratios; exits with 1 when a result was wrong.
 */

const BENCHES: readonly Bench[] = [
  attentionBench,
  blockBench,
  umt5Bench,
  streamingBench,
  vaeBench,
  rifeBench,
  filmBench,
  warpBench,
];

const { values: options } = parseArgs({
  args: process.argv.slice(2).filter((argument) => argument !== '--'),
  options: { json: { type: 'string' }, only: { type: 'string' } },
});
const wanted = options.only?.split(',');
const unknown = wanted?.filter((name) => !BENCHES.some((bench) => bench.name === name)) ?? [];
if (unknown.length > 0) {
  console.error(`There is no bench "${unknown}"; there are ${BENCHES.map((bench) => bench.name).join(', ')}.`);
  process.exit(2);
}

const { gpu, ort, close } = await openTestGpu();
const cpuDriver = /swiftshader|llvmpipe|lavapipe/i.test(gpu.name);
const features = { f16: gpu.f16, subgroups: gpu.subgroups, timestamps: gpu.timestamps };
console.log(`Adapter: ${gpu.name}${cpuDriver ? ' (on the CPU)' : ''}, ${JSON.stringify(features)}`);
console.log(`Clock: ${clockName(gpu)}. Ratio: speed against the first variant of the same shape.\n`);

const rows: Row[] = [];
let failures = 0;
for (const bench of BENCHES) {
  if (wanted && !wanted.includes(bench.name)) continue;
  try {
    const measured = await bench.run({ gpu, ort, cpuDriver });
    rows.push(...measured);
    print(bench.name, measured);
  } catch (error) {
    failures++;
    console.log(`${bench.name}: FAIL ${messageOf(error)}\n`);
  }
}
await close();
if (options.json) {
  const report = { adapter: gpu.name, cpuDriver, features, clock: clockName(gpu), rows };
  writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
}
process.exit(failures > 0 ? 1 : 0);

function print(name: string, measured: readonly Row[]): void {
  const heads = ['shape', 'variant', 'median ms', 'min..max ms', 'ratio', 'GFLOP/s', 'relative L2', 'max abs'];
  const lines = measured.map(({ shape, variant, medianMs, minMs, maxMs, rounds, ratio, gflops, error }) => [
    shape,
    variant,
    medianMs.toFixed(2),
    `${minMs.toFixed(2)}..${maxMs.toFixed(2)} (${rounds})`,
    ratio.toFixed(2),
    gflops.toFixed(2),
    error ? error.relativeL2.toExponential(1) : '',
    error ? error.maxAbs.toExponential(1) : '',
  ]);
  const widths = heads.map((head, i) => Math.max(head.length, ...lines.map((line) => line[i]!.length)));
  const text = (line: readonly string[]) =>
    line.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ');
  console.log([name, text(heads), ...lines.map(text), ''].join('\n'));
}
