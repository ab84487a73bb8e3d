import { describe, expect, it } from 'vitest';
import { bar, clock, progressText, progressView } from '../../src/cli/progress';
import type { Progress } from '../../src/protocol';

const progress: Progress = {
  stage: 'diffusion',
  done: 3,
  total: 8,
  fraction: 0.4567,
  elapsedMs: 61_400,
  remainingMs: 3_725_000,
};

/** A stream that keeps what is written. */
function stream(isTTY: boolean): NodeJS.WriteStream & { text: string } {
  const fake = {
    isTTY,
    columns: 40,
    text: '',
    write(part: string) {
      this.text += part;
      return true;
    },
  };
  return fake as unknown as NodeJS.WriteStream & { text: string };
}

describe('progress', () => {
  it('is drawn as a bar of one width', () => {
    expect(bar(0)).toBe('░'.repeat(24));
    expect(bar(1)).toBe('█'.repeat(24));
    expect(bar(0.5)).toBe('█'.repeat(12) + '░'.repeat(12));
    for (let share = -0.1; share < 1.2; share += 0.007) expect([...bar(share)]).toHaveLength(24);
  });

  it('tells times as a clock does', () => {
    expect([0, 999, 59_499, 60_000, 3_599_499, 3_600_000].map(clock)).toEqual([
      '0:00',
      '0:01',
      '0:59',
      '1:00',
      '59:59',
      '1:00:00',
    ]);
  });

  it('is one line for a person', () => {
    expect(progressText(progress)).toBe(' 45 %  Denoising, 3 of 8 steps, 1:01, about 1:02:05 left');
    expect(progressText({ ...progress, stage: 'load', done: 2 ** 20, total: 3 * 2 ** 20, remainingMs: null })).toBe(
      ' 45 %  Loading weights, 1.0 of 3.0 MiB, 1:01',
    );
  });

  it('is redrawn on a terminal within its width, and ends its line', () => {
    const out = stream(true);
    const view = progressView(out, true);
    view.show(progress);
    view.end();
    view.end();
    expect(out.text).toBe(`\r\x1b[K${`${bar(progress.fraction)} ${progressText(progress)}`.slice(0, 39)}\n`);
  });

  it('is a plain line now and then elsewhere, and nothing when quiet', () => {
    const plain = stream(false);
    const view = progressView(plain, false);
    for (let at = 0; at < 5; at++) view.show(progress);
    view.end();
    expect(plain.text).toBe(`${progressText(progress)}\n`);
    const quiet = stream(false);
    progressView(quiet, true).show(progress);
    expect(quiet.text).toBe('');
  });
});
