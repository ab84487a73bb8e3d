import type { Progress, Stage } from '../protocol';

/** Progress of a job on standard error: one line that is redrawn on a terminal, a plain line now and then elsewhere. */

const STAGES: Readonly<Record<Stage, [name: string, unit: string]>> = {
  load: ['Loading weights', 'bytes'],
  text: ['Reading the prompt', 'prompts'],
  diffusion: ['Denoising', 'steps'],
  decode: ['Decoding', 'frames'],
};

const BAR_CELLS = 24;
const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/** A bar of {@link BAR_CELLS} characters; `share` is 0 to 1. */
export function bar(share: number): string {
  const eighths = Math.round(Math.min(Math.max(share, 0), 1) * BAR_CELLS * 8);
  return ('█'.repeat(eighths >> 3) + EIGHTHS[eighths & 7]).padEnd(BAR_CELLS, '░');
}

/** `95000` as `1:35`. */
export function clock(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const shown = parts[0] === 0 ? parts.slice(1) : parts;
  return shown.map((part, index) => (index === 0 ? `${part}` : `${part}`.padStart(2, '0'))).join(':');
}

/** One line for a person. */
export function progressText({ stage, done, total, fraction, elapsedMs, remainingMs }: Progress): string {
  const [name, unit] = STAGES[stage];
  const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
  const count = unit === 'bytes' ? `${mebibytes(done)} of ${mebibytes(total)} MiB` : `${done} of ${total} ${unit}`;
  const left = remainingMs === null ? '' : `, about ${clock(remainingMs)} left`;
  return `${`${Math.floor(fraction * 100)}`.padStart(3)} %  ${name}, ${count}, ${clock(elapsedMs)}${left}`;
}

/** Pause between two plain lines. */
const PLAIN_MS = 5000;
/** Pause between two drawings of the bar. */
const DRAW_MS = 100;

/** Takes progress; `end` leaves the terminal on a fresh line. */
export interface ProgressView {
  show(progress: Progress): void;
  end(): void;
}

/** @param quiet shows nothing where there is no terminal. */
export function progressView(stream: NodeJS.WriteStream, quiet: boolean): ProgressView {
  if (!stream.isTTY && quiet) return { show: () => undefined, end: () => undefined };
  let next = 0;
  let drawn = false;
  return {
    show(progress) {
      const now = performance.now();
      if (now < next && progress.fraction < 1) return;
      next = now + (stream.isTTY ? DRAW_MS : PLAIN_MS);
      const text = progressText(progress);
      if (stream.isTTY) stream.write(`\r\x1b[K${`${bar(progress.fraction)} ${text}`.slice(0, stream.columns - 1)}`);
      else stream.write(`${text}\n`);
      drawn = true;
    },
    end() {
      if (drawn && stream.isTTY) stream.write('\n');
      drawn = false;
    },
  };
}
