import { expect, it } from 'vitest';
import type { ErrorDetail } from '../../src/errors';
import { ENDPOINT_ID } from '../../src/fal/endpoint';
import { type Answer, Queue } from '../../src/fal/queue';
import { answer } from '../../src/fal/rest';
import { generatedRequests, problemsOf } from '../harness/generated-requests';

/**
 * Many requests through schema, queue and REST API: verdict and error paths must be those of a table written out beside
 * the generator.
 */

const COUNT = 50_000;
const SEED = 20261124n;

it(`gives ${COUNT} generated requests the verdicts of the table (seed ${SEED})`, async () => {
  let ran = 0;
  let ids = 0;
  const queue = new Queue({
    generator: {
      async generate({ prompt }) {
        ran++;
        return { video: {}, prompt, seed: 1, timings: {}, request: {} } as unknown as Answer;
      },
    },
    now: () => 0,
    newId: () => `${++ids}`,
    baseUrl: 'https://queue.fal.run',
  });
  let accepted = 0;
  for (const { body, expected } of generatedRequests(COUNT, SEED)) {
    const text = JSON.stringify(body);
    const response = await answer(queue, {
      method: 'POST',
      url: `https://fal.run/${ENDPOINT_ID}`,
      headers: {},
      body: text,
    });
    const got = JSON.parse(response.body as string) as { prompt?: string; detail?: ErrorDetail[] };
    const problems = problemsOf(got);
    // Comparing by hand is quicker than fifty thousand matchers.
    if (response.status !== (expected.length > 0 ? 422 : 200) || problems.join() !== expected.join()) {
      expect({ text: text.slice(0, 500), status: response.status, problems }).toEqual({ text: '', expected });
    }
    if (expected.length === 0) accepted++;
  }
  console.log(`${accepted} accepted, ${COUNT - accepted} refused`);
  expect(ran).toBe(accepted);
  expect(Math.min(accepted, COUNT - accepted)).toBeGreaterThan(COUNT / 5);
}, 60_000);

it.each(['', 'null', '[]', '"a"', '1', 'true', '{', '{"prompt":}', '\u0000', '[{"prompt":"x"}]'])(
  'refuses the body %j with a typed error',
  async (body) => {
    const queue = new Queue({
      generator: { generate: () => Promise.reject() },
      now: () => 0,
      newId: () => 'a',
      baseUrl: '',
    });
    const response = await answer(queue, { method: 'POST', url: `https://fal.run/${ENDPOINT_ID}`, headers: {}, body });
    const { detail } = JSON.parse(response.body as string) as { detail: ErrorDetail[] };
    expect(response.status).toBe(422);
    expect(detail).toHaveLength(1);
    expect(detail[0]).toMatchObject({
      loc: ['body'],
      type: expect.stringMatching(/^(missing|model_attributes_type|json_invalid)$/),
    });
  },
);
