import { expose } from 'comlink';
import type { StoreWorkerSide } from '../src/import/protocol';
import { carryErrors } from '../src/protocol/errors';
import { importer, serveSlices, THREAD } from './import';
import { store } from './models';

/**
 * The store's worker: models are downloaded, verified and imported here. Under another name it is a thread of an
 * import.
 */

carryErrors();
if (self.name === THREAD) serveSlices();
else expose({ store, importer } satisfies StoreWorkerSide);
