import { describe, expect, it } from 'vitest';
import { Graph, type Value } from '../../src/onnx/graph';
import { add, geluTanh, mul, reshape, transpose } from '../../src/onnx/ops';
import { mergeSlots } from '../../src/onnx/scratch';

const FLOATS = 40; // 160 bytes

function start(): [Graph, Value] {
  const graph = new Graph('test');
  return [graph, graph.input('x', 'float32', [FLOATS])];
}

/** Slots of the intermediate values, by name. */
const slots = (graph: Graph) => new Map(graph.scratch().values.map(({ value, slot }) => [value, slot]));

describe('planScratch', () => {
  it('needs nothing for a single node, nor for inputs and outputs', () => {
    const [graph, x] = start();
    const y = geluTanh(x);
    graph.output('y', y);
    graph.output('z', geluTanh(y));
    expect(graph.scratch()).toEqual({ values: [], slotBytes: [] });
  });

  it('gives a chain two slots in turn', () => {
    const [graph, x] = start();
    const chain = [geluTanh(x)];
    for (let i = 0; i < 4; i++) chain.push(geluTanh(chain[i]!));
    graph.output('y', geluTanh(chain[4]!));
    expect(chain.map((value) => slots(graph).get(value))).toEqual([0, 1, 0, 1, 0]);
    expect(graph.scratch().slotBytes).toEqual([160, 160]);
  });

  it('keeps what is read later', () => {
    const [graph, x] = start();
    const kept = geluTanh(x);
    const a = geluTanh(kept);
    const b = geluTanh(a);
    graph.output('y', add(b, kept));
    expect(new Set(slots(graph).values()).size).toBe(3);
    expect(slots(graph).get(b)).not.toBe(slots(graph).get(kept));
  });

  it('shares nothing between branches, whose order is open', () => {
    const [graph, x] = start();
    const left = geluTanh(geluTanh(x));
    const right = geluTanh(geluTanh(x)); // may run before, between or after the left ones
    graph.output('y', mul(left, right));
    expect(new Set(slots(graph).values()).size).toBe(4);
  });

  it('takes a reshaped value for the value itself', () => {
    const [graph, x] = start();
    const a = geluTanh(x);
    const b = transpose(reshape(a, [8, 5]), [1, 0]);
    const c = geluTanh(b);
    graph.output('y', add(c, reshape(a, [5, 8])));
    expect([...slots(graph).keys()]).toEqual(expect.arrayContaining([a, b, c]));
    expect(slots(graph).size).toBe(3);
    expect(slots(graph).get(c)).not.toBe(slots(graph).get(a)); // a is read at the end, under another name
  });

  it('rounds up to 16 bytes, largest slot first', () => {
    const graph = new Graph('test');
    const row = graph.input('row', 'float32', [1, 3]);
    const column = graph.input('column', 'float32', [5, 1]);
    graph.output('y', geluTanh(add(geluTanh(row), column)));
    expect(graph.scratch().slotBytes).toEqual([64, 16]);
  });

  it('serves several graphs with the larger of their slots', () => {
    expect(mergeSlots([{ slotBytes: [64, 16] }, { slotBytes: [48, 32, 16] }, { slotBytes: [] }])).toEqual([64, 32, 16]);
  });
});
