import { ZoetropeError } from '../src/errors';
import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './residual-store.wgsl?raw';

/** Residuals of some tokens. */
export interface ResidualShape {
  /** 1 or more. */
  tokens: number;
  /** Channels, a multiple of 4. */
  dim: number;
}

/** Throws `internal` for a shape without tokens or with channels that are no multiple of 4; `name` is the kernel's. */
export function checkResidualShape(name: string, { tokens, dim }: ResidualShape): void {
  if (Number.isSafeInteger(tokens) && tokens >= 1 && Number.isSafeInteger(dim) && dim >= 4 && dim % 4 === 0) return;
  throw new ZoetropeError('internal', `${name} takes tokens of 4 channels or a multiple, got [${tokens}, ${dim}].`);
}

/**
 * Residuals x - embedded [tokens, dim] into half the bytes: `packed` u32 [tokens, dim / 2] has two half floats in a
 * word, `sizes` f32 [tokens, 2] each token's scale and the norm of its residual. `residual-apply` takes them. An
 * element loses at most 2^-11 of itself, or of 2^-29 of the token's largest where that is more. The plan throws
 * `internal` for no tokens or channels that are no multiple of 4.
 */
export const residualStore = defineKernel({
  name: 'residual-store',
  source,
  bindings: { x: 'read', embedded: 'read', packed: 'write', sizes: 'write', params: 'uniform' },
  plan: ({ tokens, dim }: ResidualShape) => {
    checkResidualShape('residual-store', { tokens, dim });
    return {
      prelude: { DIM: dim },
      overrides: { WORKGROUP: 64 },
      params: [tokens],
      groups: grid2d(tokens),
    };
  },
});

/**
 * Shapes that every build of the shader has to compile for: the demo, a chunk of A14B, and more tokens than an axis has
 * workgroups.
 */
export const examples: readonly ResidualShape[] = [
  { tokens: 80, dim: 256 },
  { tokens: 4096, dim: 5120 },
  { tokens: 70_000, dim: 4 },
];
