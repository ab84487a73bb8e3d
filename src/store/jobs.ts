import { throwIfAborted, ZoetropeError } from '../errors';
import type { StoredJob } from '../protocol';
import type { Request, ResolvedRequest } from '../request';
import type { StoreHost } from './disk';
import { peekSnapshot, readSnapshot, writeSnapshot } from './snapshot';

/**
 * The jobs of this origin that are not finished: those that wait in line, those that run, in whatever tab, and those
 * that a crash has interrupted. A job is a folder with two snapshots: what is asked, and behind each step what it takes
 * to go on.
 */

/** Folder of the jobs in the origin's private file system. */
export const JOBS_ROOT = 'zoetrope-jobs';

/** Interrupted jobs that are kept, the newest; one of 720p and 121 frames takes 229 MB. */
export const KEPT_INTERRUPTED = 4;
/** Jobs that may wait in line. */
export const MAX_WAITING = 100;

/** How long a job that seems to run is waited for: the locks of a tab that has died go a moment after it. */
const PATIENCE_MS = 2000;

const RECORD = 'job';
const STATE = 'state';
/** Whoever adds, moves or removes jobs holds this alone. */
const LIST_LOCK = 'zoetrope-jobs';
/** Whoever runs a job holds this alone. */
const runLock = (id: string) => `zoetrope-job-${id}`;

/** What is known of a job before it runs. */
export interface NewJob {
  id: string;
  request: Request;
  /** See `JobOptions.checkOutput`, which a job that goes on must not lose. */
  checkOutput: boolean;
  model: StoredJob['model'];
}

/** See `Decided` of `pipeline.ts`. */
export interface Decided {
  request: ResolvedRequest;
  prompt: string;
}

/** A job as it is kept. */
export interface JobRecord extends NewJob {
  /** Place in the line. */
  order: number;
  /** Milliseconds since 1970. */
  createdMs: number;
  started: boolean;
  decided?: Decided;
}

/** See `SamplerState` of `diffusion/sampler.ts`. */
export interface SavedState {
  stepsDone: number;
  latents: ReadonlyMap<string, Float32Array>;
}

/** A job whose lock is held. Its writes may throw whatever the disk throws. */
export interface HeldJob {
  /** As it was last written. */
  readonly record: JobRecord;
  /** Steps that had been kept when the job was taken. */
  readonly stepsKept: number;
  decide(decided: Decided): Promise<void>;
  /** The newest state that is whole; undefined before the first one. */
  load(): Promise<SavedState | undefined>;
  save(state: SavedState): Promise<void>;
  /** Forgets the job. */
  remove(): Promise<void>;
}

export class Jobs {
  constructor(private readonly host: Pick<StoreHost, 'disk' | 'locks' | 'now'>) {}

  /** In their order in the line. */
  async list(): Promise<StoredJob[]> {
    const { disk, locks } = this.host;
    const { held = [] } = await locks.query();
    const running = new Set(held.map(({ name }) => name));
    const records = await this.records();
    return Promise.all(
      records.map(async ({ id, request, decided, createdMs, started, model }) => {
        const state = await peekSnapshot(disk, id, STATE);
        return {
          id,
          state: running.has(runLock(id)) ? 'running' : started ? 'interrupted' : 'waiting',
          request: (decided ?? decidedIn(state.facts))?.request ?? request,
          createdMs,
          stepsDone: Number(state.facts?.stepsDone ?? 0),
          model,
          storedBytes: state.storedBytes,
        };
      }),
    );
  }

  /** Throws `unknown-job` when there is no such job. */
  async find(id: string): Promise<JobRecord> {
    const record = (await this.host.disk.folders()).includes(id) ? await this.record(id) : undefined;
    if (!record) throw unknownJob(id, 'is kept');
    return record;
  }

  /** Puts a job at the end of the line. Throws `storage-full` when {@link MAX_WAITING} wait there. */
  async add(job: NewJob): Promise<void> {
    await this.changing(async () => {
      const waiting = (await this.records()).filter(({ started }) => !started).length;
      if (waiting >= MAX_WAITING) {
        throw new ZoetropeError(
          'storage-full',
          `${waiting} requests wait in line, which is the most that may. Remove one, or wait until one is done.`,
        );
      }
      await this.create(job, false);
    });
  }

  /** Puts a job that waits at a place among those that wait, 0 for the next one to run. */
  async move(id: string, position: number): Promise<void> {
    await this.changing(async () => {
      const records = await this.records();
      const waiting = records.filter(({ started }) => !started);
      const moved = waiting.find((record) => record.id === id);
      if (!moved) throw unknownJob(id, 'waits');
      const others = waiting.filter((record) => record !== moved);
      others.splice(position, 0, moved);
      const places = waiting.map(({ order }) => order);
      for (const [index, record] of others.entries()) {
        const order = places[index]!;
        if (record.order !== order) await this.write({ ...record, order });
      }
    });
  }

  /** Forgets a job. Throws `job-in-use` while it runs in another tab; a job that is not there is none to forget. */
  async remove(id: string): Promise<void> {
    const { disk } = this.host;
    const remove = async () => {
      // One that was cancelled has removed itself.
      if ((await disk.folders()).includes(id)) await disk.remove(id);
    };
    await this.holding(id, undefined, () => this.changing(remove));
  }

  /**
   * Takes a job for running, and lets it go when `work` has ended, however. Throws `job-in-use` when it runs in another
   * tab, `unknown-job` when there is none.
   * @param created makes the job first, so that no other tab takes it before.
   */
  async run<T>(id: string, signal: AbortSignal, work: (job: HeldJob) => Promise<T>, created?: NewJob): Promise<T> {
    return this.holding(id, signal, async () => {
      await this.changing(async () => {
        await this.tidy(id);
        if (created) return this.create(created, true);
        const record = await this.find(id);
        // A full disk ends no job: after a crash this one waits, with the steps that there was room for.
        if (!record.started) await this.write({ ...record, started: true }).catch(() => undefined);
      });
      return work(await this.held(id));
    });
  }

  private async held(id: string): Promise<HeldJob> {
    const { disk } = this.host;
    const { facts } = await peekSnapshot(disk, id, STATE);
    const known = decidedIn(facts);
    // A full disk may have refused the record what it has taken with a step.
    let record = { ...(known && { decided: known }), ...(await this.record(id))!, started: true };
    return {
      stepsKept: Number(facts?.stepsDone ?? 0),
      get record() {
        return record;
      },
      decide: (decided) => {
        record = { ...record, decided };
        return this.write(record);
      },
      load: async () => {
        const snapshot = await readSnapshot(disk, id, STATE);
        if (!snapshot) return undefined;
        const latents = [...snapshot.arrays].map(([name, bytes]) => [name, floatsOf(bytes)] as const);
        return { stepsDone: Number(snapshot.facts.stepsDone), latents: new Map(latents) };
      },
      save: ({ stepsDone, latents }) => {
        const arrays = [...latents].map(([name, values]) => [name, bytesOf(values)] as const);
        const { decided, model } = record;
        // All that it takes to go on is in the one file.
        const facts = { stepsDone, ...decided, model: model.id };
        return writeSnapshot(disk, id, STATE, { facts, arrays: new Map(arrays) });
      },
      remove: () => this.changing(() => disk.remove(id)),
    };
  }

  private async create(job: NewJob, started: boolean): Promise<void> {
    const orders = (await this.records()).map(({ order }) => order);
    await this.write({ ...job, order: Math.max(0, ...orders) + 1, createdMs: this.host.now(), started });
  }

  /**
   * Removes what a crash has left without a readable record, and the oldest interrupted jobs above
   * {@link KEPT_INTERRUPTED}.
   */
  private async tidy(except: string): Promise<void> {
    const { disk, locks } = this.host;
    const { held = [] } = await locks.query();
    const running = new Set(held.map(({ name }) => name));
    const free = (id: string) => id !== except && !running.has(runLock(id));
    const records = await this.records();
    const interrupted = records
      .filter(({ id, started }) => started && free(id))
      .sort((a, b) => b.createdMs - a.createdMs)
      .map(({ id }) => id);
    const readable = new Set(records.map(({ id }) => id));
    const unreadable = (await disk.folders()).filter((id) => !readable.has(id) && free(id));
    // What the browser does not let go of yet is removed another time.
    const remove = (id: string) => disk.remove(id).catch(() => undefined);
    for (const id of [...unreadable, ...interrupted.slice(KEPT_INTERRUPTED)]) await remove(id);
  }

  private async records(): Promise<JobRecord[]> {
    const all = await Promise.all((await this.host.disk.folders()).map((id) => this.record(id)));
    return all.filter((record) => record !== undefined).sort((a, b) => a.order - b.order);
  }

  private async record(id: string): Promise<JobRecord | undefined> {
    return (await readSnapshot(this.host.disk, id, RECORD))?.facts as JobRecord | undefined;
  }

  private write(record: JobRecord): Promise<void> {
    return writeSnapshot(this.host.disk, record.id, RECORD, { facts: { ...record }, arrays: new Map() });
  }

  private async changing<T>(work: () => Promise<T>): Promise<T> {
    return this.host.locks.request(LIST_LOCK, {}, work) as Promise<T>;
  }

  private async holding<T>(id: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    const patience = AbortSignal.timeout(PATIENCE_MS);
    let taken = false;
    const whole = () => {
      taken = true;
      return work();
    };
    try {
      const either = signal ? AbortSignal.any([signal, patience]) : patience;
      return await (this.host.locks.request(runLock(id), { signal: either }, whole) as Promise<T>);
    } catch (error) {
      if (taken) throw error;
      throwIfAborted(signal);
      throw new ZoetropeError(
        'job-in-use',
        `The job ${id} runs in another tab. Wait until it is done, or cancel it there.`,
        {
          cause: error,
        },
      );
    }
  }
}

/** What a job had decided when it kept a step; undefined before the first one. */
function decidedIn(facts: Record<string, unknown> | undefined): Decided | undefined {
  if (typeof facts?.prompt !== 'string') return undefined;
  return { request: facts.request as ResolvedRequest, prompt: facts.prompt };
}

function unknownJob(id: string, what: string): ZoetropeError {
  return new ZoetropeError('unknown-job', `No job with the id ${JSON.stringify(id)} ${what}. List the jobs.`);
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** @param bytes as a disk reads them: an array of their own, at the beginning of its memory. */
function floatsOf({ buffer, byteOffset, byteLength }: Uint8Array): Float32Array {
  return new Float32Array(buffer, byteOffset, byteLength / 4);
}
