import {
  CLAIM,
  type Offer,
  type PageMessage,
  PROXY_PATH,
  requestIdOf,
  targetOf,
  type WorkerMessage,
} from '../src/fal/proxy';
import type { RestRequest } from '../src/fal/rest';

/**
 * The service worker that answers fal's queue API under a path of this site, so that the official client runs against
 * the engine in a page. It holds no state, since browsers end it whenever they like: every request is handed to the
 * page that has the engine.
 */

/** How long pages have to accept a request, in milliseconds. They answer within a task of theirs, 50 ms at most. */
const ACCEPT_MS = 3000;
/** How much longer another page may take than one that defers. */
const DEFER_MS = 300;

/** What TypeScript's DOM library lacks of the service worker's scope. */
interface Extendable extends Event {
  waitUntil(done: Promise<unknown>): void;
}
interface FetchLike extends Extendable {
  readonly request: Request;
  readonly clientId: string;
  respondWith(response: Promise<Response>): void;
}
interface WindowClient {
  readonly id: string;
  postMessage(message: Offer, transfer: Transferable[]): void;
}
interface Scope {
  readonly registration: { readonly scope: string };
  readonly clients: {
    matchAll(options: { type: 'window'; includeUncontrolled: boolean }): Promise<WindowClient[]>;
    claim(): Promise<void>;
  };
  skipWaiting(): Promise<void>;
  addEventListener(type: 'install' | 'activate', listener: (event: Extendable) => void): void;
  addEventListener(type: 'message', listener: (event: Extendable & { readonly data: unknown }) => void): void;
  addEventListener(type: 'fetch', listener: (event: FetchLike) => void): void;
}

const scope = globalThis as unknown as Scope;
const proxyUrl = new URL(PROXY_PATH, scope.registration.scope).href;

scope.addEventListener('install', (event) => event.waitUntil(scope.skipWaiting()));
scope.addEventListener('activate', (event) => event.waitUntil(scope.clients.claim()));
scope.addEventListener('message', (event) => {
  if (event.data === CLAIM) event.waitUntil(scope.clients.claim());
});
scope.addEventListener('fetch', (event) => {
  const { request, clientId } = event;
  const target = targetOf(proxyUrl, request.url, Object.fromEntries(request.headers));
  if (target !== undefined) event.respondWith(forward(request, target, clientId));
});

async function forward(request: Request, target: string, clientId: string): Promise<Response> {
  const body = await request.text();
  const message: RestRequest = {
    method: request.method,
    url: target,
    headers: Object.fromEntries(request.headers),
    body,
  };
  const port = await findPage({ type: 'zoetrope-fal-offer', requestId: requestIdOf(target) }, clientId);
  return port ? respond(port, message) : unavailable('No page of this site has an engine for this request.');
}

/** The client tries again on 503, so a page that is still opening its model is found. */
function unavailable(why: string): Response {
  return Response.json({ detail: `${why} Keep the page that called serveFal open.` }, { status: 503 });
}

/** The port to the first page that accepts; the asking page is offered first. */
async function findPage(offer: Offer, clientId: string): Promise<MessagePort | undefined> {
  const pages = await scope.clients.matchAll({ type: 'window', includeUncontrolled: true });
  pages.sort((a, b) => Number(b.id === clientId) - Number(a.id === clientId));
  const ports: MessagePort[] = [];
  const accepted = new Promise<MessagePort>((resolve) => {
    for (const page of pages) {
      const { port1, port2 } = new MessageChannel();
      ports.push(port1);
      port1.onmessage = ({ data }: MessageEvent<PageMessage>) => {
        if (data.type === 'accept') resolve(port1);
        else setTimeout(() => resolve(port1), DEFER_MS);
      };
      page.postMessage(offer, [port2]);
    }
  });
  const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), ACCEPT_MS));
  const chosen = await Promise.race([accepted, late]);
  for (const port of ports) if (port !== chosen) port.close();
  return chosen;
}

/** Sends the request and gives the response as soon as its head is there; the body follows as the page makes it. */
function respond(port: MessagePort, request: RestRequest): Promise<Response> {
  const say = (message: WorkerMessage) => port.postMessage(message);
  return new Promise((resolve) => {
    let controller: ReadableStreamDefaultController<Uint8Array>;
    const encoder = new TextEncoder();
    const body = new ReadableStream<Uint8Array>({
      start(made) {
        controller = made;
      },
      cancel() {
        say({ type: 'leave' });
        port.close();
      },
    });
    port.onmessage = ({ data }: MessageEvent<PageMessage>) => {
      if (data.type === 'head') resolve(new Response(body, { status: data.status, headers: data.headers }));
      else if (data.type === 'chunk') controller.enqueue(encoder.encode(data.text));
      else if (data.type === 'gone') {
        const why = 'The page that had the engine was closed.';
        resolve(unavailable(why));
        controller.error(new Error(why));
        port.close();
      } else if (data.type === 'end') {
        controller.close();
        port.close();
      }
    };
    say({ type: 'request', request });
  });
}
