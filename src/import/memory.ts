import type { SourceSpec } from './protocol';

/**
 * Handles of the files and folders that unfinished imports read, kept in IndexedDB, the one place of a browser that can
 * hold them. Forgetting is no error anywhere: the person is asked for the same files again.
 */

const DATABASE = 'zoetrope-imports';
const STORE = 'sources';

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function inStore<T>(mode: IDBTransactionMode, work: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
  const database = await settled(opening);
  try {
    return await settled(work(database.transaction(STORE, mode).objectStore(STORE)));
  } finally {
    database.close();
  }
}

/** Keeps the sources of an import if all of them outlive the page: handles and addresses. */
export async function remember(id: string, sources: readonly SourceSpec[]): Promise<void> {
  if (sources.some(({ kind }) => kind === 'file')) return;
  await inStore('readwrite', (store) => store.put(sources, id)).catch(() => undefined);
}

/** The sources of an import; undefined when they were not kept. */
export function recall(id: string): Promise<SourceSpec[] | undefined> {
  return inStore<SourceSpec[] | undefined>('readonly', (store) => store.get(id)).catch(() => undefined);
}

/** Ids of the imports whose sources are kept. */
export async function remembered(): Promise<Set<string>> {
  const keys = await inStore('readonly', (store) => store.getAllKeys()).catch(() => []);
  return new Set(keys.map(String));
}

/** Forgets the sources of imports that are finished or deleted. */
export async function forget(ids: Iterable<string>): Promise<void> {
  for (const id of ids) await inStore('readwrite', (store) => store.delete(id)).catch(() => undefined);
}
