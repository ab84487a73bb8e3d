import { messageOf, ZoetropeError } from '../errors';
import { hashPiece, MANIFEST_FILE, type Manifest } from '../manifest';
import type { StoreProgress } from '../protocol';
import {
  type Channel,
  changeLock,
  type DiskFile,
  isFull,
  JOURNAL_FILE,
  presentPieces,
  SOURCE_FILE,
  type StoreHost,
  storageFull,
  writeSmall,
} from './disk';
import { MAX_MANIFEST_BYTES, parseManifest } from './manifest-reader';
import { Patience } from './patience';
import {
  DONE,
  listPieces,
  modelPath,
  neededBytes,
  nextWork,
  type PieceList,
  type StoredPiece,
  storedBytes,
} from './pieces';
import { Pace } from './retry';
import { type Again, type Body, request, requestSmall, type TransferOptions } from './transfer';

/** Pieces fetched at once. Each holds a buffer of at most 16 MiB, so that a download takes 64 MiB of memory. */
const LANES = 4;

/** Pace at which progress is told while bytes come in. */
const REPORT_MS = 100;

/** Requests for a piece whose hash was wrong: a bit may flip once on its way, not thrice. */
const MAX_BAD_PIECES = 3;

/** How work on the store is watched and stopped. */
export interface StoreWork {
  signal: AbortSignal;
  onProgress(progress: StoreProgress): void;
}

export interface DownloadOptions extends StoreWork {
  /** See {@link TransferOptions.stallMs}. */
  stallMs?: number;
  /** Refuse any other model at the URL. */
  id?: string;
}

/** URL of a model folder with its final slash, also from the URL of its manifest. Throws `unreadable-source` for other schemes. */
export function folderUrl(url: string): string {
  const plain = url.replace(/[?#].*$/s, '').replace(/\/?(zoetrope\.json)?$/, '/');
  if (/^https?:\/\/./i.test(plain)) return plain;
  throw new ZoetropeError('unreadable-source', `A model has an http or https address, got ${JSON.stringify(url)}.`);
}

/** What the caller is told who stops work on the store. */
export function stopped(): ZoetropeError {
  return new ZoetropeError('aborted', 'The work on the stored model was stopped. What is there stays.');
}

/** Holds the lock of a model while `work` runs. Waits for whoever has it, until the signal. */
export async function holding<T>(host: StoreHost, id: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  if (signal.aborted) throw stopped();
  try {
    return await host.locks.request(changeLock(id), { signal }, work);
  } catch (error) {
    if (signal.aborted && !(error instanceof ZoetropeError)) throw stopped();
    throw error;
  }
}

/**
 * Downloads a model folder into the store, or continues to, and gives its id. Each piece is written only after its hash matched
 * and marked as there only after it was written, so that it can be interrupted anywhere. Where another tab downloads the same
 * model, waits for it and reports its progress.
 *
 * Throws `storage-full` before the first byte when the model does not fit, `unreadable-source`, `bad-checkpoint` or
 * `corrupt-data` for what the server sends, `aborted` at the signal.
 */
export async function downloadModel(host: StoreHost, address: string, options: DownloadOptions): Promise<string> {
  const { signal, onProgress } = options;
  const url = folderUrl(address);
  const patience = new Patience(host, signal, () => undefined);
  const bytes = await stoppable(signal, (inner) =>
    patience.run(url + MANIFEST_FILE, () =>
      requestSmall(url + MANIFEST_FILE, MAX_MANIFEST_BYTES, transferOptions(host, inner, options)),
    ),
  );
  const manifest = parseManifest(bytes);
  const id = await hashPiece(bytes);
  if (options.id !== undefined && options.id !== id) {
    throw new ZoetropeError(
      'corrupt-data',
      `${url} holds another model by now ("${manifest.name}"), so the stored one cannot be completed from there. Download it as a new one and delete the old.`,
    );
  }
  const channel = host.channel(changeLock(id));
  try {
    channel.onmessage = ({ data }) => {
      const note = 'Another tab of this page downloads this model.';
      onProgress({ ...(data as StoreProgress), state: 'waiting', note });
    };
    await holding(host, id, signal, async () => {
      channel.onmessage = null;
      await stoppable(signal, (inner) =>
        new Download(host, { id, url, bytes, manifest }, channel, options, inner).run(),
      );
    });
  } finally {
    channel.close();
  }
  return id;
}

function transferOptions(host: StoreHost, signal: AbortSignal, { stallMs }: DownloadOptions): TransferOptions {
  return { fetch: host.fetch, now: host.now, signal, stallMs };
}

/** Runs work with a signal of its own that carries our error as its reason, whatever the caller's carries. */
async function stoppable<T>(signal: AbortSignal, work: (inner: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = () => controller.abort(stopped());
  signal.addEventListener('abort', stop, { once: true });
  try {
    if (signal.aborted) throw stopped();
    return await work(controller.signal);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** What is downloaded. */
interface Goal {
  id: string;
  /** With its final slash. */
  url: string;
  /** The manifest as it came. */
  bytes: Uint8Array;
  manifest: Manifest;
}

/** One download, by the only tab that may change the model. */
class Download {
  private readonly list: PieceList;
  private journal: Uint8Array = new Uint8Array(0);
  private readonly files: DiskFile[] = [];
  private journalFile: DiskFile | undefined;
  private readonly fetching = new Set<number>();
  private readonly whole = new Set<number>();
  private readonly streaming = new Set<number>();
  /** ETag of each file as the first answer gave it. */
  private readonly etags = new Map<number, string>();
  private readonly failure = new AbortController();
  private readonly patience: Patience;
  private readonly pace = new Pace();
  private doneBytes = 0;
  /** Bytes of pieces that are on their way. */
  private arrivingBytes = 0;
  private reportedMs = 0;

  constructor(
    private readonly host: StoreHost,
    private readonly goal: Goal,
    private readonly channel: Channel,
    private readonly options: DownloadOptions,
    signal: AbortSignal,
  ) {
    this.list = listPieces(goal.manifest);
    signal.addEventListener('abort', () => this.failure.abort(signal.reason), { once: true });
    if (signal.aborted) this.failure.abort(signal.reason);
    this.patience = new Patience(host, this.failure.signal, (note) => this.report('retrying', note));
  }

  async run(): Promise<void> {
    const { disk } = this.host;
    const { id, url, bytes } = this.goal;
    const { list } = this;
    const { journal, sizes } = await presentPieces(disk, id, list);
    this.journal = journal;
    this.doneBytes = storedBytes(list, this.journal);
    const room = await disk.room();
    const needed = neededBytes(list, sizes);
    if (needed > Math.max(0, room.quotaBytes - room.usedBytes)) throw storageFull(needed, room);
    try {
      await this.writing(async () => {
        await writeSmall(disk, id, SOURCE_FILE, new TextEncoder().encode(JSON.stringify({ url })));
        await writeSmall(disk, id, MANIFEST_FILE, bytes);
        this.journalFile = await disk.edit(id, JOURNAL_FILE);
        this.journalFile.write(0, this.journal); // In place: a crash within it must not forget what is there.
        this.journalFile.flush();
        for (const { path } of list.files) this.files.push(await disk.edit(id, modelPath(path)));
      });
      this.report('downloading');
      await this.lanes();
      this.report('downloading');
    } finally {
      for (const file of this.files) file.close();
      this.journalFile?.close();
    }
  }

  /** Runs the lanes; the first that fails ends the others, and its error is the download's. */
  private async lanes(): Promise<void> {
    const lanes = Array.from({ length: LANES }, () =>
      this.lane().catch((error: unknown) => {
        this.failure.abort(error);
        throw error;
      }),
    );
    await Promise.allSettled(lanes);
    this.failure.signal.throwIfAborted();
  }

  private async lane(): Promise<void> {
    // One for all pieces of a lane: garbage of this size is collected late.
    const buffer = new Uint8Array(this.list.largestBytes);
    for (;;) {
      this.failure.signal.throwIfAborted();
      const { journal, fetching, whole, streaming } = this;
      const work = nextWork(this.list, { journal, fetching, whole, streaming });
      if (!work) return; // What is missing is in other lanes' hands.
      if (work.kind === 'file') await this.stream(work.file, buffer);
      else await this.piece(work.piece, buffer);
    }
  }

  private async piece(piece: StoredPiece, buffer: Uint8Array): Promise<void> {
    const { index, file, begin, end } = piece;
    const bytes = buffer.subarray(0, end - begin);
    let bad = 0;
    this.fetching.add(index);
    let body: Body | undefined;
    try {
      body = await this.patience.run(this.urlOf(file), async () => {
        const answer = await this.ask(file, begin, end);
        if (answer.kind === 'again') return answer;
        if (answer.kind === 'whole') return answer.body;
        const { etag } = answer;
        const problem = await this.receive(answer.body, bytes, true);
        if (problem) return problem;
        if ((await hashPiece(bytes)) !== piece.sha256) return this.mismatch(piece, etag, ++bad);
        await this.commit(piece, bytes);
        return undefined;
      });
    } finally {
      this.fetching.delete(index);
    }
    if (!body) return;
    this.whole.add(file);
    if (this.streaming.has(file)) await body.cancel();
    else await this.stream(file, buffer, body);
  }

  /** Takes a file from its first byte on, from a server without ranges; pieces that are there are passed over. */
  private async stream(file: number, buffer: Uint8Array, opened?: Body): Promise<void> {
    const pieces = this.list.pieces.filter((piece) => piece.file === file);
    const { sizeBytes } = this.list.files[file]!;
    let bad = 0;
    this.streaming.add(file);
    try {
      await this.patience.run(this.urlOf(file), async () => {
        let body = opened;
        let etag: string | null = null;
        opened = undefined;
        if (!body) {
          const answer = await this.ask(file, 0, sizeBytes);
          if (answer.kind === 'again') return answer;
          ({ body, etag } = answer);
        }
        try {
          for (const piece of pieces) {
            const bytes = buffer.subarray(0, piece.end - piece.begin);
            const problem = await this.receive(body, bytes, piece === pieces.at(-1));
            if (problem) return problem;
            if (this.journal[piece.index] === DONE) continue;
            if ((await hashPiece(bytes)) !== piece.sha256) return this.mismatch(piece, etag, ++bad);
            await this.commit(piece, bytes);
          }
        } finally {
          await body.cancel();
        }
        return undefined;
      });
    } finally {
      this.streaming.delete(file);
    }
  }

  private async ask(file: number, begin: number, end: number) {
    const wanted = { url: this.urlOf(file), begin, end, sizeBytes: this.list.files[file]!.sizeBytes };
    const answer = await request(wanted, transferOptions(this.host, this.failure.signal, this.options));
    if (answer.kind !== 'again' && answer.etag !== null && !this.etags.has(file)) this.etags.set(file, answer.etag);
    return answer;
  }

  /** Fills the buffer, counting what comes. The last part of a body must be its end. */
  private async receive(body: Body, buffer: Uint8Array, last: boolean): Promise<Again | undefined> {
    let received = 0;
    try {
      const problem = await body.fill(buffer, (count) => {
        received += count;
        this.arrivingBytes += count;
        if (this.host.now() - this.reportedMs >= REPORT_MS) this.report('downloading');
      });
      return problem ?? (last ? await body.end() : undefined);
    } finally {
      this.arrivingBytes -= received;
      if (last) await body.cancel();
    }
  }

  /** What to do about a piece whose hash is wrong. Throws when the file was replaced, or when it is wrong again and again. */
  private mismatch({ file, begin, end }: StoredPiece, etag: string | null, bad: number): Again {
    const url = this.urlOf(file);
    const first = this.etags.get(file);
    const replaced = etag !== null && first !== undefined && etag !== first;
    const why = `sent bytes ${begin} to ${end} with another SHA-256 than ${MANIFEST_FILE} states`;
    if (replaced || bad === MAX_BAD_PIECES) {
      const reason = replaced
        ? `its ETag changed from ${first} to ${etag}, so the file was replaced meanwhile. Download the model again once its publisher is done.`
        : `${bad} times. What is there stays; ask the model's publisher.`;
      throw new ZoetropeError('corrupt-data', `${url} ${why}: ${reason}`);
    }
    return { kind: 'again', why, waitMs: 0 };
  }

  /** Writes a verified piece, then the mark that it is there, each to the disk before the next. */
  private async commit(piece: StoredPiece, bytes: Uint8Array): Promise<void> {
    this.failure.signal.throwIfAborted();
    if (this.journal[piece.index] === DONE) return;
    await this.writing(() => {
      for (const [file, position, part] of [
        [this.files[piece.file]!, piece.begin, bytes],
        [this.journalFile!, piece.index, Uint8Array.of(DONE)],
      ] as const) {
        if (file.write(position, part) < part.length) throw new DOMException('The disk is full.', 'QuotaExceededError');
        file.flush();
      }
      this.journal[piece.index] = DONE;
      this.doneBytes += bytes.length;
    });
    this.report('downloading');
  }

  /** Gives what the disk throws its name. */
  private async writing(work: () => void | Promise<void>): Promise<void> {
    try {
      await work();
    } catch (cause) {
      if (isFull(cause)) {
        throw storageFull(this.list.sizeBytes - this.doneBytes, await this.host.disk.room());
      }
      throw new ZoetropeError('storage-unavailable', `The browser's storage failed: ${messageOf(cause)}.`, { cause });
    }
  }

  private report(state: StoreProgress['state'], note = ''): void {
    const { id, manifest } = this.goal;
    const now = this.host.now();
    const doneBytes = this.doneBytes + this.arrivingBytes;
    this.reportedMs = now;
    this.pace.add(now, doneBytes);
    const bytesPerSecond = this.pace.bytesPerSecond();
    const remainingMs = bytesPerSecond ? ((this.list.sizeBytes - doneBytes) * 1000) / bytesPerSecond : null;
    const totalBytes = this.list.sizeBytes;
    const progress = { id, name: manifest.name, state, doneBytes, totalBytes, bytesPerSecond, remainingMs, note };
    this.options.onProgress(progress);
    this.channel.postMessage(progress);
  }

  private urlOf(file: number): string {
    return this.goal.url + this.list.files[file]!.path;
  }
}
