import { messageOf, ZoetropeError } from '../errors';
import { hashPiece, MANIFEST_FILE, type Manifest } from '../manifest';
import type { StoreProgress } from '../protocol';
import { type Arrival, Arrivals, arrivalBytes, blockBytes, LANES } from './arrivals';
import { freeBuffer, Shuttle } from './chunks';
import {
  ARRIVALS_FILE,
  type Channel,
  type DiskFile,
  fileBytes,
  isFull,
  JOURNAL_FILE,
  noteOrigin,
  presentPieces,
  type StoreHost,
  storageFull,
  writeSmall,
} from './disk';
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
import { Reporting } from './reporting';
import { type Again, type Body, request } from './transfer';
import type { DownloadOptions } from './work';

/** Times that a piece may come with a wrong hash: a bit may flip once on its way, not thrice. */
const MAX_BAD_PIECES = 3;

/** Whole files in answer to a range until a server counts as one without ranges that had them, or may have had. */
const MAX_WHOLE_ANSWERS = 3;

/** What is downloaded. */
export interface Goal {
  id: string;
  /** With its final slash. */
  url: string;
  /** The manifest as it came. */
  bytes: Uint8Array;
  manifest: Manifest;
}

/** One of the requests at a time, with its slot on the disk. */
interface Lane {
  slot: number;
  /** One block. Kept for all blocks: garbage of this size is collected late. */
  buffer: Uint8Array;
  shuttle: Shuttle;
  /** The piece that it is at, as far as the disk has it. */
  arrival: Arrival | undefined;
  /** Bytes of the present block that are not on the disk. */
  receivedBytes: number;
}

/** One download, by the only tab that may change the model. */
export class Download {
  private readonly list: PieceList;
  private journal: Uint8Array = new Uint8Array(0);
  private readonly files: DiskFile[] = [];
  private journalFile: DiskFile | undefined;
  private arrivals: Arrivals | undefined;
  private readonly lanes: Lane[];
  private readonly fetching = new Set<number>();
  private readonly whole = new Set<number>();
  private readonly streaming = new Set<number>();
  /** Files of which ranges have come, and how often in a row the whole came instead. */
  private readonly ranged = new Set<number>();
  private readonly wholeAnswers = new Map<number, number>();
  /** ETag of each file as the first answer gave it. */
  private readonly etags = new Map<number, string>();
  private readonly failure = new AbortController();
  private readonly patience: Patience;
  private readonly reporting: Reporting;
  private doneBytes = 0;
  /** A piece on its way from its slot to the model. One at a time has it. */
  private readonly piece: Uint8Array;
  private pieceTurn: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly host: StoreHost,
    private readonly goal: Goal,
    channel: Channel,
    private readonly options: DownloadOptions,
    signal: AbortSignal,
  ) {
    this.list = listPieces(goal.manifest);
    const block = blockBytes(this.list);
    this.piece = new Uint8Array(this.list.largestBytes);
    this.lanes = Array.from({ length: LANES }, (_, slot) => {
      return { slot, buffer: new Uint8Array(block), shuttle: new Shuttle(), arrival: undefined, receivedBytes: 0 };
    });
    signal.addEventListener('abort', () => this.failure.abort(signal.reason), { once: true });
    if (signal.aborted) this.failure.abort(signal.reason);
    const what = { id: goal.id, name: goal.manifest.name, totalBytes: this.list.sizeBytes };
    this.reporting = new Reporting(host.now, what, (progress) => {
      options.onProgress(progress);
      channel.postMessage(progress);
    });
    this.patience = new Patience(host, this.failure.signal, (note) => this.report('retrying', note));
  }

  async run(): Promise<void> {
    const { disk } = this.host;
    const { id, url, bytes } = this.goal;
    const { list } = this;
    const { journal, sizes } = await presentPieces(disk, id, list);
    this.journal = journal;
    this.doneBytes = storedBytes(list, this.journal);
    if (this.doneBytes < list.sizeBytes) await this.checkRoom(sizes);
    try {
      await this.writing(async () => {
        await noteOrigin(disk, id, { url });
        await writeSmall(disk, id, MANIFEST_FILE, bytes);
        this.journalFile = await disk.edit(id, JOURNAL_FILE);
        this.journalFile.write(0, this.journal); // In place: a crash within it must not forget what is there.
        this.journalFile.flush();
        for (const { path } of list.files) this.files.push(await disk.edit(id, modelPath(path)));
        this.arrivals = new Arrivals(await disk.edit(id, ARRIVALS_FILE), list, LANES);
        for (const [slot, arrival] of this.arrivals.found(this.journal).entries()) {
          this.lanes[slot]!.arrival = arrival;
          if (arrival) this.fetching.add(arrival.piece.index);
        }
      });
      this.report('downloading');
      await this.runLanes();
      await this.writing(() => this.arrivals!.clear());
      this.report('downloading');
    } finally {
      for (const file of this.files) file.close();
      this.arrivals?.close();
      this.journalFile?.close();
      for (const { buffer } of this.lanes) freeBuffer(buffer);
      freeBuffer(this.piece);
    }
  }

  /** Throws `storage-full` when the model does not fit. */
  private async checkRoom(sizes: readonly number[]): Promise<void> {
    const { disk } = this.host;
    const presentBytes = await fileBytes(disk, this.goal.id, ARRIVALS_FILE);
    const arriving = { mostBytes: arrivalBytes(this.list, LANES), presentBytes };
    const needed = neededBytes(this.list, this.doneBytes, sizes, arriving);
    const room = await disk.room();
    if (needed > Math.max(0, room.quotaBytes - room.usedBytes)) throw storageFull(needed, room);
  }

  /** Runs the lanes; the first that fails ends the others, and its error is the download's. */
  private async runLanes(): Promise<void> {
    const lanes = this.lanes.map((lane) =>
      this.runLane(lane).catch((error: unknown) => {
        this.failure.abort(error);
        throw error;
      }),
    );
    await Promise.allSettled(lanes);
    this.failure.signal.throwIfAborted();
  }

  private async runLane(lane: Lane): Promise<void> {
    if (lane.arrival) await this.fetch(lane, lane.arrival.piece);
    for (;;) {
      this.failure.signal.throwIfAborted();
      const { journal, fetching, whole, streaming } = this;
      const work = nextWork(this.list, { journal, fetching, whole, streaming });
      if (!work) return; // What is missing is in other lanes' hands.
      if (work.kind === 'file') await this.stream(lane, work.file);
      else await this.fetch(lane, work.piece);
    }
  }

  /** Fetches a piece block by block, from where its slot ends. */
  private async fetch(lane: Lane, piece: StoredPiece): Promise<void> {
    const { index, file, begin, end } = piece;
    let bad = 0;
    let body: Body | undefined;
    this.fetching.add(index);
    lane.arrival ??= { piece, haveBytes: 0 };
    try {
      body = await this.patience.run(this.urlOf(file), async () => {
        let etag: string | null = null;
        for (let fresh = false; ; fresh = true) {
          const from = begin + lane.arrival!.haveBytes;
          if (from === end) break;
          const answer = await this.ask(lane, file, from, Math.min(end, from + lane.buffer.length));
          if (answer.kind === 'again') return { ...answer, fresh };
          if (answer.kind === 'whole') return this.judgeWhole(file, answer.body);
          ({ etag } = answer);
          this.ranged.add(file);
          this.wholeAnswers.delete(file);
          const size = Math.min(end - from, lane.buffer.length);
          const problem = await this.receive(lane, answer.body, size, true);
          if (problem) return { ...problem, fresh };
        }
        return (await this.store(lane, piece)) ? undefined : this.mismatch(lane, piece, etag, ++bad);
      });
    } finally {
      this.fetching.delete(index);
      lane.arrival = undefined;
    }
    if (!body) return;
    this.whole.add(file);
    if (this.streaming.has(file)) await body.cancel();
    else await this.stream(lane, file, body);
  }

  /**
   * The body of a server without ranges; `again` while it may be a slip, since all that is there would come a second
   * time.
   */
  private async judgeWhole(file: number, body: Body): Promise<Body | Again> {
    const count = (this.wholeAnswers.get(file) ?? 0) + 1;
    this.wholeAnswers.set(file, count);
    const present = this.list.pieces.some((piece) => piece.file === file && this.journal[piece.index] === DONE);
    if (count >= MAX_WHOLE_ANSWERS || !(present || this.ranged.has(file))) return body;
    await body.cancel();
    return { kind: 'again', why: 'answered a range with the whole file', waitMs: 0 };
  }

  /** Takes a file from its first byte on, from a server without ranges; pieces that are there are passed over. */
  private async stream(lane: Lane, file: number, opened?: Body): Promise<void> {
    const pieces = this.list.pieces.filter((piece) => piece.file === file);
    const { sizeBytes } = this.list.files[file]!;
    let bad = 0;
    this.streaming.add(file);
    try {
      await this.patience.run(this.urlOf(file), async () => {
        let body = opened;
        let etag: string | null = null;
        let from = 0;
        opened = undefined;
        if (!body) {
          // From what is missing on: the server may have ranges after all.
          const begin = pieces.find(({ index }) => this.journal[index] !== DONE)?.begin;
          if (begin === undefined) return undefined;
          const answer = await this.ask(lane, file, begin, sizeBytes);
          if (answer.kind === 'again') return answer;
          ({ body, etag } = answer);
          if (answer.kind === 'range') from = begin;
        }
        try {
          for (const piece of pieces.filter(({ begin }) => begin >= from)) {
            const problem = await this.takePiece(lane, body, piece);
            if (problem) return problem === 'bad' ? this.mismatch(lane, piece, etag, ++bad) : problem;
          }
          return await body.end();
        } finally {
          await body.cancel();
          lane.arrival = undefined;
        }
      });
    } finally {
      this.streaming.delete(file);
    }
  }

  /** The next piece of a body that holds a whole file; `bad` when its hash is wrong. */
  private async takePiece(lane: Lane, body: Body, piece: StoredPiece): Promise<Again | 'bad' | undefined> {
    const size = piece.end - piece.begin;
    if (this.journal[piece.index] === DONE) return body.skip(size);
    lane.arrival = { piece, haveBytes: 0 };
    for (let have = 0; have < size; have += lane.buffer.length) {
      const problem = await this.receive(lane, body, Math.min(size - have, lane.buffer.length), false);
      if (problem) return problem;
    }
    return (await this.store(lane, piece)) ? undefined : 'bad';
  }

  private async ask(lane: Lane, file: number, begin: number, end: number) {
    const wanted = { url: this.urlOf(file), begin, end, sizeBytes: this.list.files[file]!.sizeBytes };
    const { fetch, now } = this.host;
    const { stallMs } = this.options;
    const { shuttle } = lane;
    const answer = await request(wanted, { fetch, now, signal: this.failure.signal, stallMs, shuttle });
    if (answer.kind !== 'again' && answer.etag !== null && !this.etags.has(file)) this.etags.set(file, answer.etag);
    return answer;
  }

  /**
   * Puts the next bytes of a body into the lane's slot, also those before it breaks off. `last`: the body must end
   * behind them.
   */
  private async receive(lane: Lane, body: Body, sizeBytes: number, last: boolean): Promise<Again | undefined> {
    const block = lane.buffer.subarray(0, sizeBytes);
    let excess: Again | undefined;
    try {
      const problem = await body.fill(block, (count) => {
        lane.receivedBytes += count;
        if (this.reporting.due) this.report('downloading');
      });
      if (!problem && last) excess = await body.end();
      // A body that goes on is not what was asked for, whatever its headers say.
      if (!excess) await this.writing(() => this.keep(lane));
      return problem ?? excess;
    } catch (error) {
      // Stopped: what has come need not come again. Where that fails too, it is the first failure that is told.
      await this.writing(() => this.keep(lane)).catch(() => undefined);
      throw error;
    } finally {
      lane.receivedBytes = 0;
      if (last) await body.cancel();
    }
  }

  /** Moves what the lane has received to the disk. */
  private keep(lane: Lane): void {
    const { slot, arrival, buffer, receivedBytes } = lane;
    if (receivedBytes === 0) return;
    lane.receivedBytes = 0;
    lane.arrival = this.arrivals!.keep(slot, arrival!, buffer.subarray(0, receivedBytes));
  }

  /**
   * What to do about a piece whose hash is wrong. Throws when the file was replaced, or when it is wrong again and
   * again.
   */
  private async mismatch(lane: Lane, piece: StoredPiece, etag: string | null, bad: number): Promise<Again> {
    const { file, begin, end } = piece;
    lane.arrival = { piece, haveBytes: 0 };
    await this.writing(() => this.arrivals!.drop(lane.slot));
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

  /**
   * Verifies the piece in a lane's slot, writes it to the model, then the mark that it is there, each to the disk
   * before the next. False when its hash is wrong.
   */
  private store(lane: Lane, piece: StoredPiece): Promise<boolean> {
    const work = async (): Promise<boolean> => {
      this.failure.signal.throwIfAborted();
      const bytes = this.piece.subarray(0, piece.end - piece.begin);
      let whole = false;
      await this.writing(() => {
        whole = this.arrivals!.read(lane.slot, bytes);
      });
      if (!whole || (await hashPiece(bytes)) !== piece.sha256) return false;
      this.failure.signal.throwIfAborted();
      if (this.journal[piece.index] !== DONE) await this.writing(() => this.commit(lane, piece, bytes));
      lane.arrival = undefined;
      this.report('downloading');
      return true;
    };
    const turn = this.pieceTurn.then(work, work);
    this.pieceTurn = turn.catch(() => undefined);
    return turn;
  }

  private commit(lane: Lane, piece: StoredPiece, bytes: Uint8Array): void {
    for (const [file, position, part] of [
      [this.files[piece.file]!, piece.begin, bytes],
      [this.journalFile!, piece.index, Uint8Array.of(DONE)],
    ] as const) {
      if (file.write(position, part) < part.length) throw new DOMException('The disk is full.', 'QuotaExceededError');
      file.flush();
    }
    this.journal[piece.index] = DONE;
    this.doneBytes += bytes.length;
    this.arrivals!.drop(lane.slot);
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
    const arriving = this.lanes.reduce((sum, lane) => sum + (lane.arrival?.haveBytes ?? 0) + lane.receivedBytes, 0);
    this.reporting.tell(state, Math.min(this.list.sizeBytes, this.doneBytes + arriving), note);
  }

  private urlOf(file: number): string {
    return this.goal.url + this.list.files[file]!.path;
  }
}
