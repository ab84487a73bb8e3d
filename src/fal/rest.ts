import { messageOf } from '../errors';
import { APPLICATION_ID, ENDPOINT_ID } from './endpoint';
import type { Queue } from './queue';
import type { QueueStatus } from './status';

/**
 * The queue's REST API over a {@link Queue}: what the hosted `queue.fal.run` and `fal.run` answer for this endpoint.
 */

/** A request to the hosted API that reaches us instead. */
export interface RestRequest {
  method: string;
  /** The hosted address, e.g. `https://queue.fal.run/fal-ai/wan/v2.2-a14b/text-to-video`. */
  url: string;
  /** Names in lower case. */
  headers: Readonly<Record<string, string>>;
  body: string;
}

/** An answer; a body that is a sequence is sent as it comes. */
export interface RestResponse {
  status: number;
  headers: Record<string, string>;
  body: string | AsyncIterable<string>;
}

/** What an address means. `run` waits for the result, `submit` does not. */
export type Route =
  | { action: 'submit' | 'run' }
  | { action: 'status' | 'stream' | 'result' | 'cancel'; id: string; logs: boolean }
  | { action: 'refuse'; status: 404 | 405; message: string };

const METHODS = { submit: 'POST', run: 'POST', status: 'GET', stream: 'GET', result: 'GET', cancel: 'PUT' } as const;

/**
 * Reads an address of the hosted API. Addresses of a request may hold the endpoint's whole name or only its first two
 * parts.
 */
export function route(method: string, address: string): Route {
  const refuse = (status: 404 | 405, message: string): Route => ({ action: 'refuse', status, message });
  const url = parsed(address);
  if (url?.protocol !== 'https:' || (url.host !== 'queue.fal.run' && url.host !== 'fal.run')) {
    return refuse(404, `Only queue.fal.run and fal.run are answered here, and nothing is sent on; got ${address}.`);
  }
  const path = url.pathname.replace(/^\/+|\/+$/g, '');
  const queued = url.host === 'queue.fal.run';
  let found: Route;
  if (path === ENDPOINT_ID) found = { action: queued ? 'submit' : 'run' };
  else {
    const match = /^(.+?)\/requests\/([\w-]+)(\/status|\/status\/stream|\/cancel|\/response)?$/.exec(path);
    if (!match || !queued || (match[1] !== APPLICATION_ID && match[1] !== ENDPOINT_ID)) {
      return refuse(404, `Application "${path}" not found: only ${ENDPOINT_ID} is here.`);
    }
    const actions = { '/status': 'status', '/status/stream': 'stream', '/cancel': 'cancel' } as const;
    const action = actions[match[3] as keyof typeof actions] ?? 'result';
    found = { action, id: match[2]!, logs: url.searchParams.get('logs') === '1' };
  }
  const wanted = METHODS[found.action as keyof typeof METHODS];
  return method === wanted ? found : refuse(405, `${path} takes ${wanted}, got ${method}.`);
}

/** An absolute address; undefined for what is none. */
function parsed(address: string): URL | undefined {
  try {
    return new URL(address);
  } catch {
    return undefined;
  }
}

function json(status: number, value: unknown, headers: Record<string, string> = {}): RestResponse {
  return { status, headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(value) };
}

/** Answers a request. Never throws: what goes wrong is in the answer. */
export async function answer(queue: Queue, request: RestRequest): Promise<RestResponse> {
  const found = route(request.method.toUpperCase(), request.url);
  if (found.action === 'refuse') return json(found.status, { detail: found.message });
  try {
    if (found.action === 'submit' || found.action === 'run') return await take(queue, request, found.action === 'run');
    const { action, id, logs } = found as Extract<Route, { id: string }>;
    if (!queue.has(id)) {
      return json(404, action === 'cancel' ? { status: 'NOT_FOUND' } : { detail: `Request "${id}" not found.` });
    }
    switch (action) {
      case 'status': {
        const status = queue.status(id, logs ? 0 : undefined);
        return json(status.status === 'COMPLETED' ? 200 : 202, status, { 'x-fal-request-id': id });
      }
      case 'stream':
        return {
          status: 200,
          headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-store', 'x-fal-request-id': id },
          body: events(queue.watch(id, logs)),
        };
      case 'cancel': {
        const status = queue.cancel(id);
        return json(status === 'ALREADY_COMPLETED' ? 400 : 202, { status });
      }
      default:
        return result(queue, id);
    }
  } catch (error) {
    return json(500, { detail: messageOf(error) });
  }
}

async function take(queue: Queue, { url, headers, body }: RestRequest, wait: boolean): Promise<RestResponse> {
  if (new URL(url).searchParams.has('fal_webhook')) {
    const msg = 'A page cannot call a webhook. Poll the status, or stream it.';
    return json(422, { detail: [{ loc: ['query', 'fal_webhook'], msg, type: 'extra_forbidden' }] });
  }
  let value: unknown;
  try {
    value = body === '' ? undefined : JSON.parse(body);
  } catch (error) {
    const detail = [
      { loc: ['body'], msg: 'JSON decode error', type: 'json_invalid', ctx: { error: messageOf(error) } },
    ];
    return json(422, { detail });
  }
  const id = queue.submit(value, headers['x-fal-queue-priority'] === 'low' ? 'low' : 'normal');
  if (wait) {
    for await (const _ of queue.watch(id, false));
    return result(queue, id);
  }
  // A refused body is COMPLETED already; the answer to a submission is IN_QUEUE all the same, as on the hosted
  // endpoint.
  const status = queue.status(id);
  const { request_id, response_url, status_url, cancel_url } = status;
  const queue_position = status.status === 'IN_QUEUE' ? status.queue_position : 0;
  const queued: QueueStatus = { status: 'IN_QUEUE', request_id, response_url, status_url, cancel_url, queue_position };
  return json(200, queued, { 'x-fal-request-id': id });
}

function result(queue: Queue, id: string): RestResponse {
  const headers = { 'x-fal-request-id': id };
  const outcome = queue.outcome(id);
  if (!outcome) return json(400, { detail: 'Request is still in progress' }, headers);
  if ('answer' in outcome) return json(200, outcome.answer, headers);
  const { status, body } = outcome.failure;
  return json(status, body, body.error_type ? { ...headers, 'x-fal-error-type': body.error_type } : headers);
}

async function* events(statuses: AsyncIterable<QueueStatus>): AsyncGenerator<string> {
  for await (const status of statuses) yield `data: ${JSON.stringify(status)}\n\n`;
}
