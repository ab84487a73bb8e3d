import { createFalClient, type FalClient } from '@fal-ai/client';
import { describe, expect, it, vi } from 'vitest';
import { ApiError, ValidationError } from '../../src/fal/api-error';
import { createFal, type Fal } from '../../src/fal/client';
import { ENDPOINT_ID } from '../../src/fal/endpoint';
import { createHosted, type OfficialClient } from '../../src/fal/hosted';
import type { QueueStatus } from '../../src/fal/status';
import { FakeGenerator } from '../harness/fake-generator';

/** Runs with either client: what compiles for both has the same signatures. */
async function publishedExample(fal: Fal | FalClient, seen: string[]) {
  return (fal as Fal).subscribe('fal-ai/wan/v2.2-a14b/text-to-video', {
    input: { prompt: 'a' },
    logs: true,
    onQueueUpdate: (update) => {
      if (update.status === 'IN_PROGRESS')
        update.logs.map((log) => log.message).forEach((line) => void seen.push(line));
    },
  });
}

describe('createFal', () => {
  it('runs the example that the endpoint publishes', async () => {
    const generator = new FakeGenerator();
    const seen: string[] = [];
    const pending = publishedExample(createFal(generator), seen);
    await generator.started(1);
    generator.finish();
    const { data, requestId } = await pending;
    expect(data).toMatchObject({ video: { url: 'blob:x' }, prompt: 'a', seed: 7 });
    expect(requestId).toMatch(/^[\w-]{36}$/);
    expect(seen).toContain('diffusion: step 1 of 2');
  });

  it('submits, tells, streams and gives the result', async () => {
    const generator = new FakeGenerator();
    const { queue } = createFal(generator);
    const { request_id: requestId, queue_position } = await queue.submit(ENDPOINT_ID, { input: { prompt: 'a' } });
    expect(queue_position).toBe(0);
    await expect(queue.result(ENDPOINT_ID, { requestId })).rejects.toMatchObject({ status: 400 });
    const stream = await queue.streamStatus(ENDPOINT_ID, { requestId, logs: true });
    const heard: string[] = [];
    stream.on('data', ({ status }: QueueStatus) => heard.push(status));
    await generator.started(1);
    expect(await queue.status('fal-ai/wan', { requestId, logs: true })).toMatchObject({ status: 'IN_PROGRESS' });
    generator.finish();
    expect(await stream.done()).toMatchObject({ status: 'COMPLETED' });
    expect(heard).toEqual(['IN_PROGRESS', 'COMPLETED']);
    expect(await queue.result(ENDPOINT_ID, { requestId })).toMatchObject({ requestId, data: { seed: 7 } });
    await expect(queue.cancel(ENDPOINT_ID, { requestId })).rejects.toThrow('ALREADY_COMPLETED');
  });

  it('throws ValidationError with the errors of each field', async () => {
    const error = await createFal(new FakeGenerator())
      .subscribe(ENDPOINT_ID, { input: { prompt: 'a', num_frames: 16 } })
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ValidationError);
    const refused = error as ValidationError;
    expect(refused).toMatchObject({ status: 422, name: 'ValidationError', code: 'bad-request' });
    expect(refused.getFieldErrors('num_frames')).toMatchObject([{ type: 'greater_than_equal' }]);
    expect(refused.getFieldErrors('prompt')).toEqual([]);
    expect(refused.body.detail).toBe(refused.fieldErrors);
  });

  it('cancels by id, by signal and by time', async () => {
    const generator = new FakeGenerator();
    const fal = createFal(generator);
    let id = '';
    const first = fal.subscribe(ENDPOINT_ID, { input: { prompt: 'a' }, onEnqueue: (each) => (id = each) });
    await generator.started(1);
    await fal.queue.cancel(ENDPOINT_ID, { requestId: id });
    const error = await first.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({ status: 499, body: { error_type: 'client_cancelled' } });
    const controller = new AbortController();
    const second = fal.subscribe(ENDPOINT_ID, { input: { prompt: 'b' }, abortSignal: controller.signal });
    await generator.started(2);
    controller.abort();
    await expect(second).rejects.toMatchObject({ code: 'aborted' });
    await expect(fal.subscribe(ENDPOINT_ID, { input: { prompt: 'c' }, timeout: 20 })).rejects.toThrow('after 20ms');
    const aborted = AbortSignal.abort();
    for (const options of [
      { input: { prompt: 'b' }, abortSignal: aborted },
      { input: { prompt: 'c' }, timeout: 20 },
    ]) {
      const error = await fal.subscribe(ENDPOINT_ID, options).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(ApiError);
      expect(error).toMatchObject({ status: 499, body: { error_type: 'client_cancelled' } });
    }
  });

  it('ends a stream by a signal that fired before or fires later, and lets go of the signal at its end', async () => {
    const generator = new FakeGenerator();
    const { queue } = createFal(generator);
    const { request_id: requestId } = await queue.submit(ENDPOINT_ID, { input: { prompt: 'a' } });
    const before = await queue.streamStatus(ENDPOINT_ID, { requestId, abortSignal: AbortSignal.abort() });
    expect(await before.done()).toMatchObject({ status: 'IN_PROGRESS' });
    await generator.started(1);
    const controller = new AbortController();
    const later = await queue.streamStatus(ENDPOINT_ID, { requestId, abortSignal: controller.signal });
    controller.abort();
    expect(await later.done()).toMatchObject({ status: 'IN_PROGRESS' });
    const { signal } = new AbortController();
    const removed = vi.spyOn(signal, 'removeEventListener');
    const whole = await queue.streamStatus(ENDPOINT_ID, { requestId, abortSignal: signal });
    generator.finish();
    expect(await whole.done()).toMatchObject({ status: 'COMPLETED' });
    await expect.poll(() => removed.mock.calls.length).toBe(1);
  });

  it('knows one endpoint and no option of a server', async () => {
    const fal = createFal(new FakeGenerator());
    await expect(fal.run('fal-ai/flux/dev', {})).rejects.toMatchObject({ status: 404 });
    await expect(fal.queue.status(ENDPOINT_ID, { requestId: 'nobody' })).rejects.toMatchObject({ status: 404 });
    const hooked = { input: { prompt: 'a' }, webhookUrl: 'https://a.example' };
    const error = await fal.queue.submit(ENDPOINT_ID, hooked).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ValidationError);
    expect(error).toMatchObject({ status: 422, message: expect.stringContaining('webhookUrl') });
  });
});

describe('createHosted', () => {
  const official: (config: { proxyUrl: string } | { credentials: string }) => OfficialClient = createFalClient;

  it('refuses to begin without a proxy or a key', () => {
    expect(() => createHosted(official, {} as never)).toThrow('neither was given');
  });

  it('sends a checked request by the client it was given, to the endpoint, and nothing else', async () => {
    const calls: unknown[] = [];
    const hosted = createHosted(
      (config) => ({
        async subscribe(endpointId, { input }) {
          calls.push({ config, endpointId, input });
          return { data: { video: { url: 'https://v.fal.media/x.mp4' }, prompt: 'a', seed: 1 }, requestId: 'r' };
        },
      }),
      { proxyUrl: '/api/fal/proxy' },
    );
    expect(calls).toEqual([]);
    expect(await hosted.generate({ prompt: 'a' })).toMatchObject({ prompt: 'a', seed: 1 });
    expect(calls).toEqual([
      { config: { proxyUrl: '/api/fal/proxy' }, endpointId: ENDPOINT_ID, input: { prompt: 'a' } },
    ]);
    await expect(hosted.generate({ prompt: 5 as never })).rejects.toMatchObject({ code: 'bad-request' });
    expect(calls).toHaveLength(1);
  });
});
