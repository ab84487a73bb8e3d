import { describe, expect, it } from 'vitest';
import { type SolverName, schedule, stageOf } from '../../src/diffusion/schedule';
import { ZoetropeError } from '../../src/errors';
import { hasFixtures, readCase } from '../harness/sampling-fixtures';

interface ScheduleCase {
  config: { boundary: number };
  tables: {
    solver: string;
    steps: number;
    shift: number;
    sigmas: number[];
    timesteps: number[];
    high_steps: number;
  }[];
}

/** The fixture's names of the tables. */
const SOLVERS: Record<string, SolverName> = {
  'unipc-diffusers': 'unipc',
  'unipc-diffusers-old': 'unipc-old',
  'unipc-official': 'unipc-official',
  'dpmpp-official': 'dpmpp-official',
  'euler-lightning': 'euler',
};

const WAN = { steps: 27, shift: 5, boundary: 0.875 };

/** Levels as the reference page prints them, with six decimals. */
function printed(sigmas: Float32Array): number[] {
  return Array.from(sigmas, (sigma) => Math.round(sigma * 1e6) / 1e6);
}

describe('schedule', () => {
  it("is diffusers' table for unipc", () => {
    const { sigmas, timesteps, highSteps } = schedule({ solver: 'unipc', ...WAN });
    expect(printed(sigmas)).toEqual([
      0.999999, 0.992374, 0.984269, 0.975637, 0.966425, 0.956573, 0.946012, 0.934662, 0.922432, 0.909215, 0.894886,
      0.8793, 0.862283, 0.843628, 0.823087, 0.80036, 0.775076, 0.746779, 0.714897, 0.678702, 0.637255, 0.589323,
      0.533257, 0.466792, 0.38674, 0.288462, 0.164931, 0,
    ]);
    expect(timesteps[0]).toBe(999);
    expect(highSteps).toBe(12);
  });

  it('is the table of Wan2.2 for unipc-official, and for unipc-old', () => {
    const official = schedule({ solver: 'unipc-official', ...WAN });
    expect(official.timesteps).toEqual([
      999, 992, 984, 975, 966, 956, 945, 934, 922, 908, 894, 878, 861, 843, 822, 799, 774, 745, 713, 677, 636, 587, 531,
      464, 384, 285, 161,
    ]);
    expect(official.highSteps).toBe(12);
    expect(schedule({ solver: 'unipc-old', ...WAN }).sigmas).toEqual(official.sigmas);
    const long = schedule({ solver: 'unipc-official', steps: 40, shift: 12, boundary: 0.875 });
    expect(printed(long.sigmas.subarray(0, 3))).toEqual([0.999917, 0.997783, 0.995546]);
    expect(long.highSteps).toBe(26);
  });

  it('does not round timesteps for euler', () => {
    const { sigmas, timesteps, highSteps } = schedule({ solver: 'euler', steps: 4, shift: 5, boundary: 0.875 });
    expect([...sigmas]).toEqual([1, 0.9375, Math.fround(5 / 6), 0.625, 0]);
    expect(timesteps).toEqual([1000, 937.5, Math.fround(2500 / 3), 625]);
    expect(highSteps).toBe(2);
  });

  it('truncates as upstream does where the obvious formulas do not', () => {
    const at = (solver: SolverName, steps: number, i: number) =>
      schedule({ solver, steps, shift: 1, boundary: 0.875 }).timesteps[i];
    expect(at('unipc', 27, 19)).toBe(297);
    expect(at('unipc', 27, 25)).toBe(75);
    expect(at('unipc-official', 27, 3)).toBe(888);
    expect(at('dpmpp-official', 40, 14)).toBe(649);
    expect(at('dpmpp-official', 40, 39)).toBe(24);
  });

  /** Rows: steps. Columns: shift 1 to 10, then 12. From the reference table for unipc-official. */
  it.each([
    [2, [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]],
    [4, [1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3]],
    [8, [1, 2, 3, 3, 4, 4, 4, 5, 5, 5, 6]],
    [10, [2, 3, 3, 4, 5, 5, 5, 6, 6, 6, 7]],
    [20, [3, 5, 6, 8, 9, 10, 10, 11, 12, 12, 13]],
    [27, [4, 6, 9, 10, 12, 13, 14, 15, 16, 16, 18]],
    [30, [4, 7, 9, 11, 13, 14, 15, 16, 17, 18, 19]],
    [40, [5, 9, 12, 15, 17, 19, 20, 22, 23, 24, 26]],
    [50, [7, 12, 15, 19, 21, 24, 25, 27, 29, 30, 32]],
  ])('gives the high-noise expert its share of %i steps', (steps, expected) => {
    const shifts = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12];
    const share = shifts.map(
      (shift) => schedule({ solver: 'unipc-official', steps, shift, boundary: 0.875 }).highSteps,
    );
    expect(share).toEqual(expected);
  });

  it('falls from a start below one to zero for every request that fal allows', () => {
    for (let steps = 2; steps <= 40; steps++) {
      for (let shift = 1; shift <= 10; shift += 0.5) {
        const { sigmas, timesteps } = schedule({ solver: 'unipc', steps, shift, boundary: 0.875 });
        expect(sigmas).toHaveLength(steps + 1);
        expect(timesteps).toHaveLength(steps);
        expect(sigmas[0]).toBeLessThan(1);
        expect(sigmas[steps]).toBe(0);
        for (let i = 0; i < steps; i++) {
          expect(sigmas[i + 1]).toBeLessThan(sigmas[i]!);
          expect(timesteps[i]).toBe(Math.trunc(timesteps[i]!));
        }
      }
    }
  });

  it('switches at the timestep itself, and lets either stage be empty', () => {
    const steps = (boundary: number | null) => schedule({ solver: 'euler', steps: 8, shift: 1, boundary }).highSteps;
    expect(steps(0.875)).toBe(2); // 1000 and 875
    expect(steps(0.8751)).toBe(1);
    expect(steps(0)).toBe(8);
    expect(steps(null)).toBe(8);
    const { timesteps, ...unipc } = schedule({ solver: 'unipc', steps: 3, shift: 5, boundary: 1 });
    expect(timesteps[0]).toBe(999);
    expect(unipc.highSteps).toBe(0);
  });

  it('names the stage of a step', () => {
    const wan = schedule({ solver: 'unipc', steps: 8, shift: 5, boundary: 0.875 });
    const stages = wan.timesteps.map((_, index) => stageOf(wan, index));
    expect(stages).toEqual(['high', 'high', 'high', 'high', 'low', 'low', 'low', 'low']);
  });

  it('runs a single step', () => {
    const { sigmas, timesteps } = schedule({ solver: 'unipc', steps: 1, shift: 5, boundary: 0.875 });
    expect([...sigmas]).toEqual([Math.fround(1 - 1e-6), 0]);
    expect(timesteps).toEqual([999]);
  });

  it.each([
    { steps: 0 },
    { steps: 2.5 },
    { steps: Number.NaN },
    { shift: 0 },
    { shift: -1 },
    { shift: Number.NaN },
    { shift: Number.POSITIVE_INFINITY },
    { boundary: -0.1 },
    { boundary: 875 },
    { boundary: Number.NaN },
  ])('refuses %o', (wrong) => {
    const make = () => schedule({ solver: 'unipc', ...WAN, ...wrong });
    expect(make).toThrow(ZoetropeError);
    expect(make).toThrow(`got ${Object.values(wrong)[0]}`);
  });

  it.skipIf(!hasFixtures)('equals every table of the fixture exactly', () => {
    const { config, tables } = readCase<ScheduleCase>('fixtures/schedule');
    expect(tables).toHaveLength(125);
    for (const { solver, steps, shift, sigmas, timesteps, high_steps } of tables) {
      const name = `${solver}, ${steps} steps, shift ${shift}`;
      const table = schedule({ solver: SOLVERS[solver]!, steps, shift, boundary: config.boundary });
      expect(table.sigmas, name).toEqual(Float32Array.from(sigmas));
      // The fixture prints f32 timesteps with nine digits; whole numbers are exact in f32.
      expect(Float32Array.from(table.timesteps), name).toEqual(Float32Array.from(timesteps));
      expect(table.highSteps, name).toBe(high_steps);
    }
  });
});
