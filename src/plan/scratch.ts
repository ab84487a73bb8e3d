import type { Umt5Config } from '../config';
import { passScratchBytes } from '../diffusion/memory';
import { gpuMatrixStorage } from '../gpu/weights';
import type { ComponentName, Manifest, TensorEntry } from '../manifest';
import { textEncoderBytes } from '../text/memory';
import { Memo } from './memo';
import { BLOCK_PREFIX, modelBytes } from './residency';

/** Bytes that follow from graphs: building those takes milliseconds, so what they say is remembered. */

type Model = Pick<Manifest, 'dit' | 'umt5' | 'components'>;

const passes = new Memo<Manifest['components'], number>();
const encoders = new Memo<Manifest['components'], number>();
const entries = new Memo<Manifest['components'], ReadonlyMap<string, TensorEntry>>();

/** Tensors of a component by name; empty for one that a manifest does not list. */
function entriesOf(components: Manifest['components'], name: ComponentName): ReadonlyMap<string, TensorEntry> {
  return entries.of(components, name, () => {
    const tensors = (components[name] ?? []).flatMap((file) => Object.entries(file.tensors ?? {}));
    return new Map<string, TensorEntry>(tensors);
  });
}

/** How a component's matrices lie on the GPU; undefined where none is split, since then only their shapes count. */
function storageOf({ components }: Model, name: ComponentName, bindingBytes: number) {
  if ((modelBytes(components)[name]?.largest ?? 0) <= bindingBytes) return undefined;
  const listed = entriesOf(components, name);
  const block = `${BLOCK_PREFIX[name]}0.`;
  return {
    outer: (matrix: string) => gpuMatrixStorage(listed, matrix, bindingBytes),
    block: (matrix: string) => gpuMatrixStorage(listed, block + matrix, bindingBytes),
  };
}

/** Bytes of the workspace of an expert's graphs. @param rows tokens of each prompt. */
export function passScratch(
  model: Model,
  expert: 'high' | 'low',
  chunkTokens: number,
  rows: readonly number[],
  bindingBytes: number,
): number {
  const storage = storageOf(model, expert, bindingBytes);
  const key = `${expert} ${chunkTokens} ${rows} ${storage ? bindingBytes : 'whole'}`;
  return passes.of(model.components, key, () => {
    // The grid's graphs leave nothing in between, whatever its size.
    const plan = { chunks: [{ index: 0, begin: 0, tokens: chunkTokens }], grid: [1, 2, 2] as const };
    return passScratchBytes(model.dit, plan, rows, storage);
  });
}

/** Bytes that the text encoder works in, beside weights. @param rows tokens of each prompt. */
export function textScratch(model: Model, rows: readonly number[], bindingBytes: number): number {
  const storage = storageOf(model, 'text_encoder', bindingBytes);
  const key = `${rows} ${storage ? bindingBytes : 'whole'}`;
  return encoders.of(model.components, key, () => textEncoderBytes(model.umt5, rows, storage?.block));
}

/** The largest tensor that the text encoder makes for prompts of so many tokens. */
export function largestText({ dModel, dFf, numHeads }: Umt5Config, rows: readonly number[]): number {
  const longest = Math.max(0, ...rows);
  return 4 * longest * Math.max(dModel, dFf, numHeads * longest);
}
