import { publishedAcceleration } from '../checkpoint/ratios';
import { largestEntries, planShards } from '../checkpoint/storage';
import { defaultSizes } from '../checkpoint/variants';
import type { DitConfig, Umt5Config, VaeConfig } from '../config';
import { type ComponentName, componentShapes, type ManifestFile, type Quantization, tensorBytes } from '../manifest';
import type { PlannedModel } from '../plan';

/** Released models by name, so that a plan can be made before anything is imported: their sizes as an import would write them. */

/** Names of released models. */
export const MODEL_NAMES = ['a14b', '14b', '1.3b'] as const;
export type ModelName = (typeof MODEL_NAMES)[number];

/** Wan 2.2 A14B and Wan 2.1 14B; Wan2.2 `wan/configs/wan_t2v_A14B.py`. */
const LARGE: DitConfig = {
  dim: 5120,
  ffnDim: 13824,
  numHeads: 40,
  numLayers: 40,
  inChannels: 16,
  outChannels: 16,
  freqDim: 256,
  textDim: 4096,
  textLen: 512,
  eps: 1e-6,
};

/** Wan2.1 `wan/configs/wan_t2v_1_3B.py`. */
const SMALL: DitConfig = { ...LARGE, dim: 1536, ffnDim: 8960, numHeads: 12, numLayers: 30 };

/** UMT5-XXL, `google/umt5-xxl` config.json. */
const UMT5_XXL: Umt5Config = {
  vocabSize: 256_384,
  dModel: 4096,
  dKv: 64,
  numHeads: 64,
  dFf: 10_240,
  numLayers: 24,
  relativeBuckets: 32,
  relativeMaxDistance: 128,
  eps: 1e-6,
};

/** The Wan 2.1 VAE without its latent statistics, which no plan reads; Wan2.2 `wan/modules/vae2_1.py`. */
const WAN_VAE: VaeConfig = {
  baseDim: 96,
  zDim: 16,
  dimMult: [1, 2, 4, 4],
  numResBlocks: 2,
  temporalUpsample: [true, true, false],
  latentsMean: Array(16).fill(0),
  latentsStd: Array(16).fill(1),
};

/** What a plan reads of a released model's manifest. @param quantization of the large matrices. */
export function namedModel(name: ModelName, quantization: Quantization = 'q4'): PlannedModel {
  const parts = { dit: name === '1.3b' ? SMALL : LARGE, umt5: UMT5_XXL, vae: WAN_VAE };
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
