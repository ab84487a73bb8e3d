import type { Slot, SolverStep } from '../../src/diffusion/solver';
import { MAX_TERMS } from '../../src/diffusion/solver';

/** The tensors of a run by name; all of one length and one element type. */
export type Tensors = Map<Slot, Float64Array> | Map<Slot, Float32Array>;

/**
 * Carries out a solver step on the CPU, sums in f64. Every slot that the step names has to be there; buffers are
 * written in place and change names exactly as on the GPU, and a step that breaks one of its rules throws.
 */
export function applyStep(step: SolverStep, tensors: Tensors): void {
  for (const { out, terms } of step.combinations) {
    const read = terms.map(({ tensor, coefficient }) => ({ values: at(tensors, tensor), coefficient }));
    const target = at(tensors, out);
    const distinct = new Set([target, ...read.map((term) => term.values)]);
    if (terms.length === 0 || terms.length > MAX_TERMS || distinct.size !== terms.length + 1) {
      throw new Error(
        `${out} <- ${terms.map((term) => term.tensor)}: one to four distinct tensors, none of them ${out}`,
      );
    }
    for (let i = 0; i < target.length; i++) {
      let sum = 0;
      for (const { values, coefficient } of read) sum += coefficient * values[i]!;
      target[i] = sum;
    }
  }
  const from = step.renames.map((rename) => rename.from).sort();
  const to = step.renames.map((rename) => rename.to).sort();
  if (new Set(from).size !== from.length || from.join() !== to.join())
    throw new Error(`${from} -> ${to}: no permutation`);
  const moved = step.renames.map((rename) => [rename.to, at(tensors, rename.from)] as const);
  for (const [name, values] of moved) (tensors as Map<Slot, Float64Array | Float32Array>).set(name, values);
}

function at(tensors: Tensors, slot: Slot): Float64Array | Float32Array {
  const values = tensors.get(slot);
  if (values === undefined) throw new Error(`no tensor ${slot}`);
  return values;
}
