import { type DitConfig, PATCH, patchChannels } from '../config';
import { Graph, type Value } from '../onnx/graph';
import { add, geluTanh, layerNorm, linear, mul, reshape, silu, slice, transpose } from '../onnx/ops';
import { type LinearStorage, linearInputs, vectorInput } from '../onnx/weight-inputs';

/**
 * The ONNX graphs of the diffusion transformer. A block is five graphs round two attention kernels (`dit.ts` tells the
 * story); all of them take their weights as inputs, so one session serves every block of both experts. Equations and
 * names are those of WanModel (Wan2.2 `wan/modules/model.py`).
 */

/** How the matrix called `name` (inside its block, or outside blocks) is stored on the GPU. */
export type StorageOf = (name: string) => LinearStorage;

const f32 = 'float32';

/** Latents [c, T, h, w] to the tokens' 64 values each: [N, (c, ph, pw)], tokens in order (t, i, j). */
export function patchifyGraph(config: DitConfig, [frames, height, width]: readonly number[]): Graph {
  const graph = new Graph('patchify');
  const channels = config.inChannels;
  const latents = graph.input('latents', f32, [channels, frames! * height! * width! * 4]);
  const split = reshape(latents, [channels, frames!, height!, PATCH[1], width!, PATCH[2]]);
  // [T, i, j, c, ph, pw] has the layout of [N, 64]; a Reshape at the end would be a copy.
  graph.output('patches', transpose(split, [1, 2, 4, 0, 3, 5]));
  return graph;
}

/** The head's 64 values a token, ordered (ph, pw, c), back to latents [c, T, h, w]. */
export function unpatchifyGraph(config: DitConfig, [frames, height, width]: readonly number[]): Graph {
  const graph = new Graph('unpatchify');
  const channels = config.outChannels;
  const patches = graph.input('patches', f32, [frames! * height! * width!, patchChannels(config)]);
  const split = reshape(patches, [frames!, height!, width!, PATCH[1], PATCH[2], channels]);
  graph.output('latents', transpose(split, [5, 0, 1, 3, 2, 4])); // [c, T, i, ph, j, pw] has the layout of [c, T, h, w]
  return graph;
}

/** Patches of a chunk to the residual stream: the patch convolution as the matrix product that it is. */
export function embedGraph(config: DitConfig, tokens: number): Graph {
  const graph = new Graph('embed');
  const columns = config.inChannels * PATCH[1] * PATCH[2];
  const patches = graph.input('patches', f32, [tokens, columns]);
  const weight = linearInputs(
    graph,
    'patch_embedding',
    { rows: config.dim, columns, bits: 32, zeroPoints: false },
    true,
  );
  graph.output('x', linear(patches, weight));
  return graph;
}

/**
 * Sinusoid [1, 256] to e [1, C], which modulates the head, and its projection e0 [6, C], which modulates the blocks.
 */
export function timeGraph(config: DitConfig, storage: StorageOf): Graph {
  const graph = new Graph('time');
  const layer = (x: Value, name: string) => linear(x, linearInputs(graph, name, storage(`${name}.weight`), true));
  const hidden = layer(graph.input('sinusoid', f32, [1, config.freqDim]), 'time_embedding.0');
  const e = layer(silu(hidden), 'time_embedding.2');
  graph.output('e', e);
  graph.output('e0', reshape(layer(silu(e), 'time_projection.1'), [6, config.dim]));
  return graph;
}

/** Text rows [m, textDim] to the width of the model. A zero row gives the constant that every padded row has. */
export function textGraph(config: DitConfig, storage: StorageOf, rows: number): Graph {
  const graph = new Graph('text');
  const layer = (x: Value, name: string) => linear(x, linearInputs(graph, name, storage(`${name}.weight`), true));
  const context = graph.input('context', f32, [rows, config.textDim]);
  graph.output('c', layer(geluTanh(layer(context, 'text_embedding.0')), 'text_embedding.2'));
  return graph;
}

/** Keys and values of the text for one block, before the key's norm. */
export function crossKvGraph(config: DitConfig, storage: StorageOf, rows: number): Graph {
  const graph = new Graph('cross-kv');
  const c = graph.input('c', f32, [rows, config.dim]);
  for (const part of ['k', 'v']) {
    const name = `cross_attn.${part}`;
    graph.output(part, linear(c, linearInputs(graph, name, storage(`${name}.weight`), true)));
  }
  return graph;
}

/**
 * A block's six vectors [C] for one step: `modulation` + e0, in the order shift, scale, gate of self-attention, then of
 * the feed-forward network. Scales come out as 1 + scale, ready to be a norm's weight.
 */
export function modulationGraph(config: DitConfig): Graph {
  const graph = new Graph('modulation');
  const modulation = reshape(graph.input('modulation', f32, [1, 6, config.dim]), [6, config.dim]);
  const sum = add(modulation, graph.input('e0', f32, [6, config.dim]));
  const names = ['shiftAttn', 'scaleAttn', 'gateAttn', 'shiftFfn', 'scaleFfn', 'gateFfn'];
  names.forEach((name, i) => {
    const row = reshape(slice(sum, 0, i, i + 1), [config.dim]);
    graph.output(name, name.startsWith('scale') ? add(row, graph.floats([1])) : row);
  });
  return graph;
}

/** LayerNorm whose weight and bias are the step's modulation: (x - mean) / std * (1 + scale) + shift. */
function modulatedNorm(graph: Graph, config: DitConfig, x: Value, part: 'Attn' | 'Ffn'): Value {
  const scale = vectorInput(graph, `scale${part}`, config.dim);
  return layerNorm(x, scale, vectorInput(graph, `shift${part}`, config.dim), config.eps);
}

/** Projections of self-attention for a chunk, before norm and rotation: of the queries, or of the keys and values. */
export function projectionGraph(
  config: DitConfig,
  storage: StorageOf,
  tokens: number,
  parts: readonly ('q' | 'k' | 'v')[],
): Graph {
  const graph = new Graph(`project-${parts.join('')}`);
  const y = modulatedNorm(graph, config, graph.input('x', f32, [tokens, config.dim]), 'Attn');
  for (const part of parts) {
    const name = `self_attn.${part}`;
    graph.output(part, linear(y, linearInputs(graph, name, storage(`${name}.weight`), true)));
  }
  return graph;
}

/** What follows self-attention: output projection, gate, residual; then norm3 and the query of cross-attention. */
export function afterSelfAttentionGraph(config: DitConfig, storage: StorageOf, tokens: number): Graph {
  const graph = new Graph('after-self-attention');
  const { dim, eps } = config;
  const layer = (x: Value, name: string) => linear(x, linearInputs(graph, name, storage(`${name}.weight`), true));
  const x = graph.input('x', f32, [tokens, dim]);
  const attended = layer(graph.input('attended', f32, [tokens, dim]), 'self_attn.o');
  const out = add(x, mul(attended, vectorInput(graph, 'gateAttn', dim)));
  graph.output('out', out);
  const y = layerNorm(out, vectorInput(graph, 'norm3.weight', dim), vectorInput(graph, 'norm3.bias', dim), eps);
  graph.output('q', layer(y, 'cross_attn.q'));
  return graph;
}

/** What follows cross-attention: output projection and residual, then the gated feed-forward network. */
export function feedForwardGraph(config: DitConfig, storage: StorageOf, tokens: number): Graph {
  const graph = new Graph('feed-forward');
  const { dim } = config;
  const layer = (x: Value, name: string) => linear(x, linearInputs(graph, name, storage(`${name}.weight`), true));
  const attended = graph.input('attended', f32, [tokens, dim]);
  const x = add(graph.input('x', f32, [tokens, dim]), layer(attended, 'cross_attn.o'));
  const hidden = geluTanh(layer(modulatedNorm(graph, config, x, 'Ffn'), 'ffn.0'));
  graph.output('out', add(x, mul(layer(hidden, 'ffn.2'), vectorInput(graph, 'gateFfn', dim))));
  return graph;
}

/** Residual stream to the 64 velocity values of each token. Modulated by e itself, not by its projection. */
export function headGraph(config: DitConfig, storage: StorageOf, tokens: number): Graph {
  const graph = new Graph('head');
  const { dim, eps } = config;
  const x = graph.input('x', f32, [tokens, dim]);
  const modulation = reshape(graph.input('head.modulation', f32, [1, 2, dim]), [2, dim]);
  const e = graph.input('e', f32, [1, dim]);
  const sum = add(modulation, e);
  const shift = reshape(slice(sum, 0, 0, 1), [dim]);
  const scale = add(reshape(slice(sum, 0, 1, 2), [dim]), graph.floats([1]));
  const weight = linearInputs(graph, 'head.head', storage('head.head.weight'), true);
  graph.output('patches', linear(layerNorm(x, scale, shift, eps), weight));
  return graph;
}
