import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Runs a program on Linux and watches what it and its children take (`/proc`). */

export interface Sample {
  /** Milliseconds since the start. */
  atMs: number;
  /** Resident set of the whole process tree. */
  rssBytes: number;
  /** Bytes that went through `read`, whether from disk or from the page cache. */
  readBytes: number;
  /** User and system time. */
  cpuSeconds: number;
}

export interface WatchedRun {
  /** Exit code; null when it was killed. */
  code: number | null;
  output: string;
  samples: Sample[];
  wallSeconds: number;
}

const SAMPLE_MS = 50;
/** `sysconf(_SC_CLK_TCK)` of Linux. */
const TICKS_PER_SECOND = 100;

function treeOf(pid: number): number[] {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
    return [pid, ...children.flatMap(treeOf)];
  } catch {
    return [];
  }
}

function sample(pid: number, atMs: number): Sample | undefined {
  const sum: Sample = { atMs, rssBytes: 0, readBytes: 0, cpuSeconds: 0 };
  for (const each of treeOf(pid)) {
    try {
      const status = readFileSync(`/proc/${each}/status`, 'utf8');
      sum.rssBytes += 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0);
      sum.readBytes += Number(/rchar: (\d+)/.exec(readFileSync(`/proc/${each}/io`, 'utf8'))?.[1] ?? 0);
      const stat = readFileSync(`/proc/${each}/stat`, 'utf8');
      const [user, system] = stat
        .slice(stat.lastIndexOf(')') + 2)
        .split(' ')
        .slice(11, 13);
      sum.cpuSeconds += (Number(user) + Number(system)) / TICKS_PER_SECOND;
    } catch {
      // It ended in between.
    }
  }
  return sum.rssBytes > 0 ? sum : undefined;
}

/**
 * Runs a program to its end, or until `kill` says so: then it gets SIGKILL, which no program can catch.
 * @param kill looked at with every sample.
 */
export async function watch(
  command: string,
  args: readonly string[],
  kill: (sample: Sample) => boolean = () => false,
): Promise<WatchedRun> {
  const began = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text));
  const samples: Sample[] = [];
  const timer = setInterval(() => {
    const now = sample(child.pid!, performance.now() - began);
    if (!now) return;
    samples.push(now);
    if (kill(now)) child.kill('SIGKILL');
  }, SAMPLE_MS);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', resolve);
    });
    return { code, output, samples, wallSeconds: (performance.now() - began) / 1000 };
  } finally {
    clearInterval(timer);
  }
}
