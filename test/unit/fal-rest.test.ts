import { beforeEach, describe, expect, it } from 'vitest';
import { Queue } from '../../src/fal/queue';
import { answer, type RestResponse, route } from '../../src/fal/rest';
import { FakeGenerator } from '../harness/fake-generator';

const ENDPOINT = 'https://queue.fal.run/fal-ai/wan/v2.2-a14b/text-to-video';
const REQUESTS = 'https://queue.fal.run/fal-ai/wan/requests';

describe('route', () => {
  it.each([
    ['POST', ENDPOINT, { action: 'submit' }],
    ['POST', ENDPOINT.replace('queue.', ''), { action: 'run' }],
    ['GET', `${REQUESTS}/a-1/status?logs=1`, { action: 'status', id: 'a-1', logs: true }],
    ['GET', `${REQUESTS}/a-1/status?logs=0`, { action: 'status', id: 'a-1', logs: false }],
    ['GET', `${REQUESTS}/a-1/status/stream?logs=1`, { action: 'stream', id: 'a-1', logs: true }],
    ['GET', `${REQUESTS}/a-1`, { action: 'result', id: 'a-1', logs: false }],
    ['GET', `${ENDPOINT}/requests/a-1/`, { action: 'result', id: 'a-1', logs: false }],
    ['PUT', `${REQUESTS}/a-1/cancel`, { action: 'cancel', id: 'a-1', logs: false }],
  ])('%s %s', (method, url, expected) => {
    expect(route(method, url)).toEqual(expected);
  });

  it.each([
    ['POST', 'https://queue.fal.run/fal-ai/flux/dev', 404],
    ['GET', 'https://queue.fal.run/fal-ai/flux/requests/a-1', 404],
    ['POST', 'https://rest.fal.ai/storage/upload/initiate', 404],
    ['POST', 'http://queue.fal.run/fal-ai/wan/v2.2-a14b/text-to-video', 404],
    ['POST', 'https://queue.fal.run.evil.example/fal-ai/wan/v2.2-a14b/text-to-video', 404],
    ['GET', 'https://fal.run/fal-ai/wan/requests/a-1', 404],
    ['POST', 'not an address', 404],
    ['POST', '', 404],
    ['POST', 'https://[', 404],
    ['GET', '//queue.fal.run:x/', 404],
    ['GET', ENDPOINT, 405],
    ['POST', `${REQUESTS}/a-1/cancel`, 405],
    ['DELETE', `${REQUESTS}/a-1`, 405],
  ])('refuses %s %s with %i', (method, url, status) => {
    expect(route(method, url)).toMatchObject({ action: 'refuse', status });
  });
});

describe('answer', () => {
  let generator: FakeGenerator;
  let queue: Queue;

  beforeEach(() => {
    generator = new FakeGenerator();
    let ids = 0;
    queue = new Queue({ generator, now: () => 0, newId: () => `id-${++ids}`, baseUrl: 'https://queue.fal.run' });
  });

  const call = (method: string, url: string, body: unknown = '', headers: Record<string, string> = {}) =>
    answer(queue, { method, url, headers, body: typeof body === 'string' ? body : JSON.stringify(body) });
  const parsed = ({ body }: RestResponse) => JSON.parse(body as string);

  it('serves a request from submission to result', async () => {
    const submitted = await call('POST', ENDPOINT, { prompt: 'a' });
    expect([submitted.status, parsed(submitted)]).toMatchObject([200, { status: 'IN_QUEUE', request_id: 'id-1' }]);
    await generator.started(1);
    const status = await call('GET', `${REQUESTS}/id-1/status?logs=1`);
    expect([status.status, parsed(status).logs.length]).toEqual([202, 3]);
    expect((await call('GET', `${REQUESTS}/id-1`)).status).toBe(400);
    const stream = await call('GET', `${REQUESTS}/id-1/status/stream?logs=1`);
    expect(stream.headers['content-type']).toBe('text/event-stream');
    generator.finish();
    const events: string[] = [];
    for await (const event of stream.body as AsyncIterable<string>) events.push(event);
    expect(events.every((event) => /^data: \{.*\}\n\n$/.test(event))).toBe(true);
    expect(JSON.parse(events.at(-1)!.slice(6))).toMatchObject({ status: 'COMPLETED' });
    expect((await call('GET', `${REQUESTS}/id-1/status`)).status).toBe(200);
    const result = await call('GET', `${REQUESTS}/id-1`);
    expect(result.headers['x-fal-request-id']).toBe('id-1');
    expect(parsed(result)).toMatchObject({ video: { url: 'blob:x' }, prompt: 'a', seed: 7 });
  });

  it('runs and waits at fal.run', async () => {
    const pending = call('POST', ENDPOINT.replace('queue.', ''), { prompt: 'a' });
    await generator.started(1);
    generator.finish();
    expect(await pending).toMatchObject({ status: 200, headers: { 'x-fal-request-id': 'id-1' } });
  });

  it('accepts a bad body and gives the refusal as its result', async () => {
    expect((await call('POST', ENDPOINT, { prompt: 5 })).status).toBe(200);
    const result = await call('GET', `${REQUESTS}/id-1`);
    expect([result.status, parsed(result)]).toEqual([
      422,
      { detail: [{ loc: ['body', 'prompt'], msg: 'Input should be a valid string', type: 'string_type', input: 5 }] },
    ]);
  });

  it('refuses what is no JSON, and webhooks, at once', async () => {
    expect(parsed(await call('POST', ENDPOINT, '{'))).toMatchObject({ detail: [{ type: 'json_invalid' }] });
    const hooked = await call('POST', `${ENDPOINT}?fal_webhook=https://a.example`, { prompt: 'a' });
    expect([hooked.status, parsed(hooked).detail[0].loc]).toEqual([422, ['query', 'fal_webhook']]);
    expect(generator.ran).toEqual([]);
  });

  it('cancels once', async () => {
    await call('POST', ENDPOINT, { prompt: 'a' });
    await generator.started(1);
    const cancel = () => call('PUT', `${REQUESTS}/id-1/cancel`);
    const first = await cancel();
    expect([first.status, parsed(first)]).toEqual([202, { status: 'CANCELLATION_REQUESTED' }]);
    for await (const _ of queue.watch('id-1', false));
    expect(await cancel()).toMatchObject({ status: 400 });
    expect(await call('GET', `${REQUESTS}/id-1`)).toMatchObject({
      status: 499,
      headers: { 'x-fal-error-type': 'client_cancelled' },
    });
  });

  it('answers 404 for requests that it does not know', async () => {
    for (const [method, path] of [
      ['GET', ''],
      ['GET', '/status'],
      ['GET', '/status/stream'],
      ['PUT', '/cancel'],
    ]) {
      expect((await call(method!, `${REQUESTS}/nobody${path}`)).status).toBe(404);
    }
  });

  it('puts low priority last', async () => {
    await call('POST', ENDPOINT, { prompt: 'a' });
    await call('POST', ENDPOINT, { prompt: 'b' }, { 'x-fal-queue-priority': 'low' });
    await call('POST', ENDPOINT, { prompt: 'c' }, { 'x-fal-queue-priority': 'normal' });
    expect(parsed(await call('GET', `${REQUESTS}/id-2/status`))).toMatchObject({ queue_position: 1 });
    expect(parsed(await call('GET', `${REQUESTS}/id-3/status`))).toMatchObject({ queue_position: 0 });
  });
});
