import { messageOf, ZoetropeError } from '../src/errors';
import { CLAIM, type Offer, type PageMessage, PROXY_PATH, type WorkerMessage } from '../src/fal/proxy';
import { type Generator, Queue } from '../src/fal/queue';
import { answer, type RestRequest } from '../src/fal/rest';
import serviceUrl from './service?worker&url';

/** The page's side of the service worker: registers it and answers what it hands over. */

/** How to serve. */
export interface ServeFalOptions {
  /**
   * URL of the loader `service.js`, which decides the scope: a service worker sees pages in its own folder and below.
   * Default: `service.js` beside the page.
   */
  loader?: string;
}

/** A running proxy. */
export interface FalProxy {
  /** For `fal.config({ proxyUrl })` of `@fal-ai/client`. */
  readonly proxyUrl: string;
  /** Ends it for this page. The service worker stays registered, for other pages. */
  close(): void;
}

/**
 * Answers fal's queue API for this endpoint under `api/fal/proxy` of this site, by the given engine, as long as this
 * page is open. Requests to other endpoints are refused; nothing is sent on. Throws `unsupported-device` where there
 * are no service workers, `unreadable-source` without the loader, and `bad-request` where the loader lies in a folder
 * that this page is not below.
 */
export async function serveFal(generator: Generator, options: ServeFalOptions = {}): Promise<FalProxy> {
  const container: ServiceWorkerContainer | undefined = navigator.serviceWorker;
  if (!container) {
    throw new ZoetropeError(
      'unsupported-device',
      'This page has no service workers. Open it over https:// or from localhost, outside private windows of Firefox.',
    );
  }
  const loader = new URL(options.loader ?? 'service.js', document.baseURI);
  loader.searchParams.set('script', new URL(serviceUrl, document.baseURI).href);
  const { scope } = await container.register(loader).catch((cause: unknown) => {
    throw new ZoetropeError(
      'unreadable-source',
      `The service worker cannot be started from ${loader.pathname}: ${messageOf(cause)} Put service.js of this package there.`,
      { cause },
    );
  });
  if (!location.href.startsWith(scope)) {
    throw new ZoetropeError(
      'bad-request',
      `A service worker of ${loader.pathname} sees pages below ${scope} only, and this one is ${location.href}. Put service.js beside this page or above it.`,
    );
  }
  const proxyUrl = new URL(PROXY_PATH, scope).href;
  const queue = new Queue({
    generator,
    now: Date.now,
    newId: () => crypto.randomUUID(),
    baseUrl: proxyUrl,
  });
  const listen = (event: MessageEvent<Offer>) => {
    const [port] = event.ports;
    const { data } = event;
    if (data?.type !== 'zoetrope-fal-offer' || !port) return;
    const ours = data.requestId === null || queue.has(data.requestId);
    if (ours) event.stopImmediatePropagation(); // of the engines that this page serves one answers
    serve(port, queue, ours ? 'accept' : 'defer');
  };
  container.addEventListener('message', listen);
  container.startMessages();
  await controlled(container);
  return { proxyUrl, close: () => container.removeEventListener('message', listen) };
}

/**
 * Resolves when the service worker sees this page's requests; the first visit is not under its control from the start,
 * and neither is a page that was reloaded past all caches, which has to ask for it.
 */
async function controlled(container: ServiceWorkerContainer): Promise<void> {
  const { active } = await container.ready;
  if (container.controller) return;
  const changed = new Promise((resolve) => container.addEventListener('controllerchange', resolve, { once: true }));
  active?.postMessage(CLAIM);
  await changed;
}

/** Replies to an offer and answers the one request that may come on its port. */
function serve(port: MessagePort, queue: Queue, reply: 'accept' | 'defer'): void {
  const say = (message: PageMessage) => port.postMessage(message);
  const gone = () => say({ type: 'gone' });
  let left = false;
  port.onmessage = ({ data }: MessageEvent<WorkerMessage>) => {
    if (data.type === 'leave') left = true;
    else {
      addEventListener('pagehide', gone);
      void send(data.request).finally(() => {
        removeEventListener('pagehide', gone);
        say({ type: 'end' }); // whatever happens, nobody waits for more
      });
    }
  };
  say({ type: reply });

  async function send(request: RestRequest): Promise<void> {
    const { status, headers, body } = await answer(queue, request);
    say({ type: 'head', status, headers });
    if (typeof body === 'string') return say({ type: 'chunk', text: body });
    for await (const text of body) {
      if (left) return;
      say({ type: 'chunk', text });
    }
  }
}
