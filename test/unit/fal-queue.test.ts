import { beforeEach, describe, expect, it } from 'vitest';
import { ZoetropeError } from '../../src/errors';
import { failureOf } from '../../src/fal/failure';
import { Queue } from '../../src/fal/queue';
import type { QueueStatus } from '../../src/fal/status';
import { FakeGenerator } from '../harness/fake-generator';

describe('Queue', () => {
  let generator: FakeGenerator;
  let queue: Queue;
  let time: number;

  beforeEach(() => {
    generator = new FakeGenerator();
    time = Date.UTC(2026, 0, 1);
    let ids = 0;
    queue = new Queue({ generator, now: () => time, newId: () => `id-${++ids}`, baseUrl: 'https://queue.fal.run' });
  });

  const follow = async (id: string, logs = true) => {
    const seen: QueueStatus[] = [];
    for await (const status of queue.watch(id, logs)) seen.push(status);
    return seen;
  };

  it('takes a request from IN_QUEUE through IN_PROGRESS to COMPLETED', async () => {
    const id = queue.submit({ prompt: 'a' });
    expect(queue.status(id)).toEqual({
      status: 'IN_QUEUE',
      request_id: 'id-1',
      queue_position: 0,
      response_url: 'https://queue.fal.run/fal-ai/wan/requests/id-1',
      status_url: 'https://queue.fal.run/fal-ai/wan/requests/id-1/status',
      cancel_url: 'https://queue.fal.run/fal-ai/wan/requests/id-1/cancel',
    });
    await generator.started(1);
    expect(queue.status(id)).toMatchObject({ status: 'IN_PROGRESS', logs: [] });
    expect(queue.status(id, 0)).toMatchObject({
      logs: [
        { message: 'a word', level: 'WARN', source: 'USER', timestamp: '2026-01-01T00:00:00.000Z' },
        { message: 'diffusion', level: 'INFO' },
        { message: 'diffusion: step 1 of 2' },
      ],
    });
    expect(queue.outcome(id)).toBeUndefined();
    time += 2500;
    const end = follow(id);
    generator.finish();
    expect((await end).at(-1)).toMatchObject({ status: 'COMPLETED', metrics: { inference_time: 2.5 } });
    expect(queue.outcome(id)).toMatchObject({ answer: { prompt: 'a', seed: 7, video: { file_size: 3 } } });
    expect(queue.outcome(id)).not.toHaveProperty('answer.blob');
  });

  it('runs one at a time, in order, low priority last, and counts those before', async () => {
    const [a, b, c, d] = [
      queue.submit({ prompt: 'a' }),
      queue.submit({ prompt: 'b' }, 'low'),
      queue.submit({ prompt: 'c' }),
      queue.submit({ prompt: 'd' }, 'low'),
    ];
    await generator.started(1);
    const position = (id: string) => (queue.status(id) as { queue_position?: number }).queue_position;
    expect([a, c, b, d].map(position)).toEqual([undefined, 0, 1, 2]);
    for (let n = 1; n <= 4; n++) {
      await generator.started(n);
      generator.finish();
      await Promise.resolve();
    }
    await follow(d!);
    expect(generator.ran).toEqual(['a', 'c', 'b', 'd']);
  });

  it('gives every log line once to whoever watches, and every change of place', async () => {
    const first = queue.submit({ prompt: 'a' });
    const second = queue.submit({ prompt: 'b' });
    const third = queue.submit({ prompt: 'c' });
    const watched = follow(third);
    await generator.started(1);
    generator.finish();
    await generator.started(2);
    generator.finish();
    await generator.started(3);
    generator.finish();
    const seen = await watched;
    const places = seen.map((status) => (status.status === 'IN_QUEUE' ? status.queue_position : status.status));
    expect(places.filter((place, i) => place !== places[i - 1])).toEqual([2, 1, 0, 'IN_PROGRESS', 'COMPLETED']);
    const lines = seen.flatMap((status) => ('logs' in status ? status.logs.map(({ message }) => message) : []));
    expect(lines).toEqual(['a word', 'diffusion', 'diffusion: step 1 of 2']);
    expect((await follow(first, false)).map(({ status }) => status)).toEqual(['COMPLETED']);
    expect(queue.status(second)).toMatchObject({ status: 'COMPLETED' });
  });

  it('completes a refused body at once, with the refusal as its result, also behind a running request', async () => {
    queue.submit({ prompt: 'a' });
    const id = queue.submit({ num_frames: 16, what: 1 });
    expect(queue.status(id)).toMatchObject({ status: 'COMPLETED', metrics: { inference_time: null } });
    const { failure } = queue.outcome(id) as { failure: ReturnType<typeof failureOf> };
    expect(failure.status).toBe(422);
    expect(failure.body.detail).toMatchObject([
      { loc: ['body', 'prompt'], type: 'missing' },
      { loc: ['body', 'num_frames'], type: 'greater_than_equal' },
      { loc: ['body', 'what'], type: 'extra_forbidden' },
    ]);
    await generator.started(1);
    expect(generator.ran).toEqual(['a']);
  });

  it('cancels what waits at once and what runs when the engine lets go; the rest moves up', async () => {
    const [a, b, c] = [queue.submit({ prompt: 'a' }), queue.submit({ prompt: 'b' }), queue.submit({ prompt: 'c' })];
    await generator.started(1);
    expect(queue.cancel(b)).toBe('CANCELLATION_REQUESTED');
    expect(queue.outcome(b)).toMatchObject({ failure: { status: 499, body: { error_type: 'client_cancelled' } } });
    expect(queue.status(c)).toMatchObject({ queue_position: 0 });
    expect(queue.cancel(a)).toBe('CANCELLATION_REQUESTED');
    await follow(a);
    expect(queue.outcome(a)).toMatchObject({ failure: { status: 499 } });
    expect([queue.cancel(a), queue.cancel(b)]).toEqual(['ALREADY_COMPLETED', 'ALREADY_COMPLETED']);
    await generator.started(2);
    expect(generator.ran).toEqual(['a', 'c']);
  });

  it('goes on after a failure', async () => {
    const [a, b] = [queue.submit({ prompt: 'a' }), queue.submit({ prompt: 'b' })];
    await generator.started(1);
    generator.fail();
    await follow(a);
    expect(queue.outcome(a)).toMatchObject({ failure: { status: 500, code: 'out-of-memory' } });
    await generator.started(2);
    generator.finish();
    await follow(b);
    expect(queue.outcome(b)).toHaveProperty('answer');
  });

  it('ends a watch with its signal', async () => {
    const id = queue.submit({ prompt: 'a' });
    const controller = new AbortController();
    const watched = (async () => {
      for await (const _ of queue.watch(id, false, controller.signal));
    })();
    await generator.started(1);
    controller.abort();
    await expect(watched).rejects.toMatchObject({ code: 'aborted' });
  });

  it('forgets the oldest of more than a hundred finished requests, and no request that waits', () => {
    const first = queue.submit({});
    const waiting = queue.submit({ prompt: 'a' });
    for (let n = 0; n < 100; n++) queue.submit({});
    expect([queue.has(first), queue.has(waiting)]).toEqual([false, true]);
    expect(() => queue.status(first)).toThrow('no request "id-1"');
  });

  it('keeps the result of a request that ran while a hundred others ended', async () => {
    const slow = queue.submit({ prompt: 'a' });
    await generator.started(1);
    const others = Array.from({ length: 100 }, () => queue.submit({}));
    const watched = follow(slow);
    generator.finish();
    expect((await watched).at(-1)).toMatchObject({ status: 'COMPLETED' });
    expect(queue.outcome(slow)).toHaveProperty('answer');
    expect([queue.has(others[0]!), queue.has(others[1]!)]).toEqual([false, true]);
  });
});

describe('failureOf', () => {
  const detail = [{ loc: ['body', 'prompt'], msg: 'm', type: 'content_policy_violation', input: 'x' }];

  it.each([
    ['bad-request', 422],
    ['missing-component', 422],
    ['content-policy-violation', 422],
    ['aborted', 499],
    ['device-lost', 500],
    ['internal', 500],
  ] as const)('%s becomes %i', (code, status) => {
    expect(failureOf(new ZoetropeError(code, 'm')).status).toBe(status);
  });

  it('passes details on as they are, and makes one where there is none', () => {
    expect(failureOf(new ZoetropeError('content-policy-violation', 'm', { detail })).body.detail).toBe(detail);
    expect(failureOf(new ZoetropeError('missing-component', 'no rife')).body.detail).toEqual([
      { loc: ['body'], msg: 'no rife', type: 'missing_component' },
    ]);
    expect(failureOf(new Error('odd'))).toMatchObject({
      status: 500,
      body: { detail: [{ msg: 'odd', type: 'internal_server_error' }] },
    });
  });
});
