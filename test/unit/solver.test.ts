import { describe, expect, it } from 'vitest';
import { euler, eulerStep } from '../../src/diffusion/euler';
import { guidanceOf } from '../../src/diffusion/guidance';
import { type SolverName, schedule, stageOf } from '../../src/diffusion/schedule';
import { MAX_TERMS, type Slot, type Solver, velocityTerms } from '../../src/diffusion/solver';
import { unipc, unipcStep } from '../../src/diffusion/unipc';
import { deviation, fill, hasDemoGoldens, hasFixtures, openF32, readCase } from '../harness/sampling-fixtures';
import { applyStep, type Tensors } from '../reference/solver';

type Values = Float64Array | Float32Array;
type VelocityField = (x: Values, index: number) => ArrayLike<number>;

/** Buffers of a run: the start in `sample`, NaN wherever a step must not look before it has written. */
function buffers(solver: Solver, start: Values): Tensors {
  const empty = () => start.slice().fill(Number.NaN);
  const names: Slot[] = [...solver.latents, 'conditional', 'unconditional'];
  return new Map(names.map((name) => [name, name === 'sample' ? start.slice() : empty()])) as Tensors;
}

/** Runs a solver without guidance; the states after each step. */
function run(solver: Solver, table: ReturnType<typeof schedule>, start: Values, velocity: VelocityField): Values[] {
  const tensors = buffers(solver, start);
  return table.timesteps.map((_, index) => {
    tensors.get('conditional')!.set(velocity(tensors.get('sample')!, index));
    applyStep(solver.step(table, index, 1), tensors);
    return tensors.get('sample')!.slice();
  });
}

const WAN_8 = { steps: 8, shift: 5, boundary: 0.875 };

/** ln(1 - sigma) - ln(sigma). */
function lambda(sigma: number): number {
  return Math.log((1 - sigma) / sigma);
}

/** States that the reference implementations give for two components, printed with seven digits. */
describe('golden trajectories', () => {
  const start = Float64Array.of(1, -0.5);
  const field: VelocityField = (x, i) => [0.5 * x[0]! + 0.1 * i, 0.5 * x[1]! - 0.1 * i];

  it.each<[SolverName, [number, number][]]>([
    [
      'unipc-official',
      [
        [0.9807583, -0.4903791],
        [0.9477898, -0.4701707],
        [0.892465, -0.4326143],
        [0.7985607, -0.3654043],
        [0.6194312, -0.2304943],
        [0.2148164, 0.0769447],
      ],
    ],
    [
      'unipc',
      [
        [0.9807919, -0.490396],
        [0.9480905, -0.4704403],
        [0.8926808, -0.432746],
        [0.7990319, -0.3657162],
        [0.6205888, -0.2313383],
        [0.2142286, 0.077418],
      ],
    ],
  ])('%s, six steps', (solver, expected) => {
    const states = run(unipc, schedule({ solver, steps: 6, shift: 5, boundary: 0.875 }), start, field);
    expect(states).toHaveLength(6);
    for (const [i, state] of states.entries()) expect(deviation(state, expected[i]!).maxAbs).toBeLessThan(2e-7);
  });

  it.each<[SolverName, [number, number]]>([
    ['unipc-official', [-1.0547257, 1.3574321]],
    ['unipc', [-1.0571855, 1.3597921]],
  ])('%s, the end of 27 steps', (solver, expected) => {
    const states = run(unipc, schedule({ solver, steps: 27, shift: 5, boundary: 0.875 }), start, field);
    expect(deviation(states.at(-1)!, expected).maxAbs).toBeLessThan(5e-7);
  });
});

/** DPM++ has tables but no solver here, so its four trajectories are left out. */
describe.skipIf(!hasFixtures)('trajectories of the fixture', () => {
  interface SamplerCase {
    config: { shape: number[]; boundary: number };
    runs: { run: string; solver: string; steps: number; shift: number }[];
    expected: { name: string; tolerance: { f32: { rel_rms: number; max_rel: number } } }[];
  }
  const SOLVERS: Record<string, [Solver, SolverName]> = {
    'unipc-diffusers': [unipc, 'unipc'],
    'unipc-official': [unipc, 'unipc-official'],
    'euler-lightning': [euler, 'euler'],
  };

  it.each([
    ['f32', Float32Array],
    ['f64', Float64Array],
  ] as const)('are reproduced with %s buffers', (_, ArrayType) => {
    const { config, runs, expected } = readCase<SamplerCase>('fixtures/sampler');
    const stored = openF32('fixtures/sampler/expected.safetensors');
    const count = config.shape.reduce((product, size) => product * size, 1);
    const start = ArrayType.from(fill('x0', 4, count));
    const b = fill('b', 2, count);
    const ours = runs.filter(({ solver }) => solver in SOLVERS);
    expect(runs.filter(({ solver }) => solver === 'dpmpp-official')).toHaveLength(4);
    expect(ours).toHaveLength(14);
    for (const { run: name, solver: key, steps, shift } of ours) {
      const [solver, tableName] = SOLVERS[key]!;
      const table = schedule({ solver: tableName, steps, shift, boundary: config.boundary });
      const states = run(solver, table, start, (x, index) => {
        const t = table.timesteps[index]! / 1000;
        const at = (i: number) => Math.fround(x[i % count]!);
        return Float32Array.from(
          { length: count },
          (_, i) => 0.5 * at(i) - 0.4 * t * at(i + 17) + 0.3 * Math.sin(2 * at(i + 1)) + 0.2 * b[i]!,
        );
      });
      const all = [start, ...states].flatMap((state) => Array.from(state));
      const { rel_rms, max_rel } = expected.find((tensor) => tensor.name === name)!.tolerance.f32;
      const { relRms, maxRel } = deviation(all, stored(name));
      expect(relRms, name).toBeLessThan(rel_rms);
      expect(maxRel, name).toBeLessThan(max_rel);
    }
  });
});

describe('guidance in a step', () => {
  const wan = schedule({ solver: 'unipc', ...WAN_8 });

  it('is v = unconditional + g (conditional - unconditional)', () => {
    const [start, conditional, unconditional] = ['x', 'vc', 'vu'].map((name) => Float64Array.from(fill(name, 4, 30)));
    for (const [solver, table] of [
      [unipc, wan],
      [euler, schedule({ solver: 'euler', ...WAN_8 })],
    ] as const) {
      for (let index = 0; index < 8; index++) {
        const [guided, plain] = [buffers(solver, start!), buffers(solver, start!)];
        for (const tensors of [guided, plain]) {
          for (const name of solver.latents) tensors.get(name)!.set(fill(name, 4, 30));
        }
        guided.get('conditional')!.set(conditional!);
        guided.get('unconditional')!.set(unconditional!);
        plain
          .get('conditional')!
          .set(conditional!.map((vc, i) => unconditional![i]! + 3.5 * (vc - unconditional![i]!)));
        applyStep(solver.step(table, index, 3.5), guided);
        applyStep(solver.step(table, index, 1), plain);
        for (const name of solver.latents) {
          expect(deviation(guided.get(name)!, plain.get(name)!).maxAbs).toBeLessThan(1e-13);
        }
      }
    }
  });

  it('at exactly 1 reads the conditional velocity alone', () => {
    expect(velocityTerms(1, 0.5)).toEqual([{ tensor: 'conditional', coefficient: 0.5 }]);
    expect(velocityTerms(4, 0.5)).toEqual([
      { tensor: 'conditional', coefficient: 2 },
      { tensor: 'unconditional', coefficient: -1.5 },
    ]);
    for (let index = 0; index < 8; index++) {
      expect(JSON.stringify(unipcStep(wan, index, 1))).not.toContain('unconditional');
      expect(JSON.stringify(unipcStep(wan, index, 1.5))).toContain('unconditional');
    }
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])('refuses a scale of %s', (scale) => {
    expect(() => unipcStep(wan, 0, scale)).toThrow(/guidance scale is a finite number/);
  });

  it.skipIf(!hasDemoGoldens).each(['red-circle-right', 'wide', 'negative-prompt'])(
    'gives the first latents of the demo model: %s',
    (name) => {
      const folder = `data/demo-model/golden/${name}`;
      const request = readCase<{
        num_inference_steps: number;
        shift: number;
        boundary_ratio: number;
        guidance_scale: number;
        guidance_scale_2: number;
        timesteps: number[];
        expert_per_step: string[];
      }>(folder);
      const table = schedule({
        solver: 'unipc',
        steps: request.num_inference_steps,
        shift: request.shift,
        boundary: request.boundary_ratio,
      });
      expect(table.timesteps).toEqual(request.timesteps);
      expect(request.expert_per_step).toEqual(table.timesteps.map((_, index) => stageOf(table, index)));
      const golden = openF32(`${folder}/golden.safetensors`);
      const tensors = buffers(unipc, golden('noise'));
      tensors.get('conditional')!.set(golden('velocity_cond_step_0'));
      tensors.get('unconditional')!.set(golden('velocity_uncond_step_0'));
      applyStep(unipcStep(table, 0, guidanceOf(stageOf(table, 0), request).scale), tensors);
      const { relRms, maxRel } = deviation(tensors.get('sample')!, golden('latents_after_step_0'));
      // The bounds of the sampler fixture.
      expect(relRms).toBeLessThan(2e-6);
      expect(maxRel).toBeLessThan(1e-5);
    },
  );
});

describe.each<[string, Solver, SolverName]>([
  ['unipc', unipc, 'unipc'],
  ['unipc on the official table', unipc, 'unipc-official'],
  ['unipc from pure noise', unipc, 'euler'],
  ['euler', euler, 'euler'],
])('%s', (_, solver, tableName) => {
  it('goes straight to x0 when the flow is straight', () => {
    for (const steps of [1, 2, 3, 8, 27, 40]) {
      const table = schedule({ solver: tableName, steps, shift: 5, boundary: 0.875 });
      const x0 = Float64Array.from(fill('clean', 2, 13));
      const v = Float64Array.from(fill('direction', 3, 13));
      const start = x0.map((value, i) => value + table.sigmas[0]! * v[i]!);
      const states = run(solver, table, start, () => v);
      for (const [i, state] of states.entries()) {
        const expected = x0.map((value, k) => value + table.sigmas[i + 1]! * v[k]!);
        expect(deviation(state, expected).maxAbs).toBeLessThan(1e-13);
      }
    }
  });

  it('keeps a sample that is its own estimate: the coefficients of each new latent add up to one', () => {
    const table = schedule({ solver: tableName, ...WAN_8 });
    for (let index = 0; index < 8; index++) {
      for (const { terms } of solver.step(table, index, 3.5).combinations) {
        const sum = (slots: readonly Slot[]) =>
          terms.filter(({ tensor }) => slots.includes(tensor)).reduce((total, term) => total + term.coefficient, 0);
        expect(sum(solver.latents)).toBeCloseTo(1, 12);
        for (const { coefficient } of terms) expect(Number.isFinite(coefficient)).toBe(true);
        expect(terms.length).toBeLessThanOrEqual(MAX_TERMS);
      }
    }
  });

  it('resumes at any step from its state alone', () => {
    const table = schedule({ solver: tableName, ...WAN_8 });
    const start = Float64Array.from(fill('resume', 4, 11));
    const field: VelocityField = (x, i) => x.map((value, k) => Math.sin(3 * value) + 0.2 * k - 0.1 * i);
    const whole = run(solver, table, start, field).at(-1)!;
    for (let stop = 0; stop < 8; stop++) {
      let tensors = buffers(solver, start);
      for (let index = 0; index < 8; index++) {
        if (index === stop) {
          const resumed = buffers(solver, start);
          for (const name of solver.state) resumed.get(name)!.set(tensors.get(name)!);
          tensors = resumed;
        }
        tensors.get('conditional')!.set(field(tensors.get('sample')!, index));
        applyStep(solver.step(table, index, 1), tensors);
      }
      expect(tensors.get('sample')).toEqual(whole);
    }
  });

  it('names the latent that holds x0 = x - sigma v after each step', () => {
    const table = schedule({ solver: tableName, ...WAN_8 });
    const tensors = buffers(solver, Float64Array.from(fill('preview', 4, 11)));
    for (let index = 0; index < 8; index++) {
      const x = tensors.get('sample')!;
      const v = x.map((value, k) => Math.cos(value + k));
      const expected = x.map((value, k) => value - table.sigmas[index]! * v[k]!);
      tensors.get('conditional')!.set(v);
      const step = solver.step(table, index, 1);
      applyStep(step, tensors);
      expect(deviation(tensors.get(step.estimate)!, expected).maxAbs).toBeLessThan(1e-14);
    }
    expect(solver.step(table, 7, 1).estimate).toBe('sample');
  });

  it.each([-1, 8, 0.5, Number.NaN])('refuses step %s of 8', (index) => {
    expect(() => solver.step(schedule({ solver: tableName, ...WAN_8 }), index, 1)).toThrow(/from 0 to 7, got/);
  });
});

describe('unipc', () => {
  const wan = schedule({ solver: 'unipc', ...WAN_8 });
  const outs = (steps: number) => {
    const table = schedule({ solver: 'unipc', steps, shift: 5, boundary: 0.875 });
    return table.timesteps.map((_, i) => unipcStep(table, i, 1).combinations.map(({ out }) => out));
  };

  it('has no corrector in step 0 and needs none in the last', () => {
    const middle = ['x0', 'sample', 'lastSample'];
    expect(outs(5)).toEqual([['x0', 'lastSample'], middle, middle, middle, ['x0']]);
    expect(outs(2)).toEqual([['x0', 'lastSample'], ['x0']]);
    expect(outs(1)).toEqual([['x0']]);
  });

  it('steps from 0 to 1 and from 1 back to the corrected 1 with one estimate less than later', () => {
    const terms = (index: number) =>
      unipcStep(wan, index, 1).combinations.map((combination) => combination.terms.length);
    expect(terms(0)).toEqual([2, 2]);
    expect(terms(1)).toEqual([2, 3, 3]);
    expect(terms(2)).toEqual([2, 4, 3]);
  });

  it('corrects exactly when x0 is quadratic in lambda', () => {
    const polynomial = (l: number) => 0.7 - 0.4 * l + 0.3 * l * l;
    // Integral of e^l (a + b l + c l^2): e^l (a + b (l - 1) + c (l^2 - 2 l + 2)).
    const integral = (l: number) => Math.exp(l) * (0.7 - 0.4 * (l - 1) + 0.3 * (l * l - 2 * l + 2));
    const exact = (from: number, to: number, x: number) =>
      (to / from) * x + to * (integral(lambda(to)) - integral(lambda(from)));
    for (let index = 2; index < 7; index++) {
      const [earlier, before, now] = [...wan.sigmas.subarray(index - 2, index + 1)] as [number, number, number];
      const tensors = buffers(unipc, Float64Array.of(0.9));
      tensors.get('lastSample')!.set([1.3]);
      tensors.get('x0Earlier')!.set([polynomial(lambda(earlier))]);
      tensors.get('x0Previous')!.set([polynomial(lambda(before))]);
      tensors.get('conditional')!.set([(0.9 - polynomial(lambda(now))) / now]);
      applyStep(unipcStep(wan, index, 1), tensors);
      // The corrected sample is what the next step calls the last one.
      expect(tensors.get('lastSample')![0]).toBeCloseTo(exact(before, now, 1.3), 10);
    }
  });

  it('converges with order three on a Gaussian flow, as a corrected second-order method does, and Euler with order one', () => {
    // x0 ~ N(0.3, 0.5^2) makes x(sigma) = (1 - sigma) 0.3 + z sqrt((1 - sigma)^2 0.25 + sigma^2) a path of the flow.
    const spread = (sigma: number) => (1 - sigma) ** 2 * 0.25 + sigma ** 2;
    const path = (sigma: number) => (1 - sigma) * 0.3 + 1.5 * Math.sqrt(spread(sigma));
    /** Error after `steps` steps, even in lambda, from sigma 0.9 to 0.1; a last step to 0 closes the table. */
    const error = (solver: Solver, steps: number) => {
      const levels = Array.from({ length: steps + 1 }, (_, i) => 1 / (1 + 9 ** ((2 * i) / steps - 1)));
      const table = {
        solver: 'unipc',
        sigmas: Float32Array.of(...levels, 0),
        timesteps: levels,
        highSteps: 0,
      } as const;
      const states = run(solver, table, Float64Array.of(path(table.sigmas[0]!)), (x, index) => {
        const sigma = table.sigmas[index]!;
        const excess = x[0]! - (1 - sigma) * 0.3;
        return [(x[0]! - 0.3 - ((1 - sigma) * 0.25 * excess) / spread(sigma)) / sigma];
      });
      return Math.abs(states[steps - 1]![0]! - path(table.sigmas[steps]!));
    };
    for (const steps of [10, 20]) {
      expect(error(unipc, steps) / error(unipc, 2 * steps)).toBeGreaterThan(7);
      expect(error(euler, steps) / error(euler, 2 * steps)).toBeCloseTo(2, 0);
    }
  });
});

describe('euler', () => {
  it('adds the step in sigma times the velocity', () => {
    const table = schedule({ solver: 'euler', steps: 4, shift: 5, boundary: 0.875 });
    expect(eulerStep(table, 1, 1).combinations.at(-1)).toEqual({
      out: 'lastSample',
      terms: [
        { tensor: 'sample', coefficient: 1 },
        { tensor: 'conditional', coefficient: Math.fround(5 / 6) - 0.9375 },
      ],
    });
    expect(eulerStep(table, 3, 1).combinations).toEqual([
      {
        out: 'x0',
        terms: [
          { tensor: 'sample', coefficient: 1 },
          { tensor: 'conditional', coefficient: -0.625 },
        ],
      },
    ]);
  });
});
