import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { fromSafetensors, openTensors } from '../../src/checkpoint/file-tensors';
import {
  DIFFUSERS_DIT,
  diffusersVae,
  HUGGING_FACE_UMT5,
  type NameScheme,
  resolveNames,
} from '../../src/checkpoint/names';
import { UMT5_XXL, WAN_1_3B, WAN_14B, WAN_VAE } from '../../src/checkpoint/released';
import { openSharded } from '../../src/checkpoint/safetensors';
import { nameWeights } from '../../src/checkpoint/weights';
import { diskFolder } from '../../src/cli/files';
import { type DitConfig, ditShapes, type Shapes, umt5Shapes, vaeShapes } from '../../src/config';
import { checkpointTensors, SHAPES, safetensors } from '../harness/checkpoint';
import { memoryFolder } from '../harness/memory-folder';
import { fill, hasFixtures, readCase } from '../harness/sampling-fixtures';

const FIXTURES = new URL('../../../shared/fixtures/', import.meta.url);
describe('diffusers names of the transformer', () => {
  it.each([
    ['patch_embedding.weight', 'patch_embedding.weight'],
    ['text_embedding.2.bias', 'condition_embedder.text_embedder.linear_2.bias'],
    ['time_embedding.0.weight', 'condition_embedder.time_embedder.linear_1.weight'],
    ['time_projection.1.weight', 'condition_embedder.time_proj.weight'],
    ['blocks.12.modulation', 'blocks.12.scale_shift_table'],
    ['blocks.3.norm3.weight', 'blocks.3.norm2.weight'],
    ['blocks.3.self_attn.norm_q.weight', 'blocks.3.attn1.norm_q.weight'],
    ['blocks.3.self_attn.o.bias', 'blocks.3.attn1.to_out.0.bias'],
    ['blocks.3.cross_attn.k.weight', 'blocks.3.attn2.to_k.weight'],
    ['blocks.3.ffn.0.weight', 'blocks.3.ffn.net.0.proj.weight'],
    ['blocks.3.ffn.2.bias', 'blocks.3.ffn.net.2.bias'],
    ['head.modulation', 'scale_shift_table'],
    ['head.head.weight', 'proj_out.weight'],
  ])('%s is %s', (internal, name) => {
    expect(DIFFUSERS_DIT.candidates(internal)).toEqual([name]);
  });
});

describe('diffusers names of the VAE', () => {
  it.each([
    [1, 'decoder.upsamples.1.residual.6.weight', 'decoder.up_blocks.0.resnets.1.conv2.weight'],
    [1, 'decoder.upsamples.2.time_conv.bias', 'decoder.up_blocks.0.upsamplers.0.time_conv.bias'],
    [1, 'decoder.upsamples.3.shortcut.weight', 'decoder.up_blocks.1.resnets.0.conv_shortcut.weight'],
    [1, 'decoder.upsamples.10.residual.0.gamma', 'decoder.up_blocks.3.resnets.1.norm1.gamma'],
    [2, 'decoder.upsamples.3.resample.1.weight', 'decoder.up_blocks.0.upsamplers.0.resample.1.weight'],
    [2, 'decoder.upsamples.4.shortcut.bias', 'decoder.up_blocks.1.resnets.0.conv_shortcut.bias'],
    [2, 'decoder.upsamples.14.residual.3.gamma', 'decoder.up_blocks.3.resnets.2.norm2.gamma'],
    [2, 'decoder.middle.0.residual.2.weight', 'decoder.mid_block.resnets.0.conv1.weight'],
    [2, 'decoder.middle.1.to_qkv.weight', 'decoder.mid_block.attentions.0.to_qkv.weight'],
    [2, 'decoder.middle.1.norm.gamma', 'decoder.mid_block.attentions.0.norm.gamma'],
    [2, 'decoder.middle.2.residual.3.gamma', 'decoder.mid_block.resnets.1.norm2.gamma'],
    [2, 'conv2.weight', 'post_quant_conv.weight'],
    [2, 'decoder.conv1.bias', 'decoder.conv_in.bias'],
    [2, 'decoder.head.0.gamma', 'decoder.norm_out.gamma'],
    [2, 'decoder.head.2.weight', 'decoder.conv_out.weight'],
  ])('with %i residual blocks, %s is %s', (numResBlocks, internal, name) => {
    expect(diffusersVae({ ...WAN_VAE, numResBlocks }).candidates(internal)).toEqual([name]);
  });

  it('leave the encoder half aside and nothing else', () => {
    const { ignores } = diffusersVae(WAN_VAE);
    expect(['encoder.conv_in.weight', 'quant_conv.bias'].every(ignores)).toBe(true);
    expect(['decoder.conv_out.bias', 'post_quant_conv.bias', 'loss.weight'].some(ignores)).toBe(false);
  });
});

describe('the tied embedding table of the text encoder', () => {
  const shapes: Shapes = new Map([['shared.weight', [2, 2]]]);
  it.each([
    [['shared.weight'], 'shared.weight'],
    [['encoder.embed_tokens.weight'], 'encoder.embed_tokens.weight'],
    [['encoder.embed_tokens.weight', 'shared.weight'], 'shared.weight'],
    [[], 'shared.weight'],
  ])('among %j is %s', (present, expected) => {
    expect(resolveNames(new Set(present), shapes, HUGGING_FACE_UMT5).get('shared.weight')).toBe(expected);
  });
});

describe('weights of a file', () => {
  async function open(change: (tensors: ReturnType<typeof checkpointTensors>['transformer']) => void) {
    const { transformer } = checkpointTensors();
    change(transformer);
    const file = await memoryFolder([['a', safetensors(transformer)]]).open('a');
    return nameWeights(await openTensors(file, 'a'), SHAPES.transformer, DIFFUSERS_DIT, 'transformer');
  }

  it('have exactly the internal names', async () => {
    expect([...(await open(() => undefined)).entries.keys()]).toEqual([...SHAPES.transformer.keys()]);
  });

  it('are refused in the file’s own words when one is missing, misshapen, unknown, or no float', async () => {
    const name = 'blocks.1.attn1.to_out.0.weight';
    const shape = [128, 128];
    await expect(open((t) => t.delete(name))).rejects.toThrow(`"${name}" [128,128] is missing`);
    await expect(open((t) => t.set(name, { shape: [128, 64], values: new Uint16Array(8192) }))).rejects.toThrow(
      `"${name}" has shape [128,64] of F16, expected [128,128]`,
    );
    await expect(open((t) => t.set('blocks.2.norm2.bias', { shape: [1], values: new Uint16Array(1) }))).rejects.toThrow(
      '"blocks.2.norm2.bias" does not belong to the model',
    );
    const weights = await open((t) => t.set(name, { shape, values: new Float32Array(16384).fill(NaN, 5, 6) }));
    await expect(weights.readFloats('blocks.1.self_attn.o.weight', 4, 8)).rejects.toThrow('holds NaN at element 5');
  });
});

interface List {
  tensors: [name: string, shape: number[]][];
}

interface LoadCase {
  config: Record<string, number>;
  weights: { fill_prefix: string; tensors: { name: string; shape: number[]; scale: number; offset: number }[] };
}

function dit(dim: number, ffnDim: number, numLayers: number, textDim = 4096): DitConfig {
  const fixed = { inChannels: 16, outChannels: 16, freqDim: 256, textLen: 512, eps: 1e-6 };
  return { ...fixed, dim, ffnDim, numLayers, numHeads: dim / 128, textDim };
}

describe.skipIf(!hasFixtures)('the fixtures', () => {
  const readList = (name: string): Map<string, number[]> =>
    new Map((JSON.parse(readFileSync(new URL(`checkpoint-index/${name}.json`, FIXTURES), 'utf8')) as List).tensors);

  it.each<[string, Shapes, NameScheme]>([
    ['dit-a14b-diffusers', ditShapes(WAN_14B), DIFFUSERS_DIT],
    ['dit-1.3b-diffusers', ditShapes(WAN_1_3B), DIFFUSERS_DIT],
    ['umt5-xxl-hf', umt5Shapes(UMT5_XXL), HUGGING_FACE_UMT5],
    ['vae-diffusers', vaeShapes(WAN_VAE), diffusersVae(WAN_VAE)],
  ])('list every tensor of %s, none missing, none left over', (list, shapes, scheme) => {
    const tensors = readList(list);
    const names = resolveNames(tensors, shapes, scheme);
    for (const [internal, shape] of shapes) expect(tensors.get(names.get(internal)!)).toEqual(shape);
    const used = new Set(names.values());
    expect(used.size).toBe(shapes.size);
    expect([...tensors.keys()].filter((name) => !used.has(name) && !scheme.ignores(name))).toEqual([]);
  });

  it.each([
    ['dit-a14b-original', ditShapes(WAN_14B)],
    ['vae-original', vaeShapes(WAN_VAE)],
  ])('use our internal names in %s', (list, shapes) => {
    const tensors = readList(list);
    for (const [internal, shape] of shapes) expect(tensors.get(internal)).toEqual(shape);
  });

  it('hold the values of original names behind diffusers names, sharded BF16 and F32', async () => {
    const { config, weights } = readCase<LoadCase>('fixtures/checkpoint-diffusers-sharded');
    const shapes = ditShapes(dit(config.dim!, config.ffn_dim!, config.num_layers!, config.text_dim!));
    const folder = diskFolder(FIXTURES.pathname);
    const source = await openSharded(folder, 'checkpoint-diffusers-sharded', 'diffusion_pytorch_model');
    const named = nameWeights(await fromSafetensors(source, 'transformer'), shapes, DIFFUSERS_DIT, 'transformer');
    expect(weights.tensors.map(({ name }) => name).sort()).toEqual([...shapes.keys()].sort());
    for (const { name, shape, scale, offset } of weights.tensors) {
      const expected = fill(
        weights.fill_prefix + name,
        scale,
        shape.reduce((a, b) => a * b, 1),
        offset,
      );
      const values = await named.readFloats(name, 0, expected.length);
      // Matrices are BF16 there: 8 significant bits, so the nearest is within 2^-9 of the value.
      const worst = values.reduce((most, value, i) => Math.max(most, Math.abs(value / expected[i]! - 1)), 0);
      expect(worst, name).toBeLessThan(2 ** -8);
    }
  });

  it('hold the values of original names behind diffusers names of the VAE, F16', async () => {
    const { config, weights } = readCase<LoadCase>('fixtures/checkpoint-vae-diffusers');
    const vae = { ...WAN_VAE, baseDim: config.dim! };
    const file = await diskFolder(FIXTURES.pathname).open('checkpoint-vae-diffusers/model.safetensors');
    const named = nameWeights(await openTensors(file, 'vae'), vaeShapes(vae), diffusersVae(vae), 'vae');
    const decoder = weights.tensors.filter(({ name }) => named.entries.has(name));
    expect(decoder).toHaveLength(named.entries.size);
    for (const { name, shape, scale, offset } of decoder) {
      const expected = fill(
        weights.fill_prefix + name,
        scale,
        shape.reduce((a, b) => a * b, 1),
        offset,
      );
      const values = await named.readFloats(name, 0, expected.length);
      const worst = values.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i]!)), 0);
      expect(worst, name).toBeLessThan(2 ** -11 * (scale + offset));
    }
  });
});
