import type { Remote } from 'comlink';
import { throwIfAborted, ZoetropeError } from '../errors';
import type { JobList, ModelInfo, StoredJob, WorkerSide } from '../protocol';
import type { Request } from '../request/fields';
import type { GenerateOptions, Generation } from './generation';
import { plain } from './plain';

/** How a job of the list is run. */
export type ResumeOptions = Omit<GenerateOptions, 'checkOutput'>;

/**
 * Videos of this site that are not finished, in whatever tab they began. Every rejection is a {@link ZoetropeError}.
 */
export interface Jobs {
  /** In the order of the line; those that run or were interrupted too. */
  list(): Promise<StoredJob[]>;
  /** Puts a request at the end of the line, where it outlives the page; {@link next} runs it. */
  add(request: Request, options?: Pick<GenerateOptions, 'checkOutput'>): Promise<StoredJob>;
  /** Puts a job that waits at another place of the line, 0 for the next one to run. */
  move(id: string, position: number): Promise<void>;
  /** Forgets a job with all that was kept of it. Throws `job-in-use` while it runs in another tab. */
  remove(id: string): Promise<void>;
  /**
   * Runs a job from the last step that was kept. The frames are those of a run that was never interrupted. Throws
   * `unknown-job`, `job-in-use` while it runs in another tab or was continued here already, `bad-checkpoint` when
   * another model is open than it was begun with.
   */
  continue(id: string, options?: ResumeOptions): Promise<Generation>;
  /**
   * Runs the first job that waits for this model, and gives undefined when none does. Of all tabs one at a time does
   * so.
   * @param onStart is told which job it is.
   */
  next(options?: ResumeOptions & { onStart?: (job: StoredJob) => void }): Promise<Generation | undefined>;
}

/** Whichever tab runs jobs from the line holds this. */
const LINE_LOCK = 'zoetrope-line';

export function createJobs(
  engine: Remote<WorkerSide>,
  call: <T>(pending: Promise<T>) => Promise<T>,
  { id: modelId }: ModelInfo,
  resume: (id: string, options: ResumeOptions | undefined) => Promise<Generation>,
): Jobs {
  const { jobs } = engine as unknown as { jobs: Remote<JobList> };
  const list = () => call(jobs.list());
  return {
    list,
    async add(request, { checkOutput = false } = {}) {
      const id = await call(jobs.add(plain(request), checkOutput));
      return (await list()).find((job) => job.id === id)!;
    },
    move: (id, position) => call(jobs.move(id, position)),
    remove: (id) => call(jobs.remove(id)),
    continue: resume,
    async next({ onStart, ...options } = {}) {
      const { signal } = options;
      const taken = new Set<string>();
      const mine = ({ id, state, model }: StoredJob) => state === 'waiting' && model.id === modelId && !taken.has(id);
      const run = async (): Promise<Generation | undefined> => {
        for (;;) {
          const job = (await list()).find(mine);
          if (!job) return undefined;
          onStart?.(job);
          try {
            return await resume(job.id, options);
          } catch (error) {
            // Somebody has taken or removed it meanwhile: the next one, then.
            const gone = error instanceof ZoetropeError && ['job-in-use', 'unknown-job'].includes(error.code);
            if (!gone) throw error;
            taken.add(job.id);
          }
        }
      };
      try {
        return await navigator.locks.request(LINE_LOCK, signal ? { signal } : {}, run);
      } catch (error) {
        if (!(error instanceof ZoetropeError)) throwIfAborted(signal); // the browser's own, of who waited for the lock
        throw error;
      }
    },
  };
}
