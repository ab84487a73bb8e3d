import { combine } from '../../kernels/combine';
import { ZoetropeError } from '../errors';
import type { Gpu } from '../gpu/device';
import { elementCount, type GpuTensor } from '../gpu/memory';
import type { Latent, Slot, Solver, SolverStep } from './solver';

/** The solver's latents on the GPU; a step's renames turn buffers, nothing is copied. */
export class Sampler implements Disposable {
  private readonly latents: Map<Latent, GpuTensor>;

  /**
   * @param shape of the latents, [16, T, h, w].
   * @param noise the first sample, row-major.
   */
  constructor(
    private readonly gpu: Gpu,
    solver: Solver,
    private readonly shape: readonly number[],
    noise: Float32Array,
  ) {
    this.latents = new Map();
    try {
      for (const name of solver.latents) this.latents.set(name, gpu.memory.tensor(name, 'float32', shape));
      gpu.memory.write(this.get('sample'), noise);
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

  /** Frees every latent. */
  [Symbol.dispose](): void {
    for (const tensor of this.latents.values()) tensor[Symbol.dispose]();
  }
}
