import type { Work } from './plan';
import type { Progress, Stage, StageTimings } from './protocol';

/**
 * Turns "this much of that stage is done" into a share of the whole job and an estimate of the rest. The rest is
 * predicted from the pace of the stage that is running, since loading, compiling and computing go at different rates.
 */
export class ProgressMeter {
  private readonly began: number;
  private readonly total: number;
  private highest = 0;
  /** Where and when the stage that is running began. */
  private current: { stage: Stage; fraction: number; ms: number } = { stage: 'load', fraction: 0, ms: 0 };
  /** Operations of finished work, and when each stage was first heard of. */
  private readonly before: Record<Stage, number>;
  private readonly size: Record<Stage, number>;

  /** @param now milliseconds, any origin. */
  constructor(
    private readonly work: Work,
    private readonly now: () => number,
    private readonly emit: (progress: Progress) => void,
  ) {
    const diffusion = work.steps.reduce((sum, step) => sum + step, 0);
    // Loading has no operations; it counts as a twentieth so that the bar moves while weights come in.
    const load = (work.text + diffusion + work.decode) / 20;
    this.size = { load, text: work.text, diffusion, decode: work.decode };
    this.before = { load: 0, text: load, diffusion: load + work.text, decode: load + work.text + diffusion };
    this.total = load + work.text + diffusion + work.decode;
    this.began = now();
  }

  /**
   * Tells the listener that `done` of `total` units of the stage are done.
   * @param partial share of the next step that is done, 0 to 1; of `diffusion` alone.
   */
  report(stage: Stage, done: number, total: number, partial = 0): void {
    const elapsedMs = this.now() - this.began;
    const share = stage === 'diffusion' ? this.stepsShare(done, partial) : total > 0 ? Math.min(1, done / total) : 1;
    this.highest = Math.max(this.highest, (this.before[stage] + this.size[stage] * share) / this.total);
    // Weights that come late, such as the second expert's, do not end the stage that waits for them. What is done when
    // a stage is first heard of was done before, perhaps by a run that was interrupted, and says nothing of the pace.
    if (stage !== this.current.stage && stage !== 'load') {
      this.current = { stage, fraction: this.highest, ms: elapsedMs };
    }
    const advance = this.highest - this.current.fraction;
    const remainingMs = advance > 0.01 ? ((elapsedMs - this.current.ms) * (1 - this.highest)) / advance : null;
    this.emit({ stage, done, total, fraction: this.highest, elapsedMs, remainingMs });
  }

  /** Steps differ: some run a single branch, some reuse what an earlier one gave. */
  private stepsShare(done: number, partial: number): number {
    const { steps } = this.work;
    const sum = (some: readonly number[]) => some.reduce((total, step) => total + step, 0);
    return (sum(steps.slice(0, done)) + partial * (steps[done] ?? 0)) / sum(steps);
  }
}

/** A stage that has a time of its own. */
type TimedStage = Exclude<keyof StageTimings, 'totalMs'>;

/** Adds up the time of stages. A stage inside another, such as loading a part, is not counted twice. */
export class StageClock {
  private readonly times: Omit<StageTimings, 'totalMs'> = { loadMs: 0, textMs: 0, diffusionMs: 0, decodeMs: 0 };
  private readonly running: TimedStage[] = [];
  private readonly began: number;
  private since: number;

  /** @param now milliseconds, any origin. */
  constructor(private readonly now: () => number) {
    this.began = now();
    this.since = this.began;
  }

  /** Runs `work` on the account of `stage`. */
  async time<T>(stage: TimedStage, work: () => Promise<T>): Promise<T> {
    this.settle();
    this.running.push(stage);
    try {
      return await work();
    } finally {
      this.settle();
      this.running.pop();
    }
  }

  /** The times so far. */
  timings(): StageTimings {
    this.settle();
    return { ...this.times, totalMs: this.now() - this.began };
  }

  private settle(): void {
    const now = this.now();
    const stage = this.running.at(-1);
    if (stage) this.times[stage] += now - this.since;
    this.since = now;
  }
}
