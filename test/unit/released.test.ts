import { expect, it } from 'vitest';
import { UMT5_XXL, WAN_1_3B, WAN_14B, WAN_VAE } from '../../src/checkpoint/released';
import { ditShapes, type Shapes, umt5Shapes, vaeShapes } from '../../src/config';

const parameters = (shapes: Shapes) =>
  [...shapes.values()].reduce((sum, shape) => sum + shape.reduce((product, size) => product * size, 1), 0);

/** Counted in the lists of the published files; of the VAE, its decoder and `conv2`. */
it.each([
  ['Wan 2.2 A14B', ditShapes(WAN_14B), 14_288_491_584],
  ['Wan 2.1 1.3B', ditShapes(WAN_1_3B), 1_418_996_800],
  ['UMT5-XXL’s encoder', umt5Shapes(UMT5_XXL), 5_680_910_336],
  ['the Wan 2.1 VAE', vaeShapes(WAN_VAE), 73_295_331 + 272],
])('%s has the parameters of its release', (_, shapes, count) => {
  expect(parameters(shapes)).toBe(count);
});

it('the VAE’s statistics are in the order of its channels', () => {
  const weighted = (values: readonly number[]) => values.reduce((sum, value, i) => sum + value * (i + 1), 0);
  // Of the published lists; two values that change places change the sum.
  expect(weighted(WAN_VAE.latentsMean)).toBeCloseTo(-0.2126, 3);
  expect(weighted(WAN_VAE.latentsStd)).toBeCloseTo(286.1255, 3);
});
