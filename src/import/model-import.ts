import { checkLabels, writeModel } from '../checkpoint/import';
import { fingerprintOf, notedBytes } from '../checkpoint/journal';
import { openCheckpoint } from '../checkpoint/open';
import type { ImportSource } from '../checkpoint/sources';
import { largestModelBytes } from '../checkpoint/storage';
import type { Checkpoint } from '../checkpoint/weights';
import { throwIfAborted, ZoetropeError } from '../errors';
import { hashPiece, MANIFEST_FILE } from '../manifest';
import type { StoreProgress } from '../protocol';
import {
  type Channel,
  changeLock,
  type Disk,
  JOURNAL_FILE,
  noteOrigin,
  readSmall,
  type StoreHost,
  storageFull,
  storedFolder,
  writeSmall,
} from '../store/disk';
import { exclusively, importedModel } from '../store/library';
import { parseManifest } from '../store/manifest-reader';
import { DONE, listPieces, modelPath } from '../store/pieces';
import { Pace } from '../store/retry';
import { holding, type StoreWork } from '../store/work';
import type { ImportSettings, UnfinishedImport } from './protocol';
import { storeTarget, writing } from './target';
import type { ConvertPool } from './threads';

/**
 * Imports into the store. A model's folder is named by the hash of its manifest, which is known at the end, so an
 * import works in a folder of its own, named by what it is made from and how, and moves its files when they are
 * complete.
 */

const IMPORT_PREFIX = 'import-';
/** Hexadecimal digits of a fingerprint in a folder's name: 128 bits. */
const NAME_DIGITS = 32;
/** Note of what is imported, beside the files. */
const RECORD_FILE = 'import.json';
/** Pace at which progress is told. */
const REPORT_MS = 100;

/** What an import notes about itself. */
export interface ImportRecord extends ImportSettings {
  /** As {@link UnfinishedImport.sources}. */
  sources: string[];
  /** Bytes of the model at most. */
  sizeBytes: number;
}

/** How an import is done, beyond its settings. */
export interface ModelImportOptions extends StoreWork {
  settings: ImportSettings;
  /** Starts the threads; they are closed at the end. Default: everything in this one. */
  pool?: (() => ConvertPool) | undefined;
  /** See {@link WriteModelOptions.noteBytes}. */
  noteBytes?: number | undefined;
  /** Names of the sources for {@link unfinishedImports}. */
  names: string[];
  /** Called with the import's id before the first byte is written, e.g. to remember handles. */
  onBegin?: ((id: string) => Promise<void>) | undefined;
}

function stopped(cause: unknown): ZoetropeError {
  return new ZoetropeError(
    'aborted',
    'The import was stopped. What is there stays; the same import goes on from there.',
    {
      cause,
    },
  );
}

/**
 * Imports a checkpoint into the store, or continues to, and gives the model's id. The same sources and settings are the
 * same import: it goes on where it stopped, gives at once what it has already made, and waits where another tab does
 * it.
 *
 * Throws `bad-checkpoint` and `unreadable-source` for the sources, `bad-request` for a name or licence, `storage-full`
 * before the first byte when the model may not fit and when the disk is full after all, `aborted` at the signal. What
 * is there after either stays.
 */
export async function importModel(
  host: StoreHost,
  sources: readonly ImportSource[],
  options: ModelImportOptions,
): Promise<string> {
  const { settings, signal, onProgress } = options;
  checkLabels(settings);
  try {
    const checkpoint = await openCheckpoint(sources, signal);
    const fingerprint = await fingerprintOf(checkpoint, settings);
    const id = IMPORT_PREFIX + fingerprint.slice(0, NAME_DIGITS);
    const channel = host.channel(changeLock(id));
    try {
      channel.onmessage = ({ data }) => {
        const note = 'Another tab of this page imports this model.';
        onProgress({ ...(data as StoreProgress), state: 'waiting', note });
      };
      return await holding(host, id, signal, async () => {
        channel.onmessage = null;
        return (await importedModel(host.disk, id)) ?? (await run(host, id, checkpoint, channel, options));
      });
    } finally {
      channel.close();
    }
  } catch (error) {
    if (signal.aborted && !(error instanceof ZoetropeError && error.code !== 'aborted')) throw stopped(error);
    throw error;
  }
}

/** Does the import in its folder, by the only tab that may. */
async function run(
  host: StoreHost,
  id: string,
  checkpoint: Checkpoint,
  channel: Channel,
  options: ModelImportOptions,
): Promise<string> {
  const { settings, names, signal, noteBytes } = options;
  const { disk } = host;
  const finished = await stagedManifest(disk, id);
  if (finished) return moveIntoPlace(host, id, finished); // Ended between two moves.
  const sizeBytes = largestModelBytes(checkpoint, settings.quantization);
  const target = storeTarget(disk, id, sizeBytes);
  const room = await disk.room();
  const needed = sizeBytes - (await notedBytes(target));
  if (needed > Math.max(0, room.quotaBytes - room.usedBytes)) throw storageFull(needed, room);
  const note: ImportRecord = { ...settings, sources: names, sizeBytes };
  await writing(
    disk,
    () => needed,
    () => writeSmall(disk, id, RECORD_FILE, new TextEncoder().encode(JSON.stringify(note))),
  );
  await options.onBegin?.(id);
  const pool = options.pool?.();
  try {
    const { convert, ahead } = pool ?? {};
    const onProgress = paced(host, { id, name: settings.name }, options, channel);
    await writeModel(
      { sink: target, journal: target, ...settings, convert, ahead, noteBytes, onProgress, signal },
      checkpoint,
    );
  } finally {
    await pool?.close();
  }
  throwIfAborted(signal);
  return moveIntoPlace(host, id, (await readSmall(disk, id, MANIFEST_FILE))!);
}

/** The importer's progress with pace and time left, for this tab and for those that wait. */
function paced(
  { now }: StoreHost,
  { id, name }: Pick<StoreProgress, 'id' | 'name'>,
  { onProgress }: StoreWork,
  channel: Channel,
): (progress: { doneBytes: number; totalBytes: number; resumedBytes: number }) => void {
  const pace = new Pace();
  let reportedMs = 0;
  return ({ doneBytes, totalBytes, resumedBytes }) => {
    const ms = now();
    pace.add(ms, doneBytes - resumedBytes);
    if (ms - reportedMs < REPORT_MS && doneBytes < totalBytes) return;
    reportedMs = ms;
    const bytesPerSecond = pace.bytesPerSecond();
    const remainingMs = bytesPerSecond ? ((totalBytes - doneBytes) * 1000) / bytesPerSecond : null;
    const progress = {
      id,
      name,
      state: 'importing',
      doneBytes,
      totalBytes,
      bytesPerSecond,
      remainingMs,
      note: '',
    } as const;
    onProgress(progress);
    channel.postMessage(progress);
  };
}

/** The manifest that an import has written at its end; undefined before, and when the write was cut. */
async function stagedManifest(disk: Disk, imported: string): Promise<Uint8Array | undefined> {
  const bytes = await readSmall(disk, imported, MANIFEST_FILE);
  try {
    return bytes && parseManifest(bytes) && bytes;
  } catch {
    return undefined;
  }
}

/** Makes a complete import a model of the store. Can be ended anywhere and done again. */
async function moveIntoPlace(host: StoreHost, imported: string, bytes: Uint8Array): Promise<string> {
  const { disk } = host;
  const list = listPieces(parseManifest(bytes));
  const id = await hashPiece(bytes);
  await exclusively(host, id, () =>
    // Moves need no room, and the rest a few kilobytes.
    writing(
      disk,
      () => bytes.length,
      async () => {
        await noteOrigin(disk, id, { imported });
        await writeSmall(disk, id, MANIFEST_FILE, bytes);
        for (const { path } of list.files) {
          const left = await readable(disk, imported, modelPath(path));
          if (left) await disk.move(imported, modelPath(path), id);
        }
        await writeSmall(disk, id, JOURNAL_FILE, new Uint8Array(list.pieces.length).fill(DONE));
      },
    ),
  );
  await disk.remove(imported);
  return id;
}

function readable(disk: Disk, folder: string, path: string): Promise<boolean> {
  return disk.open(folder, path).then(
    () => true,
    () => false,
  );
}

/** What an import noted; undefined for folders that are none, or whose note was cut or is of another version. */
export async function importRecord({ disk }: Pick<StoreHost, 'disk'>, id: string): Promise<ImportRecord | undefined> {
  if (!id.startsWith(IMPORT_PREFIX)) return undefined;
  const bytes = await readSmall(disk, id, RECORD_FILE);
  try {
    const record = bytes && (JSON.parse(new TextDecoder().decode(bytes)) as Partial<ImportRecord> | null);
    const whole =
      typeof record?.name === 'string' && Array.isArray(record.sources) && record.quantization !== undefined;
    return whole ? (record as ImportRecord) : undefined;
  } catch {
    return undefined;
  }
}

/** An import whose note is damaged can only be deleted. */
const UNKNOWN = { quantization: 'q8', license: 'unknown', sources: [], sizeBytes: 0 } as const;

/**
 * Imports that were stopped, by name.
 * @param remembered ids of those whose sources are kept.
 */
export async function unfinishedImports(
  host: Pick<StoreHost, 'disk' | 'locks'>,
  remembered: ReadonlySet<string>,
): Promise<UnfinishedImport[]> {
  const { held = [] } = await host.locks.query();
  const locked = new Set(held.map(({ name }) => name));
  const imports = (await host.disk.folders()).map(async (id): Promise<UnfinishedImport[]> => {
    if (!id.startsWith(IMPORT_PREFIX)) return [];
    const record = (await importRecord(host, id)) ?? { ...UNKNOWN, name: id };
    const storedBytes = await notedBytes(storedFolder(host.disk, id));
    const busy = locked.has(changeLock(id));
    return [{ id, ...record, sources: [...record.sources], storedBytes, remembered: remembered.has(id), busy }];
  });
  return (await Promise.all(imports)).flat().sort((a, b) => (a.name < b.name ? -1 : 1));
}
