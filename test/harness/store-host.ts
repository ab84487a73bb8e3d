import { importCheckpoint } from '../../src/checkpoint/import';
import { ZoetropeError } from '../../src/errors';
import { hashPiece, MANIFEST_FILE, type Manifest } from '../../src/manifest';
import { Arrivals, LANES } from '../../src/store/arrivals';
import {
  ARRIVALS_FILE,
  type Channel,
  type Disk,
  JOURNAL_FILE,
  presentPieces,
  type StoreHost,
} from '../../src/store/disk';
import { DONE, listPieces, modelPath, type PieceList, storedBytes } from '../../src/store/pieces';
import { checkpointFiles } from './checkpoint';
import { memoryFolder } from './memory-folder';

/** A browser's storage, locks and channels in memory, and a web server, for tests of the store. */

/** Odd and small, so that a small model has many pieces. */
const PIECE_BYTES = 40_009;

/** A model folder with many small pieces. */
export async function pieceModel(): Promise<Map<string, Uint8Array>> {
  const model = memoryFolder();
  const files = memoryFolder(checkpointFiles());
  const manifest = await importCheckpoint({ folder: files, sink: model, quantization: 'q4', name: 'test' });
  await repiece(manifest, model.files);
  model.files.set(MANIFEST_FILE, new TextEncoder().encode(JSON.stringify(manifest)));
  return model.files;
}

/** Cuts the files of a manifest into small pieces. */
export async function repiece(
  manifest: Manifest,
  files: ReadonlyMap<string, Uint8Array>,
  sizeBytes = PIECE_BYTES,
): Promise<void> {
  for (const file of Object.values(manifest.components).flat()) {
    const bytes = files.get(file.path)!;
    file.pieces = [];
    for (let begin = 0; begin < bytes.length; begin += sizeBytes) {
      const piece = bytes.subarray(begin, begin + sizeBytes);
      file.pieces.push({ sizeBytes: piece.length, sha256: await hashPiece(piece) });
    }
  }
}

interface FakeFile {
  written: Uint8Array;
  /** What a crash leaves. */
  flushed: Uint8Array;
  edited: boolean;
}

/** A disk that can be full, fail, and crash. */
export interface FakeDisk extends Disk {
  /** By "folder path". */
  readonly files: Map<string, FakeFile>;
  quotaBytes: number;
  /** Called before each write; what it throws, the write throws. */
  beforeWrite: (path: string) => void;
  /** Loses what was not flushed and closes all files. */
  crash(): void;
}

export function fakeDisk(): FakeDisk {
  const files = new Map<string, FakeFile>();
  const used = () => [...files.values()].reduce((sum, { written }) => sum + written.length, 0);
  const missing = (path: string) => new ZoetropeError('unreadable-source', `${path} is not there.`);
  const disk: FakeDisk = {
    files,
    quotaBytes: 1e9,
    beforeWrite: () => undefined,
    crash() {
      for (const file of files.values()) {
        file.written = file.flushed.slice();
        file.edited = false;
      }
    },
    folders: async () => [...new Set([...files.keys()].map((key) => key.split(' ')[0]!))],
    async open(folder, path) {
      const file = files.get(`${folder} ${path}`);
      if (!file) throw missing(path);
      return {
        sizeBytes: file.written.length,
        async read(begin, end) {
          if (end > file.written.length) throw missing(path);
          return file.written.slice(begin, end);
        },
      };
    },
    async edit(folder, path) {
      const key = `${folder} ${path}`;
      const file = files.get(key) ?? { written: new Uint8Array(0), flushed: new Uint8Array(0), edited: false };
      files.set(key, file);
      if (file.edited) throw new DOMException('', 'NoModificationAllowedError');
      file.edited = true;
      return {
        sizeBytes: () => file.written.length,
        read(position, buffer) {
          const bytes = file.written.subarray(position, position + buffer.length);
          buffer.set(bytes);
          return bytes.length;
        },
        write(position, bytes) {
          disk.beforeWrite(path);
          const growth = Math.max(0, position + bytes.length - file.written.length);
          if (growth > 0 && used() + growth > disk.quotaBytes) throw new DOMException('full', 'QuotaExceededError');
          if (growth > 0) {
            const longer = new Uint8Array(position + bytes.length);
            longer.set(file.written);
            file.written = longer;
          }
          file.written.set(bytes, position);
          return bytes.length;
        },
        clear() {
          file.written = new Uint8Array(0);
        },
        flush() {
          file.flushed = file.written.slice();
        },
        close() {
          file.edited = false;
        },
      };
    },
    async move(folder, path, to) {
      const file = files.get(`${folder} ${path}`);
      if (!file || file.edited) throw missing(path);
      files.delete(`${folder} ${path}`);
      files.set(`${to} ${path}`, file);
    },
    async remove(folder) {
      const keys = [...files.keys()].filter((key) => key.startsWith(`${folder} `));
      if (keys.length === 0) throw new DOMException('', 'NotFoundError');
      if (keys.some((key) => files.get(key)!.edited)) throw new DOMException('', 'NoModificationAllowedError');
      for (const key of keys) files.delete(key);
    },
    removeFile: async (folder, path) => void files.delete(`${folder} ${path}`),
    room: async () => ({ usedBytes: used(), quotaBytes: disk.quotaBytes }),
  };
  return disk;
}

/** Locks as browsers have them, within one process. */
export function fakeLocks(): StoreHost['locks'] {
  const queues = new Map<string, { shared: boolean; held: boolean; start: () => void }[]>();
  const advance = (name: string) => {
    const queue = queues.get(name) ?? [];
    for (const [i, entry] of queue.entries()) {
      const before = queue.slice(0, i);
      if (before.length > 0 && !(entry.shared && before.every(({ shared }) => shared))) break;
      if (!entry.held) entry.start();
    }
  };
  const request = async (name: string, options: LockOptions, work: (lock: Lock) => unknown): Promise<unknown> => {
    options.signal?.throwIfAborted();
    const queue = queues.get(name) ?? [];
    queues.set(name, queue);
    let start: () => void = () => undefined;
    const started = new Promise<void>((resolve) => (start = resolve));
    const entry = {
      shared: options.mode === 'shared',
      held: false,
      start() {
        entry.held = true;
        start();
      },
    };
    queue.push(entry);
    advance(name);
    const aborted = new Promise<never>((_, reject) => {
      options.signal?.addEventListener('abort', () => {
        if (!entry.held) reject(options.signal!.reason);
      });
    });
    try {
      await Promise.race([started, aborted]);
      return await work({ name, mode: options.mode ?? 'exclusive' });
    } finally {
      queue.splice(queue.indexOf(entry), 1);
      advance(name);
    }
  };
  const query = async () => ({
    held: [...queues].flatMap(([name, queue]) => queue.filter(({ held }) => held).map(() => ({ name }))),
  });
  return { request, query } as unknown as StoreHost['locks'];
}

/** Channels within one process; a message reaches every other channel of its name at once. */
export function fakeChannels(): StoreHost['channel'] {
  const channels = new Map<string, Set<Channel>>();
  return (name) => {
    const peers = channels.get(name) ?? new Set();
    channels.set(name, peers);
    const own: Channel = {
      onmessage: null,
      postMessage(data) {
        for (const peer of peers) if (peer !== own) peer.onmessage?.({ data } as MessageEvent);
      },
      close: () => void peers.delete(own),
    };
    peers.add(own);
    return own;
  };
}

/** A host whose clock moves only when somebody sleeps. */
export interface FakeHost extends StoreHost {
  disk: FakeDisk;
  /** Milliseconds of each sleep. */
  readonly sleeps: number[];
}

export function fakeHost(fetch: StoreHost['fetch'], shared?: FakeHost): FakeHost {
  let nowMs = Date.UTC(2026, 0, 1);
  const sleeps: number[] = [];
  return {
    disk: shared?.disk ?? fakeDisk(),
    locks: shared?.locks ?? fakeLocks(),
    channel: shared?.channel ?? fakeChannels(),
    fetch,
    now: () => nowMs,
    async sleep(ms) {
      sleeps.push(ms);
      nowMs += ms;
    },
    random: () => 0,
    sleeps,
  };
}

/** A request as the server saw it. */
export interface Seen {
  path: string;
  /** Undefined without a Range header. */
  range: [begin: number, end: number] | undefined;
  signal: AbortSignal | undefined;
}

/** A server of a folder with correct ranges. `alter` may answer in its place. */
export function fakeServer(
  files: ReadonlyMap<string, Uint8Array>,
  alter: (seen: Seen, proper: () => Response, index: number) => Response | Promise<Response> = (_, proper) => proper(),
): { fetch: StoreHost['fetch']; seen: Seen[] } {
  const seen: Seen[] = [];
  const fetch: StoreHost['fetch'] = async (url, init) => {
    const path = new URL(url).pathname.replace('/m/', '');
    const match = /^bytes=(\d+)-(\d+)$/.exec(new Headers(init.headers).get('Range') ?? '');
    const range = match ? ([Number(match[1]), Number(match[2]) + 1] as [number, number]) : undefined;
    const request = { path, range, signal: init.signal ?? undefined };
    seen.push(request);
    init.signal?.throwIfAborted();
    return alter(request, () => properAnswer(files.get(path), range), seen.length - 1);
  };
  return { fetch, seen };
}

function properAnswer(bytes: Uint8Array | undefined, range: Seen['range']): Response {
  if (!bytes) return new Response('', { status: 404 });
  if (!range) return new Response(bytes as Uint8Array<ArrayBuffer>, { headers: { ETag: '"1"' } });
  const headers = { ETag: '"1"', 'Content-Range': `bytes ${range[0]}-${range[1] - 1}/${bytes.length}` };
  return new Response(bytes.slice(...range), { status: 206, headers });
}

/** A body that sends `bytes` and then breaks off. */
export function brokenBody(bytes: Uint8Array): ReadableStream<Uint8Array> {
  let sent = false;
  return new ReadableStream({
    pull(controller) {
      if (!sent && bytes.length > 0) controller.enqueue(bytes.slice());
      else controller.error(new TypeError('connection reset'));
      sent = true;
    },
  });
}

/** Pieces that the disk marks as there although their bytes are not those of the model. */
export function wrongPieces(disk: FakeDisk, id: string, files: ReadonlyMap<string, Uint8Array>): number[] {
  const manifest = JSON.parse(new TextDecoder().decode(files.get(MANIFEST_FILE))) as Manifest;
  const list = listPieces(manifest);
  const journal = disk.files.get(`${id} ${JOURNAL_FILE}`)?.written ?? new Uint8Array(0);
  return list.pieces
    .filter(({ index, file, begin, end }) => {
      if (journal[index] !== DONE) return false;
      const { path } = list.files[file]!;
      const stored = disk.files.get(`${id} ${modelPath(path)}`)?.written.subarray(begin, end);
      // What is not there cannot be handed on.
      if (stored?.length !== end - begin) return false;
      return Buffer.compare(stored, files.get(path)!.subarray(begin, end)) !== 0;
    })
    .map(({ index }) => index);
}

/** Bytes that need not be fetched again: verified ones, and those of pieces on their way. */
export async function keptBytes(disk: Disk, id: string, list: PieceList): Promise<number> {
  const { journal } = await presentPieces(disk, id, list);
  const file = await disk.edit(id, ARRIVALS_FILE);
  const found = new Arrivals(file, list, LANES).found(journal);
  file.close();
  return storedBytes(list, journal) + found.reduce((sum, arrival) => sum + (arrival?.haveBytes ?? 0), 0);
}
