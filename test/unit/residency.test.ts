import { describe, expect, it } from 'vitest';
import { type DitConfig, ditShapes, type Shapes } from '../../src/config';
import { Activations, activationBytes, type DitPlan } from '../../src/diffusion/activations';
import type { Gpu } from '../../src/gpu/device';
import type { ManifestFile } from '../../src/manifest';
import { planDit } from '../../src/plan';
import { passBuffers, sumBytes, textKeyBuffers } from '../../src/plan/buffers';
import { heldBytes, weightBytes } from '../../src/plan/residency';
import { NO_MEASURES } from '../../src/plan/transformer';
import { Residency } from '../../src/store/residency';
import type { VerifiedComponent } from '../../src/store/verified';

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

function file(shapes: Shapes): ManifestFile {
  const tensors = Object.fromEntries(
    [...shapes].map(([name, shape]) => [name, { dtype: 'F32' as const, shape, range: [0, 0] as [number, number] }]),
  );
  return { path: 'x', sizeBytes: 0, pieces: [], tensors };
}

const expert = file(ditShapes(DIT));

const MEASURES = [
  NO_MEASURES,
  { ...NO_MEASURES, mostChunkTokens: 64 },
  { ...NO_MEASURES, branchOrder: 'branch-major' as const },
  { ...NO_MEASURES, sweeps: 2 },
];

/** Buffers of a pass, as a plan lists them. */
function planned({ tokens, grid, type, chunks, headGroups, groupsPerSweep, branchOrder }: DitPlan, branches: number) {
  const cut = { tokens, grid, type, chunkTokens: chunks[0]!.tokens, groupHeads: headGroups[0]!.heads, groupsPerSweep };
  return passBuffers(DIT, { ...cut, streams: branchOrder === 'branch-major' ? 1 : branches }, 0, 0);
}

describe('bytes', () => {
  it('counts activations exactly as they are allocated', () => {
    for (const f16 of [false, true]) {
      for (const branches of [1, 2]) {
        const limits = { maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 200_000, f16, cpu: true };
        const shape = { tokens: 330, latentFrames: 3, latentHeight: 22, latentWidth: 20 };
        for (const measures of MEASURES) {
          const plan = planDit(DIT, shape, limits, measures);
          expect(plan.chunks.length).toBeGreaterThan(1);
          let counted = 0;
          const tensor = (_label: string, type: string, dims: number[]) => {
            const bytes = dims.reduce((product, size) => product * size, type === 'float16' ? 2 : 4);
            counted += 16 * Math.ceil(bytes / 16);
            return { [Symbol.dispose]: () => undefined };
          };
          new Activations({ memory: { tensor, write: () => undefined } } as unknown as Gpu, DIT, plan, branches);
          expect(activationBytes(DIT, plan, branches)).toBe(counted);
          expect(sumBytes(planned(plan, branches))).toBe(counted);
        }
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
    expect(weightBytes('text_encoder', files)).toEqual({
      total: 256 + 32 + 32 + 32,
      outside: 32,
      block: 288,
      blocks: 2,
      largest: 256,
    });
  });

  it('streams less than it has, as soon as there are more blocks than slots', () => {
    const bytes = weightBytes('high', [expert]);
    const block = 4 * (8 * 256 * 256 + 2 * 256 * 512 + 8 * 256 + 512 + 256 + 12 * 256);
    expect(bytes.total - heldBytes(bytes, 3)).toBe(2 * block);
    expect(bytes.total - heldBytes(bytes, 2)).toBe(3 * block);
    expect(heldBytes(bytes, 5)).toBe(bytes.total);
    expect(heldBytes(bytes, null)).toBe(bytes.total);
  });

  it('counts the keys of two prompts of 512 tokens, and of a shorter one', () => {
    const keys = (rows: number[], textKeys: DitPlan['textKeys']) =>
      textKeyBuffers(DIT, { type: 'f16', textKeys }, rows, 0)[0]!;
    expect(keys([512, 512], 'kept').bytes).toBe(2 * 5 * 2 * 2 * 512 * 128 * 2);
    expect(keys([512, 512], 'each-block').bytes).toBe(2 * 2 * 2 * 512 * 128 * 2);
    expect(keys([11], 'kept')).toMatchObject({ count: 10, bytes: 5 * 2 * 2 * 12 * 128 * 2 });
  });
});

describe('a component that is loading', () => {
  /** Loads that end when told, and how many of what they made is there. */
  function loads() {
    const source = { release: () => undefined } as VerifiedComponent;
    const parts = new Residency(() => source);
    const ends: (() => void)[] = [];
    let there = 0;
    const get = (signal?: AbortSignal) =>
      parts.get('high', { signal }, async () => {
        await new Promise<void>((resolve) => ends.push(resolve));
        there++;
        return { number: ends.length, [Symbol.dispose]: () => void there-- };
      });
    return { parts, get, end: (index: number) => ends[index]!(), there: () => there };
  }

  it('for a job that was cancelled is not what the next job gets', async () => {
    const { get, end, there } = loads();
    const controller = new AbortController();
    const first = get(controller.signal);
    controller.abort();
    const second = get();
    end(0);
    await expect(first).rejects.toMatchObject({ code: 'internal' });
    end(1);
    const { number } = await second;
    expect((await get(new AbortController().signal)).number).toBe(number);
    expect(there()).toBe(1);
  });

  it('is one, once it is there, whatever becomes of the job that asked first', async () => {
    const { get, end } = loads();
    const controller = new AbortController();
    const loading = get(controller.signal);
    end(0);
    const made = await loading;
    controller.abort();
    expect(await get()).toBe(made);
  });

  it('goes as soon as it is there where it was released meanwhile', async () => {
    const { parts, get, end, there } = loads();
    const first = get();
    parts.release('high');
    const second = get();
    end(1);
    await second;
    end(0);
    await expect(first).rejects.toMatchObject({ code: 'internal' });
    expect(there()).toBe(1);
    parts[Symbol.dispose]();
    expect(there()).toBe(0);
  });
});
