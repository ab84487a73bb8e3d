import { partName, SCALES_SUFFIX, ZERO_POINTS_SUFFIX } from '../manifest';
import type { Graph, Value } from './graph';
import type { LinearWeight, SplitWeight } from './ops';

/** How a matrix is stored where the graph will run. */
export interface LinearStorage {
  rows: number;
  columns: number;
  bits: 32 | 8 | 4;
  zeroPoints: boolean;
  /** Rows of each part of a matrix that is too large for one binding. Default: one part. */
  partRows?: readonly number[];
}

/**
 * Declares the inputs of a linear layer under the checkpoint's own names: `name.weight`, with `name.weight.scales` and
 * `name.weight.zero_points` when quantised, and `name.bias` if it has one. Parts of a split matrix carry their index.
 */
export function linearInputs(
  graph: Graph,
  name: string,
  storage: LinearStorage,
  bias: boolean,
): LinearWeight | SplitWeight {
  const { rows, partRows = [rows] } = storage;
  const weight = `${name}.weight`;
  const parts = partRows.map((count, part) =>
    partInputs(graph, partRows.length === 1 ? weight : partName(weight, part), { ...storage, rows: count }),
  );
  const vector = bias ? graph.input(`${name}.bias`, 'float32', [rows]) : null;
  return parts.length === 1 ? { ...parts[0]!, bias: vector } : { parts, bias: vector };
}

/** The inputs of consecutive rows, without a bias. */
function partInputs(graph: Graph, weight: string, { rows, columns, bits, zeroPoints }: LinearStorage): LinearWeight {
  const blocks = columns / 32;
  const quantised = bits !== 32;
  return {
    rows,
    columns,
    bits,
    matrix: quantised
      ? graph.input(weight, 'uint8', [rows, blocks, (32 * bits) / 8])
      : graph.input(weight, 'float32', [rows, columns]),
    scales: quantised ? graph.input(weight + SCALES_SUFFIX, 'float32', [rows, blocks]) : null,
    zeroPoints:
      quantised && zeroPoints
        ? graph.input(weight + ZERO_POINTS_SUFFIX, 'uint8', [rows, Math.ceil((blocks * bits) / 8)])
        : null,
    bias: null,
  };
}

/** Declares a vector input, e.g. a norm's weight. */
export function vectorInput(graph: Graph, name: string, length: number): Value {
  return graph.input(name, 'float32', [length]);
}
