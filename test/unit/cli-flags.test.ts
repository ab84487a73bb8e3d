import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { addRequestFlags, flagName, flagValue, requestFromFlags } from '../../src/cli/flags';
import type { ZoetropeError } from '../../src/errors';
import { type Request, requestFields } from '../../src/request';

/** The request that a command line says. */
function parse(...args: string[]): Request {
  const command = addRequestFlags(new Command().allowUnknownOption().allowExcessArguments());
  command.exitOverride().parse(args, { from: 'user' });
  return requestFromFlags(command.opts(), command.args);
}

function refusal(...args: string[]): ZoetropeError {
  try {
    parse(...args);
  } catch (error) {
    return error as ZoetropeError;
  }
  throw new Error('nothing was refused');
}

describe('flagValue', () => {
  it.each([
    ['integer', '17', 17],
    ['integer', '-3', -3],
    ['integer', '1e3', 1000],
    ['integer', '17.5', 17.5],
    ['number', '3.5', 3.5],
    ['number', '.5', 0.5],
    ['number', '5.', 5],
    ['integer', '', ''],
    ['integer', ' ', ' '],
    ['integer', '0x10', '0x10'],
    ['integer', '12px', '12px'],
    ['number', 'Infinity', 'Infinity'],
    ['number', 'NaN', 'NaN'],
    ['boolean', 'true', true],
    ['boolean', 'false', false],
    ['boolean', 'yes', 'yes'],
    ['string', '17', '17'],
    ['enum', '480p', '480p'],
  ] as const)('%s %j is %j', (kind, text, value) => {
    expect(flagValue({ kind }, text)).toBe(value);
  });
});

describe('flags of generate', () => {
  it('are there for every field of the request', () => {
    const options = addRequestFlags(new Command()).options.map(({ long }) => long);
    expect(options).toEqual(requestFields.map(({ name }) => `--${flagName(name)}`));
  });

  it('make a request of what was given, and of nothing else', () => {
    expect(
      parse(
        ...['--prompt', 'a red circle', '--num-frames', '17', '--guidance-scale-2', '4.5', '--aspect-ratio=1:1'],
        ...['--adjust-fps-for-interpolation', 'false', '--seed', '0', '--negative-prompt', '-blurry'],
      ),
    ).toEqual({
      prompt: 'a red circle',
      negative_prompt: '-blurry',
      num_frames: 17,
      guidance_scale_2: 4.5,
      aspect_ratio: '1:1',
      adjust_fps_for_interpolation: false,
      seed: 0,
    });
  });

  it('take an empty prompt', () => {
    expect(parse('--prompt', '')).toEqual({ prompt: '' });
  });

  it('are refused as the library refuses fields', () => {
    const { code, detail } = refusal('--num-frames', 'many', '--shift', '11', '--resolution', '8k');
    expect(code).toBe('bad-request');
    expect(detail.map(({ loc, type, input }) => [loc[1], type, input])).toEqual([
      ['prompt', 'missing', { num_frames: 'many', shift: 11, resolution: '8k' }],
      ['num_frames', 'int_type', 'many'],
      ['resolution', 'literal_error', '8k'],
      ['shift', 'less_than_equal', 11],
    ]);
  });

  it.each([
    [['--frame-count', '5'], 'frame_count', '5'],
    [['--frame-count=5'], 'frame_count', '5'],
    [['--frame-count'], 'frame_count', true],
    [['--frame-count', '--seed', '1'], 'frame_count', true],
    [['stray'], 'stray', true],
    [['--__proto__', '5'], '__proto__', '5'],
  ])('that do not exist are refused by name: %j', (args, name, input) => {
    const { detail } = refusal('--prompt', 'x', ...args);
    expect(detail.map(({ loc, type, input }) => [loc[1], type, input])).toEqual([[name, 'extra_forbidden', input]]);
  });
});
