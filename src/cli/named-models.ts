import { publishedAcceleration } from '../checkpoint/ratios';
import { UMT5_XXL, WAN_1_3B, WAN_14B, WAN_VAE } from '../checkpoint/released';
import { largestEntries, planShards } from '../checkpoint/storage';
import { defaultSizes } from '../checkpoint/variants';
import { type ComponentName, componentShapes, type ManifestFile, type Quantization, tensorBytes } from '../manifest';
import type { PlannedModel } from '../plan';

/**
 * Released models by name, so that a plan can be made before anything is imported: their sizes as an import would write
 * them.
 */

/** Names of released models. */
export const MODEL_NAMES = ['a14b', '14b', '1.3b'] as const;
export type ModelName = (typeof MODEL_NAMES)[number];

/** What a plan reads of a released model's manifest. @param quantization of the large matrices. */
export function namedModel(name: ModelName, quantization: Quantization = 'q4'): PlannedModel {
  const parts = { dit: name === '1.3b' ? WAN_1_3B : WAN_14B, umt5: UMT5_XXL, vae: WAN_VAE };
  const names: ComponentName[] = ['text_encoder', 'high', ...(name === 'a14b' ? (['low'] as const) : []), 'vae'];
  const components = Object.fromEntries(
    names.map((component) => [component, plannedFiles(component, componentShapes(parts, component), quantization)]),
  );
  const acceleration = publishedAcceleration(name);
  return {
    ...parts,
    components,
    sizes: defaultSizes(name),
    boundary: name === 'a14b' ? 0.875 : null, // of T2V A14B, same source
    ...(acceleration && { acceleration }),
  };
}

/** A component's files at their largest, without pieces. */
function plannedFiles(
  component: ComponentName,
  shapes: ReturnType<typeof componentShapes>,
  quantization: Quantization,
): ManifestFile[] {
  return planShards(component, shapes, quantization).map(({ path, tensors }) => {
    const entries = tensors.flatMap(largestEntries);
    const sizeBytes = entries.reduce((sum, [, entry]) => sum + tensorBytes(entry), 0);
    const placed = entries.map(([tensor, entry]) => [tensor, { ...entry, range: [0, 0] as [number, number] }]);
    return { path, sizeBytes, pieces: [], tensors: Object.fromEntries(placed) };
  });
}
