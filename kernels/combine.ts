import { ZoetropeError } from '../src/errors';
import { defineKernel, f32, grid2d } from '../src/gpu/kernel';
import source from './combine.wgsl?raw';

/** Tensors in a sum. */
const MAX_TERMS = 4;

const WORKGROUP = 64;

/** One sum. */
export interface CombineShape {
  /** Elements of each tensor, 1 or more. */
  count: number;
  /** Factors of a, b, c and d, one to four; rounded to f32. */
  coefficients: readonly number[];
}

/**
 * out = the sum of coefficient * tensor over one to four f32 tensors of `count` elements: what a solver step and
 * guidance are made of. Inputs without a coefficient are not read, whatever they hold; bind the first tensor there.
 * `out` is none of the inputs. Bindings are a multiple of 16 bytes long, as tensors are. The plan throws `internal` for
 * no or more than four coefficients and for one that is not finite.
 */
export const combine = defineKernel({
  name: 'combine',
  source,
  bindings: { a: 'read', b: 'read', c: 'read', d: 'read', out: 'write', params: 'uniform' },
  plan: ({ count, coefficients }: CombineShape) => {
    const terms = coefficients.length;
    if (!Number.isSafeInteger(count) || count < 1) {
      throw new ZoetropeError('internal', `combine takes one element or more, got ${count}.`);
    }
    if (terms < 1 || terms > MAX_TERMS || !coefficients.every(Number.isFinite)) {
      throw new ZoetropeError(
        'internal',
        `combine takes 1 to ${MAX_TERMS} finite coefficients, got [${coefficients}].`,
      );
    }
    return {
      prelude: { TERMS: terms },
      overrides: { WORKGROUP },
      params: [count, ...Array.from({ length: MAX_TERMS }, (_, i) => f32(coefficients[i] ?? 0))],
      groups: grid2d(Math.ceil(count / (4 * WORKGROUP))),
    };
  },
});

/** Shapes that every build of the shader has to compile for: one to four terms, latents of the demo and of 720p. */
export const examples: readonly CombineShape[] = [
  { count: 5120, coefficients: [1] },
  { count: 5119, coefficients: [1, -0.5] },
  { count: 5120, coefficients: [1, -0.5, 2] },
  { count: 4_838_400, coefficients: [1, -0.5, 2, 0.25] },
];
