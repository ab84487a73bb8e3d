/**
 * Noise levels and timesteps of a sampling run, and which of its steps belong to which expert.
 *
 * A sample at noise level sigma is (1 - sigma) * x0 + sigma * noise; a run goes from sigma near 1 down to 0. The order
 * of operations below is the one that gives upstream's truncated timesteps: another order lands on the other side of an
 * integer now and then (step 19 of 27 at shift 1 is 297, not 296).
 */

import { ZoetropeError } from '../errors';

/**
 * Where the noise levels come from:
 * - `unipc`: diffusers' UniPC with flow sigmas since January 2026; the default.
 * - `unipc-old`: the same before that change. Equal to `unipc-official`.
 * - `unipc-official`: Wan2.2 `wan/utils/fm_solvers_unipc.py`.
 * - `dpmpp-official`: Wan2.2 `wan/utils/fm_solvers.py` with `get_sampling_sigmas`.
 * - `euler`: Wan2.2-Lightning `wan/utils/fm_solvers_euler.py`, for distilled experts.
 */
export type SolverName = 'unipc' | 'unipc-old' | 'unipc-official' | 'dpmpp-official' | 'euler';

/** The expert that a step runs: `high` noise first, `low` noise after the switch. */
export type Stage = 'high' | 'low';

/** What a run is made of. */
export interface ScheduleOptions {
  solver: SolverName;
  /** Number of steps N, a whole number from 1. */
  steps: number;
  /** Shift s of u -> s*u / (1 + (s - 1)*u), above 0; 1 leaves the levels as they are. */
  shift: number;
  /**
   * Fraction of the 1000 training timesteps from which on up the high-noise expert runs, 0 to 1: 0.875 for T2V A14B
   * (Wan2.2 `wan/configs/wan_t2v_A14B.py`). Null for a model of one expert, which then runs every step as `high`.
   */
  boundary: number | null;
}

/** The table of a run of N steps. */
export interface Schedule {
  solver: SolverName;
  /** N + 1 noise levels, falling; the last is 0. f32, as upstream holds them. */
  sigmas: Float32Array;
  /** N timesteps for the network, 0 to 1000: whole numbers, except that `euler` does not round. */
  timesteps: readonly number[];
  /** The first so many steps run the high-noise expert, 0 to N. */
  highSteps: number;
}

/** Steps of the training schedule; every Wan scheduler config has `num_train_timesteps` 1000. */
const TRAIN_TIMESTEPS = 1000;

/** 0.999 in f32: largest level of the official training table, 1 - 1/1000. */
const OFFICIAL_MAX = Math.fround(0.999);

/** Before the shift a table has N levels evenly spaced from `start`, the next one being `stop`. */
const RAW_LEVELS: Record<Exclude<SolverName, 'euler'>, { start: number; stop: number }> = {
  unipc: { start: 1, stop: 0.001 },
  'unipc-old': { start: OFFICIAL_MAX, stop: 0 },
  'unipc-official': { start: OFFICIAL_MAX, stop: 0 },
  'dpmpp-official': { start: 1, stop: 0 },
};

/** diffusers lowers a first level of 1 by this much, so that its logarithms stay finite. */
const FIRST_SIGMA_STEP = 1e-6;

/**
 * The table of a run.
 *
 * @throws ZoetropeError `bad-request` when an option is out of its range.
 */
export function schedule({ solver, steps, shift, boundary }: ScheduleOptions): Schedule {
  if (!Number.isSafeInteger(steps) || steps < 1) {
    throw new ZoetropeError('bad-request', `The number of steps is a whole number from 1, got ${steps}.`);
  }
  if (!(shift > 0 && Number.isFinite(shift))) {
    throw new ZoetropeError('bad-request', `The shift is a number above 0, got ${shift}.`);
  }
  if (boundary !== null && !(boundary >= 0 && boundary <= 1)) {
    throw new ZoetropeError('bad-request', `The expert boundary is a number from 0 to 1 or null, got ${boundary}.`);
  }
  const table = solver === 'euler' ? eulerTable(steps, shift) : truncatedTable(solver, steps, shift);
  const switchTimestep = (boundary ?? 0) * TRAIN_TIMESTEPS;
  const highSteps = table.timesteps.filter((t) => t >= switchTimestep).length;
  return { solver, ...table, highSteps };
}

/** The expert of step `index`. Timesteps fall, so the switch happens once at most; either stage may be empty. */
export function stageOf(schedule: Schedule, index: number): Stage {
  return index < schedule.highSteps ? 'high' : 'low';
}

type Table = Pick<Schedule, 'sigmas' | 'timesteps'>;

/** Levels in f64, timesteps truncated from them, levels then rounded to f32. */
function truncatedTable(solver: Exclude<SolverName, 'euler'>, steps: number, shift: number): Table {
  const { start, stop } = RAW_LEVELS[solver];
  const step = (stop - start) / steps;
  const sigmas = new Float32Array(steps + 1);
  const timesteps: number[] = [];
  for (let i = 0; i < steps; i++) {
    const u = i * step + start;
    let sigma = (shift * u) / (1 + (shift - 1) * u);
    if (solver === 'unipc' && Math.abs(sigma - 1) < FIRST_SIGMA_STEP) sigma -= FIRST_SIGMA_STEP;
    sigmas[i] = sigma;
    timesteps.push(Math.trunc(sigma * TRAIN_TIMESTEPS));
  }
  return { sigmas, timesteps };
}

/** Lightning holds the raw timestep, the level and the shifted timestep in f32, each operation rounded. */
function eulerTable(steps: number, shift: number): Table {
  const f32 = Math.fround;
  const sigmas = new Float32Array(steps + 1);
  const timesteps: number[] = [];
  for (let i = 0; i < steps; i++) {
    const raw = f32(i * (-TRAIN_TIMESTEPS / steps) + TRAIN_TIMESTEPS);
    const u = f32(raw / TRAIN_TIMESTEPS);
    const sigma = f32(f32(f32(shift) * u) / f32(1 + f32(f32(shift - 1) * u)));
    sigmas[i] = sigma;
    timesteps.push(f32(sigma * TRAIN_TIMESTEPS));
  }
  return { sigmas, timesteps };
}
