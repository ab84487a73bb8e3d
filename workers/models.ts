import { patientFetch } from '../src/import/url';
import type { PartName } from '../src/part';
import type { ModelStore } from '../src/protocol';
import { downloadModel, folderUrl } from '../src/store/download';
import { httpFolder } from '../src/store/http';
import { deleteModel, listModels, repairModel, verifyModel } from '../src/store/library';
import { storePartsBeside } from '../src/store/parts';
import { onStore, stopJob, stoppable } from './store-host';

/** The store of models. */

export const store: ModelStore = {
  list: () => onStore(listModels),
  storage: () =>
    onStore(async ({ disk }) => ({ ...(await disk.room()), persisted: await navigator.storage.persisted() })),
  download: (url, job, report) =>
    stoppable(job, report, async (host, work) => {
      const id = await downloadModel(host, url, work);
      const reading = { fetch: patientFetch(work), signal: work.signal };
      const folderOf = (part: PartName) => httpFolder(new URL(`../${part}/`, folderUrl(url)).href, reading);
      await storePartsBeside(host, folderOf, { signal: work.signal });
      return id;
    }),
  verify: (id, job, report) => stoppable(job, report, (host, work) => verifyModel(host, id, work)),
  repair: (id, job, report) => stoppable(job, report, (host, work) => repairModel(host, id, work)),
  delete: (id) => onStore((host) => deleteModel(host, id)),
  stop: stopJob,
};
