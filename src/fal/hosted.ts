import { ZoetropeError } from '../errors';
import { parseRequest, type Request } from '../request';
import { ENDPOINT_ID } from './endpoint';
import type { Answer } from './queue';
import type { QueueStatus } from './status';

/**
 * Sends a request to fal's own endpoint instead of this machine's GPU. Nothing here runs unless a person has configured
 * it.
 */

/**
 * Where to send requests: a server of yours that adds the key, or the key itself, which everybody who opens the page
 * can read.
 */
export type HostedAccess = { proxyUrl: string; credentials?: never } | { credentials: string; proxyUrl?: never };

/**
 * The part of `@fal-ai/client` that is called. Its `createFalClient` is handed in, so a page without it ships nothing
 * of it.
 */
export interface OfficialClient {
  subscribe(
    endpointId: string,
    options: {
      input: Request;
      logs: boolean;
      abortSignal?: AbortSignal;
      onQueueUpdate?: (status: QueueStatus) => void;
    },
  ): Promise<{ data: unknown; requestId: string }>;
}

/** What the hosted endpoint answers: ours without what we add. */
export type HostedAnswer = Pick<Answer, 'video' | 'prompt' | 'seed'>;

/**
 * A `generate` that takes the same request and runs it at fal.
 *
 * @param createFalClient of `@fal-ai/client`.
 * Throws `bad-request` without an access, and for what the endpoint would refuse, before anything is sent.
 */
export function createHosted(
  createFalClient: (config: { proxyUrl: string } | { credentials: string }) => OfficialClient,
  access: HostedAccess,
) {
  if (!access?.proxyUrl && !access?.credentials) {
    throw new ZoetropeError('bad-request', 'The hosted endpoint needs a proxyUrl or credentials; neither was given.');
  }
  const client = createFalClient(
    access.proxyUrl ? { proxyUrl: access.proxyUrl } : { credentials: access.credentials! },
  );
  return {
    async generate(
      request: Request,
      options: { signal?: AbortSignal; onQueueUpdate?: (status: QueueStatus) => void } = {},
    ): Promise<HostedAnswer> {
      const input = parseRequest(request);
      const { data } = await client.subscribe(ENDPOINT_ID, {
        input,
        logs: options.onQueueUpdate !== undefined,
        ...(options.signal && { abortSignal: options.signal }),
        ...(options.onQueueUpdate && { onQueueUpdate: options.onQueueUpdate }),
      });
      return data as HostedAnswer;
    },
  };
}
