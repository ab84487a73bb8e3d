import { parseArgs } from 'node:util';
import { documents } from './documents';
import { grow, growths, MAX_TIME_RATIO } from './growth';
import { LIMITS } from './meter';
import { FuzzFault, fuzz, shareOut } from './runner';
import { WEIGHT_FILES } from './weight-files';

/**
 * npm run fuzz [-- --inputs 100000 --seed 1 --target GGUF]
 *
 * Gives every parser of foreign bytes seeded, changed and made-up inputs, and stops at the first that one does not
 * stand; then inputs that grow, to see that time and memory grow as they do.
 */

const { values: options } = parseArgs({
  args: process.argv.slice(2).filter((argument) => argument !== '--'),
  options: {
    inputs: { type: 'string', default: '100000' },
    seed: { type: 'string', default: '1' },
    target: { type: 'string' },
  },
});

const all = [...WEIGHT_FILES, ...(await documents())];
const targets = all.filter(({ name }) => options.target === undefined || name === options.target);
if (targets.length === 0) {
  console.error(`No target is called "${options.target}"; there are ${all.map(({ name }) => name).join(', ')}.`);
  process.exit(1);
}
const counts = shareOut(targets, Number(options.inputs));
const columns = ['inputs', 'accepted', 'outcomes', 'mean bytes', 'seconds', 'slowest ms', 'buffers'];
console.log(`${'target'.padEnd(32)}${columns.map((column) => column.padStart(12)).join('')}`);
let done = 0;
let failed = false;
for (const [i, target] of targets.entries()) {
  try {
    const report = await fuzz(target, counts[i]!, Number(options.seed));
    const cells = [
      report.inputs,
      report.accepted,
      report.outcomes,
      (report.bytes / report.inputs).toFixed(0),
      report.seconds.toFixed(1),
      report.slowestMs.toFixed(1),
      `${report.bufferRatio.toFixed(1)}x`,
    ];
    console.log(`${report.name.padEnd(32)}${cells.map((cell) => String(cell).padStart(12)).join('')}`);
    done += report.inputs;
  } catch (error) {
    if (!(error instanceof FuzzFault)) throw error;
    failed = true;
    console.error(`FAIL ${error.message}`);
  }
}
console.log(`${done} inputs stood, seed ${options.seed}.\n`);
const parsers = new Map(targets.map((target) => [target.name, target]));
const growing = ['bytes', 'ms', 'of an eighth', 'buffers', 'objects'];
console.log(`${'growing'.padEnd(54)}${growing.map((column) => column.padStart(14)).join('')}`);
for (const growth of growths((name) => parsers.get(name)?.seeds[0] ?? new Uint8Array(0))) {
  const parser = parsers.get(growth.target);
  if (!parser) continue;
  const report = await grow(growth, parser.parse);
  const cells = [
    report.bytes,
    report.milliseconds.toFixed(1),
    `${report.timeRatio.toFixed(1)}x`,
    `${report.buffersPerByte.toFixed(1)}x`,
    `${report.objectsPerByte.toFixed(0)}x`,
  ];
  console.log(
    `${`${growth.target}: ${growth.what}`.padEnd(54)}${cells.map((cell) => String(cell).padStart(14)).join('')}`,
  );
  failed ||= report.timeRatio > MAX_TIME_RATIO || report.buffersPerByte > LIMITS.bufferFactor;
}
process.exitCode = failed ? 1 : 0;
