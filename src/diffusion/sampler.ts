import { combine } from '../../kernels/combine';
import { ZoetropeError } from '../errors';
import type { Gpu } from '../gpu/device';
import { elementCount, type GpuTensor } from '../gpu/memory';
import type { Latent, Slot, Solver, SolverStep } from './solver';

/**
 * What a run needs to go on between two steps. A solver remembers nothing outside its latents, so a run that starts
 * from this gives the bits of one that was never interrupted.
 */
export interface SamplerState {
  /** Steps that are done, 0 to N. */
  stepsDone: number;
  /** The latents of `Solver.state`, f32, row-major; after the last step, `sample` alone. */
  latents: ReadonlyMap<string, Float32Array>;
}

/** The solver's latents on the GPU; a step's renames turn buffers, nothing is copied. */
export class Sampler implements Disposable {
  private readonly latents: Map<Latent, GpuTensor>;

  /**
   * @param shape of the latents, [16, T, h, w].
   * @param start what the latents begin with, row-major: `sample` at least; the others begin as zeros.
   * @throws ZoetropeError `corrupt-data` for a latent that the solver does not have, or of another length.
   */
  constructor(
    private readonly gpu: Gpu,
    private readonly solver: Solver,
    private readonly shape: readonly number[],
    start: ReadonlyMap<string, Float32Array>,
  ) {
    this.latents = new Map();
    try {
      for (const name of solver.latents) this.latents.set(name, gpu.memory.tensor(name, 'float32', shape));
      for (const [name, values] of start) {
        const tensor = this.latents.get(name as Latent);
        if (!tensor || values.length !== elementCount(shape)) {
          throw new ZoetropeError(
            'corrupt-data',
            `A saved latent "${name}" of ${values.length} values is none of this run's [${solver.latents}] of [${shape}]. Discard what was saved and start again.`,
          );
        }
        gpu.memory.write(tensor, values);
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** The buffer that has this name now. */
  get(name: Latent): GpuTensor {
    const tensor = this.latents.get(name);
    if (!tensor) throw new ZoetropeError('internal', `The solver has no latent called "${name}".`);
    return tensor;
  }

  /** Carries out a step with the velocities that the network gave. */
  async apply(step: SolverStep, velocities: { conditional: GpuTensor; unconditional?: GpuTensor }): Promise<void> {
    const read = (slot: Slot): GpuTensor => {
      if (slot === 'conditional') return velocities.conditional;
      if (slot !== 'unconditional') return this.get(slot);
      if (!velocities.unconditional) throw new ZoetropeError('internal', 'The step reads a branch that did not run.');
      return velocities.unconditional;
    };
    for (const { out, terms } of step.combinations) {
      const [a, b, c, d] = terms.map(({ tensor }) => read(tensor));
      const shape = { count: elementCount(this.shape), coefficients: terms.map(({ coefficient }) => coefficient) };
      await combine.run(this.gpu, shape, { a: a!, b: b ?? a!, c: c ?? a!, d: d ?? a!, out: this.get(out) });
    }
    const turned = step.renames.map(({ from, to }) => [to, this.get(from)] as const);
    for (const [name, tensor] of turned) this.latents.set(name, tensor);
  }

  /** Reads what has to be kept to go on behind `stepsDone` steps. @param last no step is left. */
  async save(stepsDone: number, last: boolean): Promise<SamplerState> {
    const latents = new Map<string, Float32Array>();
    for (const name of last ? (['sample'] as const) : this.solver.state) {
      latents.set(name, await this.gpu.memory.readFloats(this.get(name)));
    }
    return { stepsDone, latents };
  }

  /** Frees every latent. */
  [Symbol.dispose](): void {
    for (const tensor of this.latents.values()) tensor[Symbol.dispose]();
  }
}
