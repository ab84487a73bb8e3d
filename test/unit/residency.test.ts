import { describe, expect, it } from 'vitest';
import { type DitConfig, ditShapes, type Shapes, vaeShapes } from '../../src/config';
import { Activations, activationBytes } from '../../src/diffusion/activations';
import type { Gpu } from '../../src/gpu/device';
import type { Manifest, ManifestFile } from '../../src/manifest';
import { planDit } from '../../src/plan';
import { chooseResidency, textKeyBytes, weightBytes } from '../../src/plan/residency';

const DIT: DitConfig = {
  dim: 256,
  ffnDim: 512,
  numHeads: 2,
  numLayers: 5,
  inChannels: 16,
  outChannels: 16,
  freqDim: 256,
  textDim: 128,
  textLen: 512,
  eps: 1e-6,
};

const VAE = {
  baseDim: 16,
  zDim: 16,
  dimMult: [1, 2, 4, 4],
  numResBlocks: 1,
  temporalUpsample: [true, true, false],
  latentsMean: Array(16).fill(0),
  latentsStd: Array(16).fill(1),
};

function file(shapes: Shapes): ManifestFile {
  const tensors = Object.fromEntries(
    [...shapes].map(([name, shape]) => [name, { dtype: 'F32' as const, shape, range: [0, 0] as [number, number] }]),
  );
  return { path: 'x', sizeBytes: 0, pieces: [], tensors };
}

const expert = file(ditShapes(DIT));
const components: Manifest['components'] = { high: [expert], low: [expert], vae: [file(vaeShapes(VAE))] };

describe('bytes', () => {
  it('counts activations exactly as they are allocated', () => {
    for (const f16 of [false, true]) {
      for (const branches of [1, 2]) {
        const limits = { maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 200_000, f16, cpu: true };
        const shape = { tokens: 330, latentFrames: 3, latentHeight: 22, latentWidth: 20 };
        const plan = planDit(DIT, shape, limits);
        expect(plan.chunks.length).toBeGreaterThan(1);
        let counted = 0;
        const tensor = (_label: string, type: string, dims: number[]) => {
          const bytes = dims.reduce((product, size) => product * size, type === 'float16' ? 2 : 4);
          counted += 16 * Math.ceil(bytes / 16);
          return { [Symbol.dispose]: () => undefined };
        };
        new Activations({ memory: { tensor, write: () => undefined } } as unknown as Gpu, DIT, plan, branches);
        expect(activationBytes(DIT, plan, branches)).toBe(counted);
      }
    }
  });

  it('counts blocks as they are, floats in 32 bits, and not the embedding table', () => {
    const tensor = (dtype: 'U8' | 'F16' | 'F32', shape: number[]) => ({
      dtype,
      shape,
      range: [0, 0] as [number, number],
    });
    const tensors = {
      'shared.weight': tensor('F16', [1000, 8]),
      'encoder.block.0.layer.0.SelfAttention.q.weight': tensor('U8', [4, 2, 32]),
      'encoder.block.0.layer.0.SelfAttention.q.weight.scales': tensor('F16', [4, 2]),
      'encoder.block.1.layer.0.layer_norm.weight': tensor('F32', [8]),
      'encoder.final_layer_norm.weight': tensor('F32', [8]),
    };
    const files = [{ path: 'x', sizeBytes: 0, pieces: [], tensors }];
    expect(weightBytes('text_encoder', files)).toEqual({ total: 256 + 32 + 32 + 32, streamed: 352 });
  });

  it('streams less than it has, as soon as there are more blocks than slots', () => {
    const { total, streamed } = weightBytes('high', [expert]);
    const block = 4 * (8 * 256 * 256 + 2 * 256 * 512 + 8 * 256 + 512 + 256 + 12 * 256);
    expect(total - streamed).toBe(2 * block);
  });
});

describe('chooseResidency', () => {
  const working = { diffusion: 10e6, decode: 9e6 };
  const high = weightBytes('high', [expert]);
  const vae = weightBytes('vae', components.vae!).total;

  it('keeps everything where it fits, else one part, else a few blocks', () => {
    const all = 2 * high.total + vae + working.diffusion;
    expect(chooseResidency(components, working, Infinity)).toBe('all');
    expect(chooseResidency(components, working, all)).toBe('all');
    expect(chooseResidency(components, working, all - 1)).toBe('one');
    expect(chooseResidency(components, working, high.total + working.diffusion)).toBe('one');
    expect(chooseResidency(components, working, high.total + working.diffusion - 1)).toBe('streamed');
    expect(chooseResidency(components, working, high.streamed + working.diffusion)).toBe('streamed');
  });

  it('refuses what does not fit at all, and says what would be needed', () => {
    const refused = () => chooseResidency(components, working, high.streamed + working.diffusion - 1);
    expect(refused).toThrowError(expect.objectContaining({ code: 'out-of-memory' }));
    expect(refused).toThrowError(/needs 0\.02 GB/);
  });

  it('counts the keys of two prompts of 512 rows', () => {
    const plan = planDit(
      DIT,
      { tokens: 80, latentFrames: 5, latentHeight: 8, latentWidth: 8 },
      {
        maxBufferSize: 2 ** 28,
        maxStorageBufferBindingSize: 2 ** 27,
        f16: true,
        cpu: false,
      },
    );
    expect(textKeyBytes(DIT, plan, 2)).toBe(2 * 5 * 2 * 2 * 513 * 128 * 2);
  });
});
