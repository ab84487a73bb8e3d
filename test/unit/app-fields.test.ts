import { describe, expect, it } from 'vitest';
import {
  endpointPreset,
  type FormValues,
  groupFields,
  holdsPreset,
  labelOf,
  limitsOf,
  parseText,
  rangeOf,
  recommendedPreset,
  requestOf,
} from '../../src/app/fields';
import { parseRequest, type RequestField, requestFields } from '../../src/request';

const field = (name: string): RequestField => requestFields.find((each) => each.name === name)!;
const NOTHING = { film: false, rife: false, promptExpansion: false, safetyChecker: false };
const EVERYTHING = { film: true, rife: true, promptExpansion: true, safetyChecker: true };

describe('groupFields', () => {
  const groups = groupFields(requestFields);

  it('places every field of the request once', () => {
    const placed = groups.flatMap(({ fields }) => fields.map(({ name }) => name));
    expect(placed.toSorted()).toEqual(requestFields.map(({ name }) => name).toSorted());
  });

  it('keeps what a first video needs in view, in the order of the page', () => {
    const names = groups.filter(({ essential }) => essential).map(({ fields }) => fields.map(({ name }) => name));
    expect(names).toEqual([
      ['prompt', 'negative_prompt'],
      ['aspect_ratio', 'resolution', 'num_frames', 'num_inference_steps', 'seed'],
    ]);
  });

  it('leaves no group empty and gives every field a name of its own', () => {
    expect(groups.filter(({ fields }) => fields.length === 0)).toEqual([]);
    expect(new Set(requestFields.map(({ name }) => labelOf(name))).size).toBe(requestFields.length);
  });
});

describe('parseText', () => {
  it.each([
    ['integer', '17', 17],
    ['integer', ' 17 ', 17],
    ['integer', '17.5', 17.5],
    ['integer', '-3', -3],
    ['integer', '', undefined],
    ['integer', '  ', undefined],
    ['number', '3.5', 3.5],
    ['number', '1e1', 10],
    ['number', 'many', Number.NaN],
    ['number', '3,5', Number.NaN],
    ['enum', 'film', 'film'],
    ['enum', '', undefined],
    ['string', '', ''],
    ['string', '  two  spaces ', '  two  spaces '],
    ['string', '17', '17'],
  ] as const)('of %s %j is %j', (kind, text, value) => {
    expect(parseText(kind, text)).toBe(value);
  });

  it('hands what is no number to the library, which refuses it by name', () => {
    const request = requestOf({ prompt: 'x', shift: parseText('number', 'many') });
    expect(() => parseRequest(request)).toThrow(/shift: Input should be a finite number/);
  });
});

describe('rangeOf', () => {
  it.each([
    ['num_frames', '17 to 121, default 81'],
    ['guidance_scale', '1 to 10, default 3.5'],
    ['num_interpolated_frames', '0 to 4, default 1'],
    ['resolution', 'default 720p'],
    ['adjust_fps_for_interpolation', 'default on'],
    ['enable_safety_checker', 'default off'],
    ['seed', 'empty: drawn at random'],
    ['prompt', ''],
    ['negative_prompt', ''],
  ])('of %s is "%s"', (name, text) => {
    expect(rangeOf(field(name))).toBe(text);
  });
});

describe('requestOf', () => {
  it('drops only what is left out', () => {
    const values: FormValues = {
      prompt: '',
      seed: undefined,
      num_interpolated_frames: 0,
      enable_safety_checker: false,
    };
    expect(requestOf(values)).toEqual({ prompt: '', num_interpolated_frames: 0, enable_safety_checker: false });
  });
});

describe('presets', () => {
  const recommended = { num_frames: 17, resolution: '480p', shift: 3 } as const;
  const endpoint = endpointPreset(requestFields, recommended);

  it('of the endpoint are a request that it takes, without the words and the seed', () => {
    expect(Object.keys(endpoint)).toHaveLength(requestFields.length - 3);
    for (const name of ['prompt', 'negative_prompt', 'seed']) expect(endpoint).not.toHaveProperty(name);
    expect(endpoint.num_frames).toBe(81);
    expect(endpoint.video_quality).toBe('high');
    expect(parseRequest({ ...requestOf(endpoint), prompt: 'x' })).not.toHaveProperty('interpolator_model');
  });

  it('of the model lie over those of the endpoint', () => {
    expect(recommendedPreset(requestFields, recommended)).toEqual({ ...endpoint, ...recommended });
  });

  it('touch the negative prompt only where the model recommends one', () => {
    const worded = { ...recommended, negative_prompt: 'blurry', prompt: 'a tree', seed: 3 };
    expect(endpointPreset(requestFields, worded).negative_prompt).toBe('');
    const preset = recommendedPreset(requestFields, worded);
    expect(preset.negative_prompt).toBe('blurry');
    expect(preset).not.toHaveProperty('prompt');
    expect(preset).not.toHaveProperty('seed');
  });

  it('are recognised whatever the words and the seed are, and no more after a change', () => {
    const values = { ...endpoint, prompt: 'a', negative_prompt: 'b', seed: 7 };
    expect(holdsPreset(values, endpoint)).toBe(true);
    expect(holdsPreset({ ...values, shift: 4.9 }, endpoint)).toBe(false);
    expect(holdsPreset({ ...values, interpolator_model: 'none' }, endpoint)).toBe(false);
    expect(holdsPreset(values, recommendedPreset(requestFields, recommended))).toBe(false);
  });
});

describe('limitsOf', () => {
  it('names each missing part with the value that needs it', () => {
    expect(limitsOf('interpolator_model', {}, NOTHING).unavailable).toEqual(['film', 'rife']);
    expect(limitsOf('interpolator_model', {}, NOTHING).note).toMatch(/FILM.*add them under Models.*no RIFE/);
    expect(limitsOf('interpolator_model', {}, { ...EVERYTHING, rife: false })).toEqual({
      unavailable: ['rife'],
      note: 'This model folder has no RIFE weights.',
    });
    expect(limitsOf('enable_prompt_expansion', {}, NOTHING).unavailable).toEqual([true]);
    expect(limitsOf('enable_safety_checker', {}, NOTHING).unavailable).toEqual([true]);
    expect(limitsOf('enable_safety_checker', {}, NOTHING).note).toContain('Prompts are not checked');
  });

  it('says nothing where everything is there', () => {
    for (const { name } of requestFields) expect(limitsOf(name, {}, EVERYTHING)).toEqual({ unavailable: [], note: '' });
  });

  it('says what has no effect without an interpolator, chosen or left out', () => {
    const note = (interpolator_model: string | undefined, available: typeof NOTHING) =>
      limitsOf('num_interpolated_frames', { interpolator_model }, available).note;
    expect(note(undefined, NOTHING)).toBe('No effect without an interpolator.');
    expect(note('none', EVERYTHING)).toBe('No effect without an interpolator.');
    expect(note(undefined, { ...NOTHING, rife: true })).toBe('');
    expect(note('film', EVERYTHING)).toBe('');
  });
});
