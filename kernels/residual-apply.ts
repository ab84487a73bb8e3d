import { defineKernel, grid2d } from '../src/gpu/kernel';
import source from './residual-apply.wgsl?raw';
import { checkResidualShape, type ResidualShape } from './residual-store';

const WORKGROUP = 64;

/**
 * x [tokens, dim] += the residual that `residual-store` left in `packed` and `sizes`. The plan throws `internal` for no
 * tokens or channels that are no multiple of 4.
 */
export const residualApply = defineKernel({
  name: 'residual-apply',
  source,
  bindings: { x: 'write', packed: 'read', sizes: 'read', params: 'uniform' },
  plan: ({ tokens, dim }: ResidualShape) => {
    checkResidualShape('residual-apply', { tokens, dim });
    return {
      prelude: { DIM: dim },
      overrides: { WORKGROUP },
      params: [tokens],
      groups: grid2d(Math.ceil((tokens * dim) / 4 / WORKGROUP)),
    };
  },
});

export { examples } from './residual-store';
