import { execFileSync } from 'node:child_process';
import { type FileHandle, mkdir, open, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { writeFullSizeCheckpoint } from '../harness/full-size-checkpoint';
import { seededUniform } from '../harness/near';
import { type Sample, type WatchedRun, watch } from '../harness/watched-process';

/**
 * npm run full-size:import [-- --layers 40 --heads 40 --kills 10 --seed 1 --log FILE --folder .cache/full-size-import]
 *
 * Imports an expert of Wan 2.2 A14B at its true sizes (28.6 GB of bf16, made in the folder; 46 GB of disk in all) to q4
 * by the built command on two cores: memory of the process tree, throughput, size of the result. Then once more, killed
 * at random moments and continued, and compares every byte. Fails when a bound of the design does not hold. Linux.
 */

/** Peak of the resident set, bytes; throughput of cached source, bytes a second; size of the result. */
const MAX_RSS = 1024 ** 3;
const MIN_RATE = 150e6;
const RESULT_BYTES = [8.0e9, 9.0e9] as const;
const CORES = 2;
const MIB = 1024 * 1024;
const FULL = 40;

const { values: options } = parseArgs({
  args: process.argv.slice(2).filter((argument) => argument !== '--'),
  options: {
    folder: { type: 'string', default: '.cache/full-size-import' },
    layers: { type: 'string', default: '40' },
    heads: { type: 'string', default: '40' },
    kills: { type: 'string', default: '10' },
    seed: { type: 'string', default: '1' },
    log: { type: 'string', default: 'docs/measurements/full-size-import.txt' },
  },
});
const [layers, heads, kills] = [Number(options.layers), Number(options.heads), Number(options.kills)];
const isFull = layers === FULL && heads === FULL;
const folder = resolve(options.folder);
const root = resolve(import.meta.dirname, '../..');
/**
 * The command as it is now, two folders below the root, where it looks for its package; another run may have its own.
 */
const built = `dist/full-size-${process.pid}`;

const lines: string[] = [];
let failed = 0;
function say(line: string): void {
  console.log(line);
  lines.push(line);
}
function check(holds: boolean, line: string): void {
  say(`${holds ? 'ok  ' : 'FAIL'} ${line}`);
  if (!holds) failed++;
}
const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(bytes < 1e8 ? 3 : 2)} GB`;
const mebibytes = (bytes: number) => `${(bytes / MIB).toFixed(0)} MiB`;

/** Runs the built command's import on two cores. */
function runImport(to: string, kill?: (sample: Sample) => boolean): Promise<WatchedRun> {
  const script = join(root, built, 'main.js');
  const code = `import(${JSON.stringify(script)}).then(({ main }) => main(process.argv.slice(1)))`;
  const args = ['-e', code, 'import', '--from', join(folder, 'source'), '--to', to, '--quant', 'q4', '--name', 'test'];
  const pinned = availableParallelism() > CORES;
  if (!pinned) return watch(process.execPath, args, kill);
  return watch('taskset', ['-c', `0-${CORES - 1}`, process.execPath, ...args], kill);
}

async function chunks(file: FileHandle, use: (bytes: Uint8Array) => void): Promise<void> {
  const buffer = new Uint8Array(16 * MIB);
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length);
    if (bytesRead === 0) return;
    use(buffer.subarray(0, bytesRead));
  }
}

/** Reads the beginning of the expert, so that it lies in the page cache, and tells how much that was. */
async function warm(limit: number): Promise<number> {
  const path = join(folder, 'source/transformer');
  let done = 0;
  for (const name of (await readdir(path)).sort()) {
    if (done >= limit || !name.endsWith('.safetensors')) continue;
    const file = await open(join(path, name));
    await chunks(file, (bytes) => (done += bytes.length)).finally(() => file.close());
  }
  return done;
}

async function sizes(path: string): Promise<Map<string, number>> {
  const names = (await readdir(path).catch(() => [])).sort();
  return new Map(await Promise.all(names.map(async (name) => [name, (await stat(join(path, name))).size] as const)));
}

const sum = (numbers: Iterable<number>) => [...numbers].reduce((total, number) => total + number, 0);

/** The first byte at which two files differ; -1 for none. */
async function difference(a: string, b: string): Promise<number> {
  const files = [await open(a), await open(b)] as const;
  const buffers = [new Uint8Array(16 * MIB), new Uint8Array(16 * MIB)] as const;
  try {
    for (let at = 0; ; ) {
      const { bytesRead } = await files[0].read(buffers[0], 0, 16 * MIB, at);
      const other = await files[1].read(buffers[1], 0, 16 * MIB, at);
      if (other.bytesRead !== bytesRead) return at;
      const [x, y] = [buffers[0].subarray(0, bytesRead), Buffer.from(buffers[1].buffer, 0, bytesRead)];
      if (!y.equals(x)) return at + x.findIndex((byte, i) => byte !== y[i]);
      if (bytesRead === 0) return -1;
      at += bytesRead;
    }
  } finally {
    for (const file of files) await file.close();
  }
}

function peak({ samples }: WatchedRun): number {
  return samples.reduce((most, { rssBytes }) => Math.max(most, rssBytes), 0);
}

/** Seconds until so many bytes had been read. */
function secondsUntil({ samples }: WatchedRun, bytes: number): number {
  return (samples.find(({ readBytes }) => readBytes >= bytes) ?? samples.at(-1)!).atMs / 1000;
}

async function undisturbed(sourceBytes: number, to: string): Promise<void> {
  // A third of the memory is for the source: the rest is for what is written, and for whatever else there is.
  const cached = Math.min(sourceBytes, await warm(Math.min(sourceBytes, totalmem() / 3)));
  const run = await runImport(to);
  if (run.code !== 0) throw new Error(`The import ended with ${run.code}: ${run.output}`);
  const cachedSeconds = secondsUntil(run, cached);
  const rate = cached / cachedSeconds;
  const cpu = run.samples.at(-1)!.cpuSeconds;
  say(
    `Imported ${gigabytes(sourceBytes)} in ${run.wallSeconds.toFixed(1)} s, ${(sourceBytes / run.wallSeconds / 1e6).toFixed(0)} MB/s; ` +
      `${cpu.toFixed(1)} s of processor time, ${((cpu * 1e9) / sourceBytes).toFixed(2)} s a GB.`,
  );
  const part = `the first ${gigabytes(cached)}, read before and so in the page cache, in ${cachedSeconds.toFixed(1)} s: ${(rate / 1e6).toFixed(0)} MB/s`;
  if (isFull) check(rate >= MIN_RATE, `${part} (150 or better)`);
  else say(`     ${part}`);
  check(peak(run) < MAX_RSS, `peak resident set of the process tree ${mebibytes(peak(run))} (under 1,024)`);
  const result = sum((await sizes(to)).values());
  const [least, most] = RESULT_BYTES;
  if (isFull) check(result >= least && result <= most, `the result has ${gigabytes(result)} (8.0 to 9.0)`);
  else say(`     the result has ${gigabytes(result)}`);
}

/**
 * The same import, killed and continued; each time at a random share of what is left to write, between two samples or
 * in a write.
 */
async function killed(whole: string, to: string): Promise<void> {
  const expected = await sizes(whole);
  const total = sum(expected.values());
  const uniform = seededUniform(Number(options.seed));
  const moments = Array.from({ length: kills }, () => uniform() * 0.98).sort((a, b) => a - b);
  let most = 0;
  let deaths = 0;
  const began = performance.now();
  for (const moment of moments) {
    let written = 0;
    let looking = false;
    const run = await runImport(to, () => {
      if (!looking) {
        looking = true;
        void sizes(to).then((now) => {
          written = sum(now.values());
          looking = false;
        });
      }
      return written >= moment * total;
    });
    most = Math.max(most, peak(run));
    if (run.code === null) deaths++;
    const at = sum((await sizes(to)).values());
    say(`     killed after ${run.wallSeconds.toFixed(1)} s with ${((100 * at) / total).toFixed(1)} % written`);
  }
  const last = await runImport(to);
  most = Math.max(most, peak(last));
  if (last.code !== 0) throw new Error(`The continued import ended with ${last.code}: ${last.output}`);
  say(`Continued to the end: ${((performance.now() - began) / 1000).toFixed(1)} s in all.`);
  check(deaths === kills, `${deaths} of ${kills} runs were killed`);
  check(most < MAX_RSS, `peak resident set ${mebibytes(most)} (under 1,024)`);
  const got = await sizes(to);
  const names = [...expected.keys()].join();
  check([...got.keys()].join() === names, `the same files: ${names}`);
  let different = 0;
  for (const name of expected.keys()) {
    const at = got.has(name) ? await difference(join(whole, name), join(to, name)) : 0;
    if (at < 0) continue;
    different++;
    check(false, `${name} differs from byte ${at} on`);
  }
  if (different === 0) say(`ok   the same ${gigabytes(total)}, byte for byte`);
}

await rm(folder, { recursive: true, force: true });
await mkdir(folder, { recursive: true });
try {
  execFileSync('npx', ['vite', 'build', '--mode', 'cli', '--outDir', built, '--logLevel', 'error'], {
    cwd: root,
    stdio: 'inherit',
  });
  say(`npm run full-size:import -- --layers ${layers} --heads ${heads} --kills ${kills} --seed ${options.seed}`);
  say(`${cpus()[0]!.model}, ${Math.min(CORES, availableParallelism())} cores, Node ${process.version}`);
  const began = performance.now();
  const sourceBytes = await writeFullSizeCheckpoint(join(folder, 'source'), { layers, heads });
  say(`Made ${gigabytes(sourceBytes)} of bf16 in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
  await undisturbed(sourceBytes, join(folder, 'whole'));
  await killed(join(folder, 'whole'), join(folder, 'killed'));
  if (isFull && options.log) await writeFile(resolve(root, options.log), `${lines.join('\n')}\n`);
} finally {
  await rm(folder, { recursive: true, force: true });
  await rm(join(root, built), { recursive: true, force: true });
}
process.exitCode = failed > 0 ? 1 : 0;
