import { messageOf, ZoetropeError } from './errors';
import type { Checkpoint } from './pipeline';
import type { LogEntry, Report } from './protocol';
import type { HeldJob } from './store/jobs';

/** What follows when a job fails: whether it goes on, how, and what is kept. */

/** Lost devices in a row, with no step finished between them, after which a job gives up. */
export const MAX_LOSSES = 3;
/** Share of the bytes that a device ran out of which the job is planned for again. */
export const REPLAN_SHARE = 0.7;

/** How an attempt at a job ended. */
export interface Failure {
  error: ZoetropeError;
  /** It got past its plan, so that running out of memory was the device's doing, not the plan's. */
  planned: boolean;
  /** Steps that were kept while it ran. */
  stepsKept: number;
  /** The most bytes that it held on the GPU. */
  peakBytes: number;
}

/** What happened before. */
export interface History {
  /** Lost devices since a step was last finished. */
  losses: number;
  replanned: boolean;
}

/** What to do now. */
export type Decision =
  | { kind: 'give-up' }
  /** On a new device, from the last step. */
  | { kind: 'continue'; history: History }
  | { kind: 'replan'; history: History; budgetBytes: number };

export const FIRST_ATTEMPT: History = { losses: 0, replanned: false };

/**
 * Goes on after a lost device, up to {@link MAX_LOSSES} times without a step between them, and once with a smaller
 * budget after a device has run out of memory.
 * @param budgetBytes of the attempt that failed.
 */
export function afterFailure({ losses, replanned }: History, failure: Failure, budgetBytes: number): Decision {
  const { error, planned, stepsKept, peakBytes } = failure;
  if (error.code === 'device-lost') {
    const inARow = stepsKept > 0 ? 1 : losses + 1;
    if (inARow > MAX_LOSSES) return { kind: 'give-up' };
    return { kind: 'continue', history: { losses: inARow, replanned } };
  }
  if (error.code === 'out-of-memory' && planned && !replanned) {
    const smaller = Math.floor(REPLAN_SHARE * Math.min(budgetBytes, peakBytes));
    return { kind: 'replan', history: { losses, replanned: true }, budgetBytes: smaller };
  }
  return { kind: 'give-up' };
}

/**
 * Whether a job that has failed stays, to be continued. One that the person has cancelled, or that nobody can make,
 * does not; of the others, those that have something to lose do (a part that is missing now may be there again), and
 * those that the GPU let down.
 */
export function staysAfter({ code }: ZoetropeError, stepsKept: number): boolean {
  const over = ['aborted', 'bad-request', 'content-policy-violation'];
  if (over.includes(code)) return false;
  return stepsKept > 0 || code === 'device-lost' || code === 'unsupported-device';
}

/** What an attempt tells of itself while it runs. */
export type Seen = Omit<Failure, 'error'>;

/** What {@link recovering} works with. */
export interface RecoveryHost {
  budgetBytes: number;
  log(entry: LogEntry): void;
  /** Gives up the device, with whatever a failed allocation has left on it. */
  release(): Promise<void>;
}

/**
 * Tries until an attempt gives something, or {@link afterFailure} gives up.
 * @param attempt with the bytes it may hold.
 */
export async function recovering<T>(
  attempt: (budgetBytes: number, seen: Seen, losses: number) => Promise<T>,
  { budgetBytes: given, log, release }: RecoveryHost,
): Promise<T> {
  let budgetBytes = given;
  let history = FIRST_ATTEMPT;
  for (;;) {
    const seen: Seen = { planned: false, stepsKept: 0, peakBytes: 0 };
    try {
      return await attempt(budgetBytes, seen, history.losses);
    } catch (error) {
      if (!(error instanceof ZoetropeError)) throw error;
      const decision = afterFailure(history, { error, ...seen }, budgetBytes);
      if (decision.kind === 'give-up') {
        if (error.code === 'out-of-memory' && seen.planned) await release();
        throw error;
      }
      history = decision.history;
      if (decision.kind === 'replan') {
        budgetBytes = decision.budgetBytes;
        log({
          level: 'warning',
          message: `${error.message} Trying once more with ${(budgetBytes / 1e9).toFixed(2)} GB.`,
        });
        await release();
      } else log({ level: 'warning', message: 'The GPU device was lost. Going on with a new one.' });
    }
  }
}

/**
 * A report whose share never falls and whose clock runs on, however often a job is tried.
 * @param now milliseconds, any origin.
 */
export function steadyReport(report: Report, now: () => number): Report {
  const began = now();
  let fraction = 0;
  return {
    // One by one: a report from the page is a proxy, which has no members of its own to spread.
    preview: (preview) => report.preview(preview),
    log: (entry) => report.log(entry),
    expand: async (...prompt) => report.expand?.(...prompt),
    progress(progress) {
      fraction = Math.max(fraction, progress.fraction);
      report.progress({ ...progress, fraction, elapsedMs: now() - began });
    },
  };
}

/**
 * Keeps what a job has made, with a warning, once, in place of an error where the disk refuses.
 * @param job undefined where the browser stores nothing: what was decided then lasts as long as the worker.
 * @param onStep is called when a step was kept.
 */
export function keep(job: HeldJob | undefined, log: (entry: LogEntry) => void, onStep: () => void): Checkpoint {
  let warned = false;
  let { decided } = job?.record ?? {};
  const attempt = async (write: () => Promise<void>): Promise<boolean> => {
    try {
      await write();
      return true;
    } catch (error) {
      if (!warned) log({ level: 'warning', message: cannotKeep(error) });
      warned = true;
      return false;
    }
  };
  return {
    get decided() {
      return decided;
    },
    async decide(now) {
      decided = now;
      if (job) await attempt(() => job.decide(now));
    },
    load: async () => job?.load(),
    async save(read) {
      if (!job) return;
      const state = await read();
      if (await attempt(() => job.save(state))) onStep();
    },
  };
}

/** The warning of a job that goes on without being kept. */
export function cannotKeep(error: unknown): string {
  return `This video's progress cannot be kept (${messageOf(error)}). It goes on, but after a crash it cannot be continued from here.`;
}
