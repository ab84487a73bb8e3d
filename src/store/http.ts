import { messageOf, ZoetropeError } from '../errors';
import { type ByteSource, checkPath, type Folder } from '../manifest';
import { chunksOf, discard, fillFrom, Shuttle } from './chunks';

/** Largest file that is kept whole when its server does not answer ranges. */
const MAX_WHOLE_BYTES = 64 * 1024 * 1024;

/** `fetch` of the host. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

function unreadable(url: string, why: string, cause?: unknown): ZoetropeError {
  // Without its query, which may be a signature that nobody else should see.
  return new ZoetropeError(
    'unreadable-source',
    `${url.replace(/\?.*$/s, '')} ${why}`,
    cause === undefined ? {} : { cause },
  );
}

/** `bytes 0-0/1234` to numbers; undefined for anything else, an unknown total included. */
export function parseContentRange(value: string | null): { begin: number; end: number; total: number } | undefined {
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(value?.trim() ?? '');
  if (!match) return undefined;
  const [begin, last, total] = match.slice(1).map(Number) as [number, number, number];
  return { begin, end: last + 1, total };
}

/** Reads a body to its end, refusing more than `limitBytes` before holding it. */
async function readBody(url: string, response: Response, limitBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let sizeBytes = 0;
  const chunks = response.body && chunksOf(response.body, new Shuttle());
  try {
    for (;;) {
      const { value } = (await chunks?.read()) ?? {};
      if (!value) break;
      sizeBytes += value.length;
      if (sizeBytes > limitBytes) {
        await chunks!.cancel();
        throw unreadable(url, `sent more than the ${limitBytes} bytes expected.`);
      }
      parts.push(value.slice());
    }
  } catch (error) {
    if (error instanceof ZoetropeError) throw error;
    throw brokenOff(url, error);
  }
  const bytes = new Uint8Array(sizeBytes);
  let filled = 0;
  for (const part of parts) {
    bytes.set(part, filled);
    filled += part.length;
  }
  return bytes;
}

function brokenOff(url: string, error: unknown): ZoetropeError {
  return unreadable(url, `broke off: ${messageOf(error)}. Try again.`, error);
}

/** A file on a server that answers Range requests. */
class RangedFile implements ByteSource {
  readonly #shuttles: Shuttle[] = [];

  constructor(
    private readonly request: (range: string) => Promise<Response>,
    private readonly url: string,
    readonly sizeBytes: number,
    /** See {@link versionOf}; undefined where any will do. */
    private readonly version: Version | undefined,
  ) {}

  async read(begin: number, end: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(end - begin);
    await this.readInto(begin, bytes);
    return bytes;
  }

  async readInto(begin: number, buffer: Uint8Array): Promise<void> {
    const end = begin + buffer.length;
    if (begin === end) return;
    const response = await this.request(`bytes=${begin}-${end - 1}`);
    const now = versionOf(response);
    const told = this.version?.findIndex((was, i) => was !== null && now[i] !== null) ?? -1;
    if (told >= 0 && this.version![told] !== now[told]) {
      await discard(response);
      const versions = `${this.version![told]}, now ${now[told]}`;
      throw unreadable(this.url, `was replaced while it was read (${versions}). Start again.`);
    }
    if (response.status === 206) {
      const range = parseContentRange(response.headers.get('Content-Range'));
      if (range && (range.begin !== begin || range.end !== end || range.total !== this.sizeBytes)) {
        await discard(response);
        throw unreadable(
          this.url,
          `answered bytes ${range.begin} to ${range.end} of ${range.total}; ${begin} to ${end} of ${this.sizeBytes} were asked for. If the file has changed, load the model again.`,
        );
      }
      return this.#fill(response, begin, buffer);
    }
    // A server may stop honouring ranges, a cache in between for instance. The part asked for is still in the answer.
    const bytes = await readBody(this.url, response, Math.min(this.sizeBytes, MAX_WHOLE_BYTES));
    if (bytes.length !== this.sizeBytes) {
      throw unreadable(this.url, `sent ${bytes.length} bytes; the file has ${this.sizeBytes}.`);
    }
    buffer.set(bytes.subarray(begin, end));
  }

  async #fill(response: Response, begin: number, buffer: Uint8Array): Promise<void> {
    const shuttle = this.#shuttles.pop() ?? new Shuttle();
    const empty = { filled: 0, longer: false };
    const result = await (response.body ? fillFrom(response.body, buffer, shuttle) : Promise.resolve(empty)).catch(
      (error: unknown) => {
        throw brokenOff(this.url, error);
      },
    );
    this.#shuttles.push(shuttle);
    if (result.longer) throw unreadable(this.url, `sent more than the ${buffer.length} bytes expected.`);
    if (result.filled === buffer.length) return;
    const range = `${begin} to ${begin + buffer.length}`;
    throw unreadable(this.url, `sent ${result.filled} bytes for the range ${range}. Try again.`);
  }
}

/**
 * What tells one version of a file from another: its ETag, else its date, each null where an answer does not show it.
 */
type Version = readonly (string | null)[];

function versionOf({ headers }: Response): Version {
  // A server that packs, or a cache, may call the same bytes by a weak name.
  return [headers.get('ETag')?.replace(/^W\//, '') ?? null, headers.get('Last-Modified')];
}

/** Sends a GET and refuses every status that holds no bytes of the file. */
async function get(fetch: Fetch, url: string, range: string, signal: AbortSignal | undefined): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { headers: { Range: range }, ...(signal && { signal }) });
  } catch (error) {
    if (signal?.aborted) throw new ZoetropeError('aborted', `Reading ${url} was cancelled.`, { cause: error });
    if (error instanceof ZoetropeError) throw error;
    throw unreadable(url, `cannot be reached: ${messageOf(error)}.`, error);
  }
  if (response.status === 200 || response.status === 206 || response.status === 416) return response;
  await discard(response);
  const hint = response.status === 404 ? ' Check the address of the model folder.' : '';
  throw unreadable(url, `answered ${response.status} ${response.statusText}.${hint}`);
}

async function openUrl(url: string, options: HttpOptions): Promise<ByteSource> {
  const { fetch = (url, init) => globalThis.fetch(url, init), signal, unchanged } = options;
  const request = (range: string) => get(fetch, url, range, signal);
  const response = await request('bytes=0-0');
  if (response.status === 206) {
    await discard(response);
    const range = parseContentRange(response.headers.get('Content-Range'));
    if (!range) {
      // Across origins the header shows only if the server exposes it.
      throw unreadable(url, 'answered a range without a readable Content-Range. The server must expose that header.');
    }
    return new RangedFile(request, url, range.total, unchanged ? versionOf(response) : undefined);
  }
  if (response.status === 416) {
    // Only an empty file has no byte 0.
    await discard(response);
    return { sizeBytes: 0, read: async () => new Uint8Array(0) };
  }
  const stated = Number(response.headers.get('Content-Length') ?? 0);
  if (stated > MAX_WHOLE_BYTES) {
    await discard(response);
    throw unreadable(
      url,
      `has ${stated} bytes and its server does not answer Range requests, which files above ${MAX_WHOLE_BYTES} bytes need.`,
    );
  }
  const bytes = await readBody(url, response, MAX_WHOLE_BYTES);
  return { sizeBytes: bytes.length, read: async (begin, end) => bytes.subarray(begin, end) };
}

export interface HttpOptions {
  /** Default: the global `fetch`. */
  fetch?: Fetch;
  signal?: AbortSignal | undefined;
  /**
   * Refuse a file that is replaced between two reads, by its ETag or date: for files that no hash vouches for. Default
   * false, since servers behind one address may name the same file differently.
   */
  unchanged?: boolean;
}

/**
 * A file on a web server, as a file of {@link httpFolder}.
 * @param url whole, with whatever query the server wants.
 */
export function httpFile(url: string, options: HttpOptions = {}): Promise<ByteSource> {
  return openUrl(url.replace(/#.*$/s, ''), options);
}

/**
 * A folder on a web server, read by Range requests. Where the server answers with the whole file instead, files up to
 * 64 MiB are kept whole and larger ones refused. Every answer must have the length asked for; what the bytes are worth
 * is for hashes to say.
 * @param base URL of the folder, with or without the final slash; a query, an access token for instance, is sent for
 * every file.
 */
export function httpFolder(base: string, options: HttpOptions = {}): Folder {
  const [, path, query] = /^([^?#]*)(\?[^#]*)?/s.exec(base) as unknown as [string, string, string | undefined];
  const root = path.endsWith('/') ? path : `${path}/`;
  return {
    open: (name) => httpFile(root + checkPath(name, 'The model') + (query ?? ''), options),
  };
}
