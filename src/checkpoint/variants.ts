import type { DitConfig } from '../config';
import { ZoetropeError } from '../errors';
import type { AspectRatio, Manifest, Resolution, Sizes } from '../manifest';

/** Family of a model, by its numbers. */
export type Variant = Manifest['variant'];

const RESOLUTIONS: readonly Resolution[] = ['480p', '580p', '720p'];
const ASPECT_RATIOS: readonly AspectRatio[] = ['16:9', '9:16', '1:1'];
/** Width and height must be multiples of this: 8 pixels a latent, 2 latents a token. */
const SIZE_MULTIPLE = 16;
/** Longest side that a manifest may offer, pixels. */
const MAX_SIDE = 4096;

/**
 * Sizes of the models that Wan released: 832x480 and 1280x720 with their area in the other ratios, 580p between them.
 */
const WAN_SIZES: Sizes = {
  '480p': { '16:9': [832, 480], '9:16': [480, 832], '1:1': [640, 640] },
  '580p': { '16:9': [1024, 576], '9:16': [576, 1024], '1:1': [768, 768] },
  '720p': { '16:9': [1280, 720], '9:16': [720, 1280], '1:1': [960, 960] },
};

/** What small models of the same architecture are trained on (the demo checkpoint's card): one size for each ratio. */
const SMALL: Sizes[Resolution] = { '16:9': [112, 64], '9:16': [64, 112], '1:1': [64, 64] };
const SMALL_SIZES: Sizes = { '480p': SMALL, '580p': SMALL, '720p': SMALL };

/**
 * Wan 2.2 A14B and Wan 2.1 14B by width, blocks and feed-forward width; two experts tell them apart. Else 1.3B, else
 * custom.
 */
export function variantOf({ dim, ffnDim, numLayers }: DitConfig, experts: 1 | 2): Variant {
  if (dim === 5120 && ffnDim === 13824 && numLayers === 40) return experts === 2 ? 'a14b' : '14b';
  if (dim === 1536 && ffnDim === 8960 && numLayers === 30 && experts === 1) return '1.3b';
  return 'custom';
}

/**
 * Sizes that a variant offers unless the importer is told others: Wan's own, and for custom models the demo
 * checkpoint's.
 */
export function defaultSizes(variant: Variant): Sizes {
  return variant === 'custom' ? SMALL_SIZES : WAN_SIZES;
}

/**
 * Settings that the page proposes. a14b: the endpoint's own defaults. 14b and 1.3b: Wan 2.1's steps (50, of which the
 * endpoint allows 40), shift and guidance (`generate.py` and the 1.3B's model card). custom: the shift in the
 * checkpoint's scheduler, and the rest from the demo checkpoint's card, where 8 steps score as well as 27.
 */
export function recommendedSettings(variant: Variant, experts: 1 | 2, shift: number): Manifest['recommended'] {
  const second = (guidance: number) => (experts === 2 ? { guidance_scale_2: guidance } : {});
  if (variant === 'a14b')
    return { num_inference_steps: 27, shift: 5, guidance_scale: 3.5, ...second(4), num_frames: 81 };
  if (variant === '14b') return { num_inference_steps: 40, shift: 5, guidance_scale: 5, num_frames: 81 };
  if (variant === '1.3b') {
    return { num_inference_steps: 40, shift: 8, guidance_scale: 6, num_frames: 81, resolution: '480p' };
  }
  return {
    num_inference_steps: 8,
    // The endpoint's range; a shift outside it is left to the endpoint's default.
    ...(shift >= 1 && shift <= 10 ? { shift } : {}),
    guidance_scale: 3.5,
    ...second(4),
    num_frames: 17,
    resolution: '480p',
    aspect_ratio: '1:1',
  };
}

function isSide(value: unknown): boolean {
  return typeof value === 'number' && value >= SIZE_MULTIPLE && value <= MAX_SIDE && value % SIZE_MULTIPLE === 0;
}

/** Reads sizes from JSON: `{"480p": {"16:9": [width, height], …}, …}` with all nine labels. Throws `bad-request`. */
export function parseSizes(json: string): Sizes {
  const refuse = (why: string): never => {
    throw new ZoetropeError(
      'bad-request',
      `Sizes: ${why}. Give {"480p": {"16:9": [112, 64], "9:16": [64, 112], "1:1": [64, 64]}, "580p": …, "720p": …}.`,
    );
  };
  let value: Partial<Record<string, Partial<Record<string, unknown>>>> | null;
  try {
    value = JSON.parse(json);
  } catch {
    return refuse('this is not JSON');
  }
  for (const resolution of RESOLUTIONS) {
    for (const ratio of ASPECT_RATIOS) {
      const size = value?.[resolution]?.[ratio];
      if (!Array.isArray(size) || size.length !== 2 || !size.every(isSide)) {
        refuse(
          `${resolution} ${ratio} must be [width, height] in multiples of ${SIZE_MULTIPLE} up to ${MAX_SIDE}, got ${JSON.stringify(size)}`,
        );
      }
    }
  }
  return value as Sizes;
}
