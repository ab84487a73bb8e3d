import { createReadStream, type Stats, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize, sep } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { messageOf, ZoetropeError } from '../errors';

/** Static files over HTTP with byte ranges: what a page and a model folder need, and no more. */

const MIME_TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.webmanifest': 'application/manifest+json',
  '.wasm': 'application/wasm', // instantiateStreaming refuses any other
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.mp4': 'video/mp4',
  '.txt': 'text/plain; charset=utf-8',
  '.md': 'text/markdown; charset=utf-8',
};

/** What to serve and where. */
export interface ServerOptions {
  /** Folders by URL prefix; each prefix begins and ends with `/`. The longest that fits a request wins. */
  folders: Readonly<Record<string, string>>;
  /** 0, the default, takes a free one. */
  port?: number;
  /** Address to listen on. Default `127.0.0.1`: this machine alone. */
  host?: string;
  /** Lets pages of other origins read the files. Default false. */
  cors?: boolean;
  /** Takes the body of a PUT to `/upload/<name>`; absent means that nothing can be written. */
  receive?: (name: string, body: IncomingMessage) => Promise<void>;
}

/** A server that listens. */
export interface StaticServer {
  /** Ends with `/`. */
  url: string;
  close(): Promise<void>;
}

/** Starts serving. Throws `unreadable-source` when the port cannot be had. */
export async function startServer(options: ServerOptions): Promise<StaticServer> {
  const { port = 0, host = '127.0.0.1' } = options;
  const server = createServer((request, response) => {
    answer(options, request, response).catch((error) => {
      // Nothing can be said once the head is out; a body that breaks off tells the client.
      if (response.headersSent) response.destroy();
      else end(response, 500, messageOf(error));
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const message = `Cannot listen on ${host} port ${port}: ${cause.message}. Choose another with --port.`;
      reject(new ZoetropeError('unreadable-source', message, { cause }));
    });
    server.listen(port, host, resolve);
  });
  const address = server.address() as AddressInfo;
  const shown = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return {
    url: `http://${shown}:${address.port}/`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(options: ServerOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (options.cors) {
    response.setHeader('Access-Control-Allow-Origin', '*');
    response.setHeader('Access-Control-Expose-Headers', 'Accept-Ranges, Content-Length, Content-Range');
  }
  const path = requestPath(request.url ?? '/');
  if (path === undefined) return end(response, 400, 'The path cannot be read.');
  if (request.method === 'OPTIONS' && options.cors) {
    response.setHeader('Access-Control-Allow-Methods', 'GET, HEAD');
    response.setHeader('Access-Control-Allow-Headers', 'Range');
    return end(response, 204);
  }
  if (request.method === 'PUT' && options.receive && path.startsWith('/upload/')) {
    await options.receive(path.slice('/upload/'.length), request);
    return end(response, 204);
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD');
    return end(response, 405, 'Only GET and HEAD are answered.');
  }
  const file = locate(options.folders, path);
  const stats = file === undefined ? undefined : fileStats(file);
  if (file === undefined || stats === undefined) return end(response, 404, `There is no ${path} here.`);
  await send(request, response, file, stats);
}

/** The decoded path of a request; undefined when it is malformed or could leave a folder on any platform. */
export function requestPath(url: string): string | undefined {
  try {
    const path = decodeURIComponent(url.replace(/[?#].*$/s, ''));
    const safe = path.startsWith('/') && !/[\0\\]|\/\.\.?(\/|$)|\/\/|:/.test(path);
    return safe ? path : undefined;
  } catch {
    return undefined;
  }
}

/** The file that a path means; a path that ends with `/` means the `index.html` there. */
function locate(folders: ServerOptions['folders'], path: string): string | undefined {
  const prefix = Object.keys(folders)
    .filter((candidate) => path.startsWith(candidate))
    .sort((a, b) => b.length - a.length)[0];
  if (prefix === undefined) return undefined;
  const folder = normalize(folders[prefix]! + sep);
  const name = path.slice(prefix.length);
  return join(folder, name === '' || name.endsWith('/') ? `${name}index.html` : name);
}

/** Undefined also for names that the disk refuses, such as long ones, and for links that lead nowhere. */
function fileStats(file: string): Stats | undefined {
  try {
    const stats = statSync(file);
    return stats.isFile() ? stats : undefined;
  } catch {
    return undefined;
  }
}

async function send(request: IncomingMessage, response: ServerResponse, file: string, stats: Stats): Promise<void> {
  const modified = stats.mtime.toUTCString();
  response.setHeader('Content-Type', MIME_TYPES[extname(file)] ?? 'application/octet-stream');
  response.setHeader('Accept-Ranges', 'bytes');
  response.setHeader('Last-Modified', modified);
  // A rebuilt page or a re-imported model must be seen, so a browser asks every time.
  response.setHeader('Cache-Control', 'no-cache');
  response.setHeader('X-Content-Type-Options', 'nosniff');
  if (request.headers['if-modified-since'] === modified && request.headers.range === undefined) {
    return end(response, 304);
  }
  const range = byteRange(rangeHeader(request, modified), stats.size);
  if (range === 'unsatisfiable') {
    response.setHeader('Content-Range', `bytes */${stats.size}`);
    return end(response, 416, 'The range lies outside the file.');
  }
  const [begin, end_] = range ?? [0, stats.size];
  response.setHeader('Content-Length', end_ - begin);
  if (range) response.setHeader('Content-Range', `bytes ${begin}-${end_ - 1}/${stats.size}`);
  response.writeHead(range ? 206 : 200);
  if (request.method === 'HEAD' || begin === end_) {
    response.end();
    return;
  }
  try {
    await pipeline(createReadStream(file, { start: begin, end: end_ - 1 }), response);
  } catch (error) {
    if (!response.destroyed) throw error; // The client went away, as it may.
  }
}

/**
 * The `Range` header where it counts: for GET alone, and with an `If-Range` only while the file is that version (RFC
 * 9110, sections 14.2 and 13.1.5). Else the whole file is the answer.
 */
function rangeHeader({ method, headers }: IncomingMessage, modified: string): string | undefined {
  const condition = headers['if-range'];
  return method === 'GET' && (condition === undefined || condition === modified) ? headers.range : undefined;
}

/**
 * A `Range` header as bytes `begin` to `end` (exclusive). Undefined for the whole file: without a header, and for
 * several ranges or other units, which a server may ignore (RFC 9110, section 14.2).
 */
export function byteRange(
  header: string | undefined,
  sizeBytes: number,
): [begin: number, end: number] | 'unsatisfiable' | undefined {
  const match = header?.match(/^bytes=(\d*)-(\d*)$/);
  if (!match || match[0] === 'bytes=-') return undefined;
  const [, first, last] = match;
  if (first === '') {
    const count = Math.min(Number(last), sizeBytes);
    return count === 0 ? 'unsatisfiable' : [sizeBytes - count, sizeBytes];
  }
  const begin = Number(first);
  const end = last === '' ? sizeBytes : Math.min(Number(last) + 1, sizeBytes);
  if (last !== '' && Number(last) < begin) return undefined; // malformed, so ignored
  return begin >= sizeBytes ? 'unsatisfiable' : [begin, end];
}

function end(response: ServerResponse, status: number, text?: string): void {
  if (text !== undefined) response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  response.statusCode = status;
  response.end(text === undefined ? undefined : `${text}\n`);
}
