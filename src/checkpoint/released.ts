import type { DitConfig, Umt5Config, VaeConfig } from '../config';
import { WAN_LATENTS_MEAN } from './preview';

/** Sizes of the released models. */

/** Wan 2.2 A14B and Wan 2.1 14B; Wan2.2 `wan/configs/wan_t2v_A14B.py`. */
export const WAN_14B: DitConfig = {
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
export const WAN_1_3B: DitConfig = { ...WAN_14B, dim: 1536, ffnDim: 8960, numHeads: 12, numLayers: 30 };

/** UMT5-XXL, `google/umt5-xxl` config.json. */
export const UMT5_XXL: Umt5Config = {
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

/** Standard deviation of each latent channel of the Wan 2.1 VAE: Wan2.2 `wan/modules/vae2_1.py`. */
const WAN_LATENTS_STD = [
  2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253,
  2.8251, 1.916,
];

/** Sizes of the VAE of Wan 2.1 and of Wan 2.2 A14B: Wan2.2 `wan/modules/vae2_1.py`. */
export const WAN_VAE: VaeConfig = {
  baseDim: 96,
  zDim: 16,
  dimMult: [1, 2, 4, 4],
  numResBlocks: 2,
  temporalUpsample: [true, true, false],
  latentsMean: [...WAN_LATENTS_MEAN],
  latentsStd: WAN_LATENTS_STD,
};
