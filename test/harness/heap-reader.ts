import { requestGpu } from '../../src/gpu/device';
import { BlockStream } from '../../src/store/block-stream';
import { storedFolder } from '../../src/store/disk';
import { httpFolder } from '../../src/store/http';
import { MODELS_ROOT, openOpfs } from '../../src/store/opfs';
import { openModel } from '../../src/store/verified';

/**
 * A worker that streams the blocks of a model as a generation does, through the store, the verification and the upload
 * of the library, to the GPU. Bundled and started by `heap.ts`.
 */

/** Where the model is, and how often its blocks are asked for. */
export interface ReadRequest {
  from: { storedId: string } | { url: string };
  rounds: number;
}

async function read({ from, rounds }: ReadRequest): Promise<number> {
  const folder =
    'url' in from ? httpFolder(from.url) : storedFolder(await openOpfs(navigator.storage, MODELS_ROOT), from.storedId);
  const model = await openModel(folder);
  const gpu = await requestGpu(navigator.gpu);
  const count = model.manifest.dit.numLayers;
  const now = () => performance.now();
  try {
    using stream = await BlockStream.open(gpu, model.component('high'), { prefix: 'blocks.', count, slots: 3, now });
    for (let index = 0; index < rounds * count; index++) await stream.block(index % count);
    return stream.report().uploadedBytes;
  } finally {
    gpu.destroy();
  }
}

self.onmessage = ({ data }: MessageEvent<ReadRequest>) => {
  read(data).then(
    (writtenBytes) => self.postMessage({ writtenBytes }),
    (error: Error) => self.postMessage({ error: error.message }),
  );
};
