import { describe, expect, it } from 'vitest';
import { ZoetropeError } from '../../src/errors';
import { documents } from '../fuzz/documents';
import { grow, growths, MAX_TIME_RATIO } from '../fuzz/growth';
import { LIMITS } from '../fuzz/meter';
import { FuzzFault, fuzz, shareOut } from '../fuzz/runner';
import { WEIGHT_FILES } from '../fuzz/weight-files';

/** In CI; ten million were run once, see docs/measurements. */
const INPUTS = 100_000;
const SEED = 1;

const targets = [...WEIGHT_FILES, ...(await documents())];
const counts = shareOut(targets, INPUTS);

describe(`parsers stand ${INPUTS} foreign inputs`, () => {
  it.each(targets.map((target, i) => [target.name, target, counts[i]!] as const))(
    '%s',
    { timeout: 120_000 },
    async (_, target, count) => {
      const { accepted, outcomes } = await fuzz(target, count, SEED);
      // An input that is refused at its first byte tests nothing.
      expect(outcomes).toBeGreaterThan(target.name === 'import journal' ? 2 : 10);
      expect(accepted).toBeGreaterThan(10);
    },
  );
});

describe('time and memory grow as the input does', () => {
  const samples = new Map(targets.map(({ name, seeds }) => [name, seeds[0]!]));
  const parsers = new Map(targets.map(({ name, parse }) => [name, parse]));
  it.each(growths((name) => samples.get(name)!).map((growth) => [growth.target, growth.what, growth] as const))(
    '%s: %s',
    { timeout: 60_000 },
    async (name, _, growth) => {
      const { timeRatio, buffersPerByte } = await grow(growth, parsers.get(name)!);
      expect(timeRatio).toBeLessThan(MAX_TIME_RATIO);
      expect(buffersPerByte).toBeLessThanOrEqual(LIMITS.bufferFactor);
    },
  );
});

describe('the fuzzer finds', () => {
  const seeds = [new TextEncoder().encode('{"a":{"b":[1,2,3]}}')];
  const flawed = (parse: (text: string) => unknown) =>
    fuzz(
      {
        name: 'flawed',
        layout: 'json',
        seeds,
        words: [],
        share: 1,
        parse: (input) => parse(new TextDecoder().decode(input)),
      },
      2_000,
      SEED,
    );
  const refused = () => {
    throw new ZoetropeError('bad-checkpoint', 'no');
  };

  it('an exception of another class', async () => {
    await expect(flawed((text) => JSON.parse(text).a.b)).rejects.toThrow(/another class/);
  });

  it('a buffer of a length that the input states', async () => {
    const parse = (text: string) => (/\d{10}/.test(text) ? new Uint8Array(100_000) : refused());
    await expect(flawed(parse)).rejects.toThrow(/buffers of 100000 bytes/);
  });

  it('a list of a length that the input states', async () => {
    const parse = (text: string) => (/\d{10}/.test(text) ? new Array(200_000).fill(0) : refused());
    await expect(flawed(parse)).rejects.toThrow(/bytes of objects/);
  });

  it('an input that takes long', async () => {
    const slow = (text: string) => {
      const until = performance.now() + (/\d{10}/.test(text) ? 15 : 0);
      while (performance.now() < until);
      refused();
    };
    await expect(flawed(slow)).rejects.toThrow(FuzzFault);
  });

  it('quadratic time', { timeout: 60_000 }, async () => {
    const parse = (input: Uint8Array) => {
      let sum = 0;
      for (let i = 0; i < input.length; i++) for (let j = 0; j < i; j++) sum += input[j]!;
      return `${sum}`;
    };
    const { timeRatio } = await grow(
      { target: 'flawed', what: 'bytes', make: (count) => new Uint8Array(count) },
      parse,
    );
    expect(timeRatio).toBeGreaterThan(MAX_TIME_RATIO);
  });
});
