/** A job's progress in words. Pure. */
import type { Progress, Stage, StageTimings } from '../index';
import { formatBytes, formatClock, formatDuration } from './format';

const STAGES: Record<Stage, string> = {
  load: 'Loading the model',
  text: 'Reading the prompt',
  diffusion: 'Denoising',
  decode: 'Decoding and encoding',
};

/** What is being done now: `Denoising, step 3 of 8`. A unit that is being worked on counts as reached. */
export function stageText({ stage, done, total }: Progress): string {
  const name = STAGES[stage];
  if (total <= 0) return name;
  const reached = Math.min(done + 1, total);
  switch (stage) {
    case 'load':
      return `${name}, ${formatBytes(done)} of ${formatBytes(total)}`;
    case 'text':
      return total === 1 ? name : `${name}, ${reached} of ${total}`;
    case 'diffusion':
      return `${name}, step ${reached} of ${total}`;
    case 'decode':
      return `${name}, frame ${reached} of ${total}`;
  }
}

/**
 * Time spent and time to come, `12 s so far, about 40 s left`, `sinceMs` milliseconds after the progress was reported.
 */
export function clockText({ elapsedMs, remainingMs }: Progress, sinceMs: number): string {
  const spent = `${formatClock(elapsedMs + sinceMs)} so far`;
  if (remainingMs === null) return `${spent}, estimating the rest`;
  const left = Math.max(0, remainingMs - sinceMs);
  return `${spent}, ${left < 1000 ? 'almost done' : `about ${formatClock(left)} left`}`;
}

/** Quarters of the work that are done. Spoken aloud at each, since every step would talk without end. */
export function quarterOf({ fraction }: Progress): number {
  return Math.min(4, Math.floor(fraction * 4));
}

/** What a live region says: the stage, and how much of the whole is done. */
export function spokenText(progress: Progress): string {
  return `${STAGES[progress.stage]}, ${Math.floor(progress.fraction * 100)} % done`;
}

/**
 * Where the time of a finished job went: `7.3 s: model 0.5 s, prompt 0.2 s, …`; stages that took no time are left out.
 */
export function timingText({ loadMs, textMs, diffusionMs, decodeMs, totalMs }: StageTimings): string {
  const stages: [string, number][] = [
    ['model', loadMs],
    ['prompt', textMs],
    ['denoising', diffusionMs],
    ['decoding', decodeMs],
  ];
  const spent = stages.filter(([, time]) => time > 0).map(([name, time]) => `${name} ${formatDuration(time)}`);
  return [formatDuration(totalMs), spent.join(', ')].filter((part) => part !== '').join(': ');
}
