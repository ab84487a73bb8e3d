import type { Gpu } from '../../src/gpu/device';
import type { GpuTensor } from '../../src/gpu/memory';
import { BlockStream } from '../../src/store/block-stream';
import { storedFolder } from '../../src/store/disk';
import { httpFolder } from '../../src/store/http';
import { MODELS_ROOT, openOpfs } from '../../src/store/opfs';
import { openModel } from '../../src/store/verified';

/**
 * A worker that streams the blocks of a model as a generation does, through the store, the verification and the upload of the
 * library, to a GPU that only counts what it gets. Bundled and started by `heap.ts`.
 */

/** Where the model is, and how often its blocks are asked for. */
export interface ReadRequest {
  from: { storedId: string } | { url: string };
  rounds: number;
}

/** A GPU as far as weights are written to one. */
function countingGpu(): { gpu: Gpu; writtenBytes(): number } {
  let writtenBytes = 0;
  const memory = {
    tensor: (_label: string, type: string, shape: readonly number[]) => {
      return { type, shape, [Symbol.dispose]: () => undefined } as unknown as GpuTensor;
    },
    write(_tensor: GpuTensor, bytes: ArrayBufferView) {
      writtenBytes += bytes.byteLength;
    },
  };
  const limits = { maxStorageBufferBindingSize: 2 ** 27, maxBufferSize: 2 ** 28 };
  return { gpu: { device: { limits }, memory } as unknown as Gpu, writtenBytes: () => writtenBytes };
}

async function read({ from, rounds }: ReadRequest): Promise<number> {
  const folder =
    'url' in from ? httpFolder(from.url) : storedFolder(await openOpfs(navigator.storage, MODELS_ROOT), from.storedId);
  const model = await openModel(folder);
  const { gpu, writtenBytes } = countingGpu();
  const count = model.manifest.dit.numLayers;
  const now = () => performance.now();
  using stream = await BlockStream.open(gpu, model.component('high'), { prefix: 'blocks.', count, slots: 3, now });
  for (let index = 0; index < rounds * count; index++) await stream.block(index % count);
  return writtenBytes();
}

self.onmessage = ({ data }: MessageEvent<ReadRequest>) => {
  read(data).then(
    (writtenBytes) => self.postMessage({ writtenBytes }),
    (error: Error) => self.postMessage({ error: error.message }),
  );
};
