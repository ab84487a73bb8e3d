import { expect, it } from 'vitest';
import { requestIdOf, targetOf } from '../../src/fal/proxy';

const PROXY = 'https://a.example/app/api/fal/proxy';

it.each([
  [PROXY, { 'x-fal-target-url': 'https://queue.fal.run/x' }, 'https://queue.fal.run/x'],
  [`${PROXY}/fal-ai/wan/requests/1/status?logs=1`, {}, 'https://queue.fal.run/fal-ai/wan/requests/1/status?logs=1'],
  [`${PROXY}?a=1#b`, {}, 'https://queue.fal.run?a=1'],
  [`${PROXY}2`, { 'x-fal-target-url': 'https://queue.fal.run/x' }, undefined],
  ['https://a.example/api/fal/proxy', {}, undefined],
  ['https://a.example/app/index.html?next=/app/api/fal/proxy', {}, undefined],
])('takes %s %j for %s', (url, headers, expected) => {
  expect(targetOf(PROXY, url, headers as Record<string, string>)).toBe(expected);
});

it('finds the id of a request', () => {
  expect(requestIdOf('https://queue.fal.run/fal-ai/wan/requests/a-1/status?logs=1')).toBe('a-1');
  expect(requestIdOf('https://queue.fal.run/fal-ai/wan/v2.2-a14b/text-to-video')).toBeNull();
});
