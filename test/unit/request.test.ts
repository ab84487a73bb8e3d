import { describe, expect, it } from 'vitest';
import { type ErrorDetail, ZoetropeError } from '../../src/errors';
import {
  type AvailableParts,
  MAX_PROMPT_LENGTH,
  parseRequest,
  type Request,
  requestFields,
  resolveRequest,
} from '../../src/request';

/** The endpoint's table, written out a second time on purpose: kind, default, min, max or options. */
const TABLE: Record<string, [kind: string, value: unknown, ...limits: unknown[]]> = {
  prompt: ['string', undefined],
  negative_prompt: ['string', ''],
  num_frames: ['integer', 81, 17, 121],
  frames_per_second: ['integer', 16, 4, 60],
  seed: ['integer', undefined, 0, Number.MAX_SAFE_INTEGER],
  resolution: ['enum', '720p', '480p', '580p', '720p'],
  aspect_ratio: ['enum', '16:9', '16:9', '9:16', '1:1'],
  num_inference_steps: ['integer', 27, 2, 40],
  enable_safety_checker: ['boolean', false],
  enable_prompt_expansion: ['boolean', false],
  acceleration: ['enum', 'regular', 'none', 'regular'],
  guidance_scale: ['number', 3.5, 1, 10],
  guidance_scale_2: ['number', 4, 1, 10],
  shift: ['number', 5, 1, 10],
  interpolator_model: ['enum', 'film', 'none', 'film', 'rife'],
  num_interpolated_frames: ['integer', 1, 0, 4],
  adjust_fps_for_interpolation: ['boolean', true],
  video_quality: ['enum', 'high', 'low', 'medium', 'high', 'maximum'],
  video_write_mode: ['enum', 'balanced', 'fast', 'balanced', 'small'],
};
const names = Object.keys(TABLE);
const ofKind = (...kinds: string[]) => names.filter((name) => kinds.includes(TABLE[name]![0]));

function refusal(input: unknown): ZoetropeError {
  try {
    parseRequest(input);
  } catch (error) {
    if (error instanceof ZoetropeError) return error;
    throw error;
  }
  throw new Error('The request was accepted.');
}

/** The single problem of a request that has one wrong field. */
function problem(name: string, value: unknown): ErrorDetail {
  const error = refusal({ prompt: 'x', [name]: value });
  expect(error.code).toBe('bad-request');
  expect(error.detail).toHaveLength(1);
  const [detail] = error.detail;
  expect(detail!.loc).toEqual(['body', name]);
  expect(error.message).toContain(`${name}: ${detail!.msg}`);
  return detail!;
}

describe('requestFields', () => {
  it('has the fields of the endpoint, in its order, with its defaults and ranges', () => {
    expect(requestFields.map(({ name }) => name)).toEqual(names);
    for (const field of requestFields) {
      const [kind, value, ...limits] = TABLE[field.name]!;
      expect(field.kind, field.name).toBe(kind);
      expect(field.default, field.name).toBe(value);
      expect(field.description.length, field.name).toBeGreaterThan(10);
      if (kind === 'enum') expect(field.options, field.name).toEqual(limits);
      else expect([field.min, field.max], field.name).toEqual([limits[0], limits[1]]);
      expect(field.maxLength, field.name).toBe(kind === 'string' ? MAX_PROMPT_LENGTH : undefined);
    }
  });
});

describe('parseRequest', () => {
  it('returns exactly the fields that were given', () => {
    expect(parseRequest({ prompt: 'a cat' })).toEqual({ prompt: 'a cat' });
    const request = { prompt: '', shift: 1.5, seed: 0, interpolator_model: 'none', num_frames: 18 };
    expect(parseRequest(request)).toEqual(request);
  });

  it('takes undefined for left out', () => {
    const request = parseRequest({ prompt: 'x', seed: undefined, num_frames: undefined });
    expect(Object.keys(request)).toEqual(['prompt']);
  });

  it('takes null for an absent seed, as the hosted endpoint does, and for nothing else', () => {
    expect(parseRequest({ prompt: 'x', seed: null })).toEqual({ prompt: 'x', seed: null });
    for (const name of names.filter((name) => name !== 'seed')) {
      expect(refusal({ prompt: 'x', [name]: null }).detail[0]?.loc, name).toEqual(['body', name]);
    }
  });

  it('accepts both ends of every range and refuses the next value, naming the limit', () => {
    for (const name of ofKind('integer', 'number')) {
      const [kind, , min, max] = TABLE[name] as [string, unknown, number, number];
      const step = kind === 'integer' ? 1 : 1e-9;
      for (const value of [min, max]) expect(parseRequest({ prompt: 'x', [name]: value })).toHaveProperty(name, value);
      expect(problem(name, min - step)).toMatchObject({
        type: 'greater_than_equal',
        msg: `Input should be greater than or equal to ${min}`,
        ctx: { ge: min },
        input: min - step,
      });
      expect(problem(name, max + step)).toMatchObject({
        type: 'less_than_equal',
        msg: `Input should be less than or equal to ${max}`,
        ctx: { le: max },
        input: max + step,
      });
    }
  });

  it('names the field’s own limit for numbers beyond the safe integers', () => {
    expect(problem('num_frames', 1e300)).toMatchObject({ type: 'less_than_equal', ctx: { le: 121 } });
    expect(problem('num_frames', -1e300)).toMatchObject({ type: 'greater_than_equal', ctx: { ge: 17 } });
    expect(problem('seed', 2 ** 60)).toMatchObject({ type: 'less_than_equal', ctx: { le: Number.MAX_SAFE_INTEGER } });
  });

  it('refuses fractions where whole numbers belong, and takes them elsewhere', () => {
    for (const name of ofKind('integer')) {
      expect(problem(name, 20.5)).toMatchObject({ type: 'int_from_float', input: 20.5 });
    }
    for (const name of ofKind('number')) expect(parseRequest({ prompt: 'x', [name]: 2.25 })).toHaveProperty(name, 2.25);
  });

  it('refuses NaN and infinities as what they are', () => {
    for (const name of ofKind('integer', 'number')) {
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
        expect(problem(name, value)).toMatchObject({ type: 'finite_number', input: value });
      }
    }
  });

  it('converts nothing', () => {
    for (const value of ['20', true, [20], { value: 20 }, 20n, new Date(0)]) {
      for (const name of ofKind('integer')) expect(problem(name, value).type).toBe('int_type');
      for (const name of ofKind('number')) expect(problem(name, value).type).toBe('float_type');
    }
    for (const value of ['true', 1, 0, [], {}]) {
      for (const name of ofKind('boolean')) expect(problem(name, value).type).toBe('bool_type');
    }
    for (const value of [1, true, ['x'], {}]) {
      for (const name of ofKind('string')) expect(problem(name, value).type).toBe('string_type');
    }
  });

  it('accepts every option of an enum and lists them when it refuses', () => {
    for (const name of ofKind('enum')) {
      const options = TABLE[name]!.slice(2) as string[];
      for (const option of options) expect(parseRequest({ prompt: 'x', [name]: option })).toHaveProperty(name, option);
      for (const value of ['', options[0]!.toUpperCase().concat(' '), 'auto', 720, ['720p'], true]) {
        expect(problem(name, value)).toMatchObject({ type: 'literal_error', input: value });
      }
    }
    expect(problem('resolution', '1080p')).toMatchObject({
      msg: "Input should be '480p', '580p' or '720p'",
      ctx: { expected: "'480p', '580p' or '720p'" },
    });
    expect(problem('acceleration', 'full').msg).toBe("Input should be 'none' or 'regular'");
  });

  it('bounds the length of both prompts', () => {
    const longest = 'x'.repeat(MAX_PROMPT_LENGTH);
    expect(parseRequest({ prompt: longest, negative_prompt: longest }).prompt).toBe(longest);
    for (const name of ofKind('string')) {
      const detail = problem(name, `${longest}x`);
      expect(detail).toMatchObject({ type: 'string_too_long', ctx: { max_length: MAX_PROMPT_LENGTH } });
    }
    expect(refusal({ prompt: `${longest}x` }).message.length).toBeLessThan(300);
  });

  it('reports a missing prompt with the body as input', () => {
    const body = { num_frames: 17 };
    expect(refusal(body).detail).toEqual([
      { loc: ['body', 'prompt'], msg: 'Field required', type: 'missing', input: body },
    ]);
  });

  it('refuses unknown fields, also the ones that objects are born with', () => {
    expect(problem('numFrames', 17)).toMatchObject({ type: 'extra_forbidden', input: 17 });
    for (const name of ['constructor', 'toString', 'hasOwnProperty']) {
      expect(problem(name, 1).type).toBe('extra_forbidden');
    }
    const error = refusal(JSON.parse('{"prompt": "x", "__proto__": {"num_frames": 17}}'));
    expect(error.detail).toMatchObject([{ loc: ['body', '__proto__'], type: 'extra_forbidden' }]);
  });

  it('reports all problems at once, fields in the endpoint’s order and unknown ones last', () => {
    const error = refusal({
      stepz: 3,
      video_quality: 'best',
      guidance_scale: 0,
      num_frames: 16,
      seed: -1,
      frames_per_second: 23.976,
    });
    expect(error.detail.map(({ loc, type }) => [loc[1], type])).toEqual([
      ['prompt', 'missing'],
      ['num_frames', 'greater_than_equal'],
      ['frames_per_second', 'int_from_float'],
      ['seed', 'greater_than_equal'],
      ['guidance_scale', 'greater_than_equal'],
      ['video_quality', 'literal_error'],
      ['stepz', 'extra_forbidden'],
    ]);
    expect(error.name).toBe('ZoetropeError:bad-request');
    expect(error.message).toContain('7 problems');
    expect(error.message).toContain('num_frames: Input should be greater than or equal to 17 (got 16)');
    expect(error.message).toContain('and 3 more');
  });

  it('refuses a body that is no object', () => {
    for (const body of [undefined, null]) {
      expect(refusal(body).detail).toMatchObject([{ loc: ['body'], type: 'missing' }]);
    }
    for (const body of ['a cat', 81, true, [], [{ prompt: 'x' }], () => 'x']) {
      const error = refusal(body);
      expect(error.code).toBe('bad-request');
      expect(error.detail).toMatchObject([{ loc: ['body'], type: 'model_attributes_type' }]);
    }
  });
});

describe('resolveRequest', () => {
  const nothing: AvailableParts = { film: false, rife: false, promptExpansion: false, safetyChecker: false };
  const everything: AvailableParts = { film: true, rife: true, promptExpansion: true, safetyChecker: true };
  const seven = () => 7;

  it('fills in every default of the endpoint and draws a seed', () => {
    const resolved = resolveRequest({ prompt: 'x' }, everything, seven);
    const defaults = Object.fromEntries(names.map((name) => [name, TABLE[name]![1]]));
    expect(resolved).toEqual({ ...defaults, prompt: 'x', seed: 7 });
  });

  it('keeps every given value', () => {
    const request: Required<Request> = {
      prompt: 'x',
      negative_prompt: 'y',
      num_frames: 18,
      frames_per_second: 4,
      seed: 2 ** 40,
      resolution: '480p',
      aspect_ratio: '1:1',
      num_inference_steps: 2,
      enable_safety_checker: true,
      enable_prompt_expansion: true,
      acceleration: 'none',
      guidance_scale: 1,
      guidance_scale_2: 10,
      shift: 1,
      interpolator_model: 'rife',
      num_interpolated_frames: 0,
      adjust_fps_for_interpolation: false,
      video_quality: 'low',
      video_write_mode: 'small',
    };
    expect(resolveRequest(request, everything, seven)).toEqual(request);
    expect(Object.keys(request)).toEqual(names);
  });

  it('draws a seed only where none is given', () => {
    const never = () => {
      throw new Error('drawn');
    };
    expect(resolveRequest({ prompt: 'x', seed: 0 }, nothing, never).seed).toBe(0);
    for (const seed of [null, undefined]) expect(resolveRequest({ prompt: 'x', seed }, nothing, seven).seed).toBe(7);
  });

  it('chooses film, else rife, else none where the caller named no interpolator', () => {
    const chosen = (parts: Partial<AvailableParts>) =>
      resolveRequest({ prompt: 'x', interpolator_model: undefined }, { ...nothing, ...parts }, seven)
        .interpolator_model;
    expect(chosen({ film: true, rife: true })).toBe('film');
    expect(chosen({ rife: true })).toBe('rife');
    expect(chosen({})).toBe('none');
  });

  it('refuses named parts that are not there, all at once', () => {
    const request: Request = {
      prompt: 'x',
      interpolator_model: 'film',
      enable_safety_checker: true,
      enable_prompt_expansion: true,
    };
    const attempt = (parts: AvailableParts) => () => resolveRequest(request, parts, seven);
    expect(attempt(nothing)).toThrowError(
      expect.objectContaining({
        code: 'missing-component',
        detail: [
          expect.objectContaining({ loc: ['body', 'interpolator_model'], input: 'film', ctx: { component: 'film' } }),
          expect.objectContaining({ loc: ['body', 'enable_prompt_expansion'], type: 'missing_component', input: true }),
          expect.objectContaining({ loc: ['body', 'enable_safety_checker'], type: 'missing_component', input: true }),
        ],
      }),
    );
    expect(attempt({ ...everything, film: false })).toThrowError(/FILM/);
    expect(attempt({ ...everything, rife: false })).not.toThrow();
  });

  it('does not mistake one interpolator for the other, and never refuses none', () => {
    const named = (interpolator_model: 'none' | 'film' | 'rife', parts: Partial<AvailableParts>) => () =>
      resolveRequest({ prompt: 'x', interpolator_model }, { ...nothing, ...parts }, seven);
    expect(named('rife', { film: true })).toThrowError(/RIFE/);
    expect(named('film', { rife: true })).toThrowError(/FILM/);
    expect(named('rife', { rife: true })().interpolator_model).toBe('rife');
    expect(named('none', { film: true, rife: true })().interpolator_model).toBe('none');
  });

  it('refuses a request that was never parsed', () => {
    expect(() => resolveRequest({ prompt: 'x', num_frames: 16 }, nothing, seven)).toThrowError(
      expect.objectContaining({ code: 'bad-request' }),
    );
  });
});
