import { describe, expect, it } from 'vitest';
import { promptText, standingText } from '../../src/app/line-text';
import type { StoredJob } from '../../src/index';

const job = (of: Partial<StoredJob>): StoredJob => ({
  id: 'a',
  state: 'waiting',
  request: { prompt: ' a red circle ', num_inference_steps: 8 },
  createdMs: 0,
  stepsDone: 0,
  model: { id: 'm', name: 'demo', url: 'https://example.org/' },
  storedBytes: 0,
  ...of,
});

describe('the line’s words', () => {
  it('name a job by its prompt', () => {
    expect(promptText(job({}))).toBe('a red circle');
    expect(promptText(job({ request: { prompt: ' ' } }))).toBe('Empty prompt');
    const long = promptText(job({ request: { prompt: 'x'.repeat(121) } }));
    expect([long.length, long.at(-1)]).toEqual([120, '…']);
  });

  it('say how it stands', () => {
    expect(standingText(job({}), 1, 'm')).toBe('Next.');
    expect(standingText(job({}), 3, 'm')).toBe('Number 3.');
    expect(standingText(job({}), 1, 'other')).toBe('Next. Needs the model demo.');
    const interrupted = (stepsDone: number) => standingText(job({ state: 'interrupted', stepsDone }), 0, 'm');
    expect(interrupted(0)).toBe('Interrupted before its first step.');
    expect(interrupted(3)).toBe('Interrupted; 3 of 8 steps are done.');
    expect(interrupted(8)).toBe('Interrupted; all steps are done.');
  });
});
