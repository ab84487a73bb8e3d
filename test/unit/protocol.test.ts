import { expose, wrap } from 'comlink';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ZoetropeError } from '../../src/errors';
import { carryErrors } from '../../src/protocol/errors';

/** comlink over a real message channel: what a worker's boundary does to errors. */
describe('errors across the worker boundary', () => {
  const service = {
    refuse() {
      throw new ZoetropeError('bad-request', 'num_frames is too small', {
        detail: [
          { loc: ['body', 'num_frames'], msg: 'too small', type: 'greater_than_equal', ctx: { ge: 17 }, input: 3 },
        ],
      });
    },
    crash() {
      throw new TypeError('not ours');
    },
  };
  const { port1, port2 } = new MessageChannel();
  let remote: ReturnType<typeof wrap<typeof service>>;

  beforeAll(() => {
    carryErrors();
    expose(service, port1 as never);
    remote = wrap<typeof service>(port2 as never);
  });
  afterAll(() => {
    port1.close();
    port2.close();
  });

  it('keeps class, code, message and details', async () => {
    const error = await Promise.resolve(remote.refuse()).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(ZoetropeError);
    expect(error).toMatchObject({
      code: 'bad-request',
      name: 'ZoetropeError:bad-request',
      message: 'num_frames is too small',
      detail: [{ loc: ['body', 'num_frames'], type: 'greater_than_equal', ctx: { ge: 17 }, input: 3 }],
    });
  });

  it('leaves other errors as comlink carries them', async () => {
    await expect(remote.crash()).rejects.toThrow('not ours');
  });
});
