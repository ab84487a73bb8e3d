import type { RestRequest } from './rest';

/** What crosses between the service worker that stands in for fal's servers and the page that holds the engine. */

/** Where fal's own proxy guides put the proxy, relative to the service worker's scope. */
export const PROXY_PATH = 'api/fal/proxy';

/** Page to service worker: see my requests, though I was loaded past you. */
export const CLAIM = 'zoetrope-fal-claim';

/** Service worker to page, with a port: would you take a request? */
export interface Offer {
  type: 'zoetrope-fal-offer';
  /** A request that only the page that has it can answer; null for a new one. */
  requestId: string | null;
}

/**
 * Page to service worker, on the offer's port. A page with an engine accepts or, when the request is not its own,
 * defers: it answers if no other page does, and says that there is no such request. Pages without an engine are silent.
 * `gone`: the page is being closed in the middle of an answer.
 */
export type PageMessage =
  | { type: 'accept' | 'defer' }
  | { type: 'head'; status: number; headers: Record<string, string> }
  | { type: 'chunk'; text: string }
  | { type: 'end' }
  | { type: 'gone' };

/** Service worker to page, on the same port. `leave`: whoever asked has gone. */
export type WorkerMessage = { type: 'request'; request: RestRequest } | { type: 'leave' };

/** The header by which fal's clients tell a proxy where a request was to go; `@fal-ai/client`, `middleware.js`. */
const TARGET_HEADER = 'x-fal-target-url';

/**
 * The hosted address that a request to the proxy means: its header, or the path behind the proxy's own, so that the
 * addresses in a status can be fetched too. Undefined for requests that are none of the proxy's.
 *
 * @param proxyUrl absolute, without a final slash.
 */
export function targetOf(proxyUrl: string, url: string, headers: Readonly<Record<string, string>>): string | undefined {
  const [path, search = ''] = url.split('#')[0]!.split(/(?=\?)/, 2) as [string, string?];
  if (path !== proxyUrl && !path.startsWith(`${proxyUrl}/`)) return undefined;
  return headers[TARGET_HEADER] ?? `https://queue.fal.run${path.slice(proxyUrl.length)}${search}`;
}

/** The id in an address of the hosted API, or null. */
export function requestIdOf(target: string): string | null {
  return /\/requests\/([\w-]+)/.exec(target)?.[1] ?? null;
}
