import type { Umt5Config } from '../config';
import { throwIfAborted, unlessAborted, ZoetropeError } from '../errors';
import { decodeFloats, isFloatDtype } from '../floats';
import type { Gpu } from '../gpu/device';
import { Scope } from '../gpu/memory';
import type { Ort, OrtGraph } from '../gpu/ort';
import type { BlockWeights, GpuMatrixStorage, WeightView } from '../gpu/weights';
import { DTYPE_BYTES, type RangedTensorSource, type TensorSource } from '../manifest';
import { Graph, type Value } from '../onnx/graph';
import { add, gather, geluTanh, linear, matmul, mul, reshape, rmsNorm, softmax, transpose } from '../onnx/ops';
import { linearInputs, vectorInput } from '../onnx/weight-inputs';

/** The embedding table; its rows are read one by one and never uploaded whole (2.1 GB in UMT5-XXL). */
export const EMBEDDING = 'shared.weight';

/** Tensors that one layer takes, by name without the layer's prefix. */
const LAYER_MATRICES = [
  'layer.0.SelfAttention.q',
  'layer.0.SelfAttention.k',
  'layer.0.SelfAttention.v',
  'layer.0.SelfAttention.o',
  'layer.1.DenseReluDense.wi_0',
  'layer.1.DenseReluDense.wi_1',
  'layer.1.DenseReluDense.wo',
] as const;

/**
 * Bucket of a key's position minus the query's, bidirectional (transformers `UMT5Attention._relative_position_bucket`
 * for 32 buckets and distance 128): exact up to 7, then eight buckets up to 91. Thresholds instead of logarithms, which
 * round differently at 16, 32 and 64.
 */
export function relativeBucket(relative: number): number {
  const distance = Math.abs(relative);
  const thresholds = [12, 16, 23, 32, 46, 64, 91];
  const near = distance < 8 ? distance : 8 + thresholds.filter((threshold) => distance >= threshold).length;
  return relative > 0 ? 16 + near : near;
}

/** One encoder layer over n tokens; q·k is not scaled and every layer has its own bias table, unlike T5. */
export function layerGraph(config: Umt5Config, storage: (name: string) => GpuMatrixStorage, tokens: number): Graph {
  const graph = new Graph('umt5-layer');
  const { dModel, dKv, numHeads, eps } = config;
  const matrices = new Map(
    LAYER_MATRICES.map((name) => [name, linearInputs(graph, name, storage(`${name}.weight`), false)]),
  );
  const layer = (x: Value, name: (typeof LAYER_MATRICES)[number]) => linear(x, matrices.get(name)!);
  const norm = (x: Value, name: string) => rmsNorm(x, vectorInput(graph, `${name}.layer_norm.weight`, dModel), eps);

  let x = graph.input('x', 'float32', [tokens, dModel]);
  const y = norm(x, 'layer.0');
  const heads = (value: Value, order: number[]) => transpose(reshape(value, [tokens, numHeads, dKv]), order);
  const q = heads(layer(y, 'layer.0.SelfAttention.q'), [1, 0, 2]);
  const k = heads(layer(y, 'layer.0.SelfAttention.k'), [1, 2, 0]);
  const v = heads(layer(y, 'layer.0.SelfAttention.v'), [1, 0, 2]);
  const table = graph.input('layer.0.SelfAttention.relative_attention_bias.weight', 'float32', [
    config.relativeBuckets,
    numHeads,
  ]);
  const bias = transpose(gather(table, graph.input('buckets', 'int32', [tokens, tokens])), [2, 0, 1]);
  const attended = matmul(softmax(add(matmul(q, k), bias)), v);
  const joined = reshape(transpose(attended, [1, 0, 2]), [tokens, numHeads * dKv]);
  x = add(x, layer(joined, 'layer.0.SelfAttention.o'));

  const z = norm(x, 'layer.1');
  const gated = mul(geluTanh(layer(z, 'layer.1.DenseReluDense.wi_0')), layer(z, 'layer.1.DenseReluDense.wi_1'));
  graph.output('out', add(x, layer(gated, 'layer.1.DenseReluDense.wo')));
  return graph;
}

/** What the encoder runs on. */
export interface Umt5Host {
  gpu: Gpu;
  ort: Ort;
  config: Umt5Config;
  /** Every tensor but the embedding table; a block is a layer. */
  weights: BlockWeights;
  /** Where rows of the embedding table are read. */
  source: TensorSource;
  signal?: AbortSignal | undefined;
  /** For tests: the residual stream after each layer. */
  onLayer?: (layer: number, x: Float32Array) => void;
}

/** What the encoder gives for a prompt: a row for each token. */
export interface EncodedText {
  rows: number;
  /** [rows, dModel]. */
  values: Float32Array;
}

/**
 * Encodes prompts of n token ids (1 to 512, the last one `</s>`) to [n, dModel] each, in one sweep over the layers, so
 * that streamed weights are read once. Only real tokens run: padding would be masked, and the rows behind them are
 * zeros by definition.
 */
export async function encodeTexts(host: Umt5Host, prompts: readonly ArrayLike<number>[]): Promise<EncodedText[]> {
  const { gpu, config, weights } = host;
  if (config.relativeBuckets !== 32 || config.relativeMaxDistance !== 128) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `UMT5 with ${config.relativeBuckets} buckets to distance ${config.relativeMaxDistance} is not known; expected 32 and 128.`,
    );
  }
  using scope = new Scope();
  const sessions = new LayerSessions(host);
  try {
    const streams = [];
    for (const ids of prompts) {
      const shape = [ids.length, config.dModel];
      const rows = await unlessAborted(embeddingRows(host, ids), host.signal);
      const x = scope.own(gpu.memory.upload('text', 'float32', shape, rows));
      const out = scope.own(gpu.memory.tensor('text after a layer', 'float32', shape));
      const table = bucketTable(ids.length);
      const buckets = scope.own(gpu.memory.upload('buckets', 'int32', [ids.length, ids.length], table));
      streams.push({ tokens: ids.length, x, out, buckets });
    }
    for (let layer = 0; layer < config.numLayers; layer++) {
      throwIfAborted(host.signal);
      const view = await weights.block(layer);
      for (const stream of streams) {
        const { graph, session } = await sessions.layer(view, stream.tokens);
        await session.run(view.feeds(graph.inputs, { x: stream.x, buckets: stream.buckets }), { out: stream.out });
        [stream.x, stream.out] = [stream.out, stream.x];
        if (host.onLayer) host.onLayer(layer, await gpu.memory.readFloats(stream.x));
      }
    }
    const encoded: EncodedText[] = [];
    for (const { tokens, x, out } of streams) {
      const { graph, session } = await sessions.norm(tokens);
      await session.run(weights.outer.feeds(graph.inputs, { x }), { out });
      encoded.push({ rows: tokens, values: await gpu.memory.readFloats(out) });
    }
    return encoded;
  } finally {
    await sessions.release();
  }
}

/** {@link encodeTexts} of a single prompt. */
export async function encodeText(host: Umt5Host, ids: ArrayLike<number>): Promise<EncodedText> {
  const [encoded] = await encodeTexts(host, [ids]);
  return encoded!;
}

interface CompiledLayer {
  graph: Graph;
  session: OrtGraph;
}

/** Sessions by number of tokens and by how a layer's matrices are stored, which may differ from layer to layer. */
class LayerSessions {
  private readonly compiled = new Map<string, CompiledLayer>();

  constructor(private readonly host: Umt5Host) {}

  layer(view: WeightView, tokens: number): Promise<CompiledLayer> {
    const storage = (name: string) => view.storage(name);
    const letters = LAYER_MATRICES.map((name) => {
      const { bits, zeroPoints, partRows } = storage(`${name}.weight`);
      return `${bits}${zeroPoints}${partRows}`;
    });
    return this.get(`${tokens} ${letters}`, () => layerGraph(this.host.config, storage, tokens));
  }

  norm(tokens: number): Promise<CompiledLayer> {
    return this.get(`norm ${tokens}`, () => finalNormGraph(this.host.config, tokens));
  }

  private async get(key: string, build: () => Graph): Promise<CompiledLayer> {
    const known = this.compiled.get(key);
    if (known) return known;
    const graph = build();
    const made = { graph, session: await this.host.ort.compile(graph) };
    this.compiled.set(key, made);
    return made;
  }

  async release(): Promise<void> {
    for (const { session } of this.compiled.values()) await session.release();
  }
}

/** The norm behind the last layer. */
export function finalNormGraph(config: Umt5Config, tokens: number): Graph {
  const graph = new Graph('umt5-norm');
  const weight = vectorInput(graph, 'encoder.final_layer_norm.weight', config.dModel);
  graph.output('out', rmsNorm(graph.input('x', 'float32', [tokens, config.dModel]), weight, config.eps));
  return graph;
}

/** [n, n] of the bucket of key j seen from query i. */
function bucketTable(tokens: number): Int32Array {
  const table = new Int32Array(tokens * tokens);
  for (let i = 0; i < tokens; i++) {
    for (let j = 0; j < tokens; j++) table[i * tokens + j] = relativeBucket(j - i);
  }
  return table;
}

/** Rows of the embedding table, [n, dModel] float32, read one by one where the source can. */
async function embeddingRows({ source, config }: Umt5Host, ids: ArrayLike<number>): Promise<Float32Array> {
  const entry = source.entries.get(EMBEDDING);
  if (!entry || !isFloatDtype(entry.dtype)) {
    throw new ZoetropeError(
      'bad-checkpoint',
      `"${EMBEDDING}" must hold F32, F16 or BF16 rows, got ${entry?.dtype ?? 'nothing'}.`,
    );
  }
  const rowBytes = config.dModel * DTYPE_BYTES[entry.dtype];
  const whole = 'readRange' in source ? undefined : await source.read(EMBEDDING);
  const rows = new Float32Array(ids.length * config.dModel);
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (!Number.isInteger(id) || id < 0 || id >= config.vocabSize) {
      throw new ZoetropeError('bad-checkpoint', `Token id ${id} is outside the embedding's ${config.vocabSize} rows.`);
    }
    const [begin, end] = [id * rowBytes, (id + 1) * rowBytes];
    const bytes = whole
      ? whole.subarray(begin, end)
      : await (source as RangedTensorSource).readRange(EMBEDDING, begin, end);
    rows.set(decodeFloats(bytes, entry.dtype), i * config.dModel);
  }
  return rows;
}
