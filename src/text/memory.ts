import type { Umt5Config } from '../config';
import { tensorBytes } from '../gpu/memory';
import type { GpuMatrixStorage } from '../gpu/weights';
import { workspaceBytes } from '../gpu/workspace';
import { mergeSlots } from '../onnx/scratch';
import { finalNormGraph, layerGraph } from './umt5';

/**
 * Most bytes of tensors that `encodeTexts` holds beside weights.
 * @param rows tokens of each prompt.
 * @param storage how a layer's matrices lie on the GPU. Default: none is split.
 */
export function textEncoderBytes(
  config: Umt5Config,
  rows: readonly number[],
  storage: (name: string) => GpuMatrixStorage = (name) => wholeMatrix(config, name),
): number {
  const { dModel } = config;
  const streams = rows.map(
    (count) => 2 * tensorBytes('float32', [count, dModel]) + tensorBytes('int32', [count, count]),
  );
  const graphs = rows.flatMap((count) => [layerGraph(config, storage, count), finalNormGraph(config, count)]);
  const scratch = workspaceBytes(mergeSlots(graphs.map((graph) => graph.scratch())));
  return streams.reduce((sum, bytes) => sum + bytes, scratch);
}

/** A matrix that fits a binding; what lies between graph nodes does not depend on its bits. */
function wholeMatrix({ dModel, dFf, numHeads, dKv }: Umt5Config, name: string): GpuMatrixStorage {
  const inner = numHeads * dKv;
  const [rows, columns] = name.includes('.wi_')
    ? [dFf, dModel]
    : name.includes('.wo.')
      ? [dModel, dFf]
      : name.includes('.o.')
        ? [dModel, inner]
        : [inner, dModel];
  return { rows, columns, bits: 8, zeroPoints: false, partRows: [rows] };
}
