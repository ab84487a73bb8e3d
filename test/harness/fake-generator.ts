import { throwIfAborted, ZoetropeError } from '../../src/errors';
import type { Answer, Generator } from '../../src/fal/queue';
import { resolveRequest } from '../../src/request';

/** An engine that a test lets finish: each job waits until `finish` or `fail` is called, or its signal fires. */
export class FakeGenerator implements Generator {
  /** Prompts in the order in which they ran. */
  readonly ran: string[] = [];
  private settle: ((error?: unknown) => void) | undefined;
  private wake: () => void = () => undefined;

  generate: Generator['generate'] = async (request, { signal, onProgress, onLog }) => {
    this.ran.push(request.prompt);
    this.wake();
    onLog?.({ level: 'warning', message: 'a word' });
    const step = (done: number) =>
      onProgress?.({ stage: 'diffusion', done, total: 2, fraction: done / 2, elapsedMs: 0, remainingMs: null });
    step(0);
    step(1);
    await new Promise<void>((resolve, reject) => {
      this.settle = (error) => (error ? reject(error) : resolve());
      signal?.addEventListener('abort', () => resolve());
    });
    throwIfAborted(signal);
    const parts = { film: false, rife: false, promptExpansion: false, safetyChecker: false };
    const evaluations = { total: 4, computed: 4, skipped: { conditional: [], unconditional: [] } };
    const streaming = { uploadedBytes: 0, stallMs: 0, blocks: 0, ready: 0 };
    const video = { url: 'blob:x', content_type: 'video/mp4', file_name: 'x.mp4', file_size: 3 };
    return {
      video,
      prompt: request.prompt,
      seed: 7,
      timings: { loadMs: 0, textMs: 0, diffusionMs: 0, decodeMs: 0, totalMs: 0, evaluations, streaming },
      request: resolveRequest(request, parts, () => 7),
      blob: 'not data',
    } as Answer;
  };

  /** Resolves when the n-th job runs, counted from 1. */
  async started(count: number): Promise<void> {
    while (this.ran.length < count) await new Promise<void>((resolve) => (this.wake = resolve));
    await Promise.resolve();
  }

  finish(): void {
    this.settle!();
  }

  fail(error: unknown = new ZoetropeError('out-of-memory', 'Too much.')): void {
    this.settle!(error);
  }
}
