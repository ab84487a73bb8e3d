import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { watchWorker } from '../../src/client/link';
import { ZoetropeError } from '../../src/errors';
import { load } from '../../src/index';

/** A worker that answers nothing. */
class SilentWorker extends EventTarget {
  static readonly made: SilentWorker[] = [];
  ended = 0;
  constructor() {
    super();
    SilentWorker.made.push(this);
  }
  postMessage(): void {}
  terminate(): void {
    this.ended++;
  }
}

afterEach(() => {
  vi.unstubAllGlobals();
  SilentWorker.made.length = 0;
});

describe('watchWorker', () => {
  const watched = () => {
    const worker = new SilentWorker();
    const onDeath = vi.fn();
    return { worker, onDeath, ...watchWorker(worker as unknown as Worker, 'Load it again.', onDeath) };
  };

  it('ends a worker that has failed, with every call to it, also later ones', async () => {
    const { worker, onDeath, call } = watched();
    const never = new Promise<never>(() => undefined);
    const pending = call(never);
    worker.dispatchEvent(Object.assign(new Event('error'), { message: 'out of luck' }));
    worker.dispatchEvent(new Event('messageerror'));
    const died = { code: 'worker-died', message: "The engine's worker died: out of luck. Load it again." };
    await expect(pending).rejects.toMatchObject(died);
    await expect(call(never)).rejects.toMatchObject(died);
    expect([worker.ended, onDeath.mock.calls.length]).toEqual([1, 1]);
  });

  it('rejects with our errors only', async () => {
    const { call } = watched();
    const ours = new ZoetropeError('aborted', 'a');
    const foreign = new DOMException('no clone', 'DataCloneError');
    await expect(call(Promise.reject(ours))).rejects.toBe(ours);
    await expect(call(Promise.reject(foreign))).rejects.toMatchObject({
      code: 'internal',
      message: 'no clone',
      cause: foreign,
    });
  });

  it('lets go of an answer when its caller does', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const { call } = watched();
    const answer = await (async () => new WeakRef(await call(Promise.resolve(new Uint8Array(1 << 20)))))();
    for (let tries = 0; tries < 20 && answer.deref() !== undefined; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 5)); // what is looked at stays until the task ends
      collect();
    }
    expect(answer.deref() === undefined).toBe(true);
    expect(call).toBeDefined(); // the lifeline is still there
  });
});

describe('load', () => {
  it('refuses a budget before it starts a worker', async () => {
    vi.stubGlobal('document', { baseURI: 'https://a.example/' });
    vi.stubGlobal('Worker', SilentWorker);
    await expect(load({ model: '/m/', memoryBudgetBytes: -1 })).rejects.toMatchObject({ code: 'bad-request' });
    expect(SilentWorker.made).toEqual([]);
  });

  it('leaves addresses that are none to the worker', async () => {
    vi.stubGlobal('document', { baseURI: 'https://a.example/' });
    for (const options of [{ model: 'http://[' }, { model: 'data:,x' }, { model: '/m/', parts: 'http://[' }]) {
      const worker = new SilentWorker();
      const sent = vi.spyOn(worker, 'postMessage');
      const opening = load({ ...options, worker: worker as unknown as Worker });
      expect(sent).toHaveBeenCalled();
      worker.dispatchEvent(new Event('messageerror'));
      await expect(opening).rejects.toMatchObject({ code: 'worker-died' });
    }
  });
});
