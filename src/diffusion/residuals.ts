import { residualApply } from '../../kernels/residual-apply';
import { residualStore } from '../../kernels/residual-store';
import type { DitConfig } from '../config';
import type { Gpu } from '../gpu/device';
import { type GpuTensor, Scope } from '../gpu/memory';
import type { DitPlan } from './activations';

/** A chunk of tokens, as the plan lists them. */
type Chunk = DitPlan['chunks'][number];

/**
 * What the blocks added to the patch embedding, kept for steps that leave them out; for each guidance branch the
 * residual of the step that was kept last. Half floats with a scale for each token: a third of a GB a branch at
 * 832×480, 0.8 GB at 1280×720, half of what f32 takes. Their rounding of 2^-11 is far below the few percent by which a
 * residual changes until it is reused.
 */
export class Residuals implements Disposable {
  private readonly branches: { packed: GpuTensor; sizes: GpuTensor }[][];
  private readonly scope = new Scope();

  constructor(
    private readonly gpu: Gpu,
    private readonly config: DitConfig,
    private readonly plan: DitPlan,
    branches: number,
  ) {
    const { memory } = gpu;
    const { dim } = config;
    try {
      this.branches = Array.from({ length: branches }, (_, branch) =>
        plan.chunks.map(({ index, tokens }) => ({
          packed: this.scope.own(memory.tensor(`residual ${branch}.${index}`, 'uint32', [tokens, dim / 2])),
          sizes: this.scope.own(memory.tensor(`residual sizes ${branch}.${index}`, 'float32', [tokens, 2])),
        })),
      );
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Keeps `x` - `embedded` of a chunk, each [tokens, C]. */
  async keep(branch: number, { index, tokens }: Chunk, x: GpuTensor, embedded: GpuTensor): Promise<void> {
    const shape = { tokens, dim: this.config.dim };
    await residualStore.run(this.gpu, shape, { x, embedded, ...this.branches[branch]![index]! });
  }

  /** Adds what was kept to a chunk's patch embedding `x`. */
  async apply(branch: number, { index, tokens }: Chunk, x: GpuTensor): Promise<void> {
    await residualApply.run(this.gpu, { tokens, dim: this.config.dim }, { x, ...this.branches[branch]![index]! });
  }

  /** Norm of each token's residual, in the order of the sequence. */
  async norms(branch: number): Promise<Float32Array> {
    const norms = new Float32Array(this.plan.tokens);
    for (const { index, begin, tokens } of this.plan.chunks) {
      const sizes = await this.gpu.memory.readFloats(this.branches[branch]![index]!.sizes);
      for (let token = 0; token < tokens; token++) norms[begin + token] = sizes[2 * token + 1]!;
    }
    return norms;
  }

  /** Frees every buffer. */
  [Symbol.dispose](): void {
    this.scope[Symbol.dispose]();
  }
}

/** Bytes of {@link Residuals} for a plan. */
export function residualBytes({ dim }: DitConfig, { chunks }: DitPlan, branches: number): number {
  const whole = (bytes: number) => 16 * Math.ceil(bytes / 16);
  return branches * chunks.reduce((sum, { tokens }) => sum + whole(2 * tokens * dim) + whole(8 * tokens), 0);
}
