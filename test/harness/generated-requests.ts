import { Mt19937 } from '../../src/diffusion/noise';

/**
 * Requests for the endpoint, valid and invalid, with the verdict that each deserves by the table of its fields: every
 * boundary and its neighbours, wrong types, missing and unknown fields, Unicode, huge texts. The table is written out
 * here and shares nothing with the schema.
 */

const LONGEST = 8192;

/** A value and the error type it deserves; null: none. */
type Candidate = [value: unknown, error: string | null];

const NO_NUMBER = ['1', '', true, [], {}, [1], null];

function numbers(min: number, max: number, whole: boolean): Candidate[] {
  const wrong = whole ? 'int_type' : 'float_type';
  const step = whole ? 1 : 1e-6;
  return [
    [min, null],
    [max, null],
    [min + step, null],
    [max - step, null],
    [min - step, 'greater_than_equal'],
    [max + step, 'less_than_equal'],
    [-1e308, 'greater_than_equal'],
    [1e308, 'less_than_equal'],
    [min + 0.5, whole ? 'int_from_float' : null],
    ...NO_NUMBER.map((value): Candidate => [value, wrong]),
  ];
}

function choices(...options: string[]): Candidate[] {
  const wrong = ['', ` ${options[0]}`, options[0]!.toUpperCase(), '\u0000', 1, null, [], {}, false];
  const others = wrong.filter((value) => !options.includes(value as string));
  return [
    ...options.map((value): Candidate => [value, null]),
    ...others.map((value): Candidate => [value, 'literal_error']),
  ];
}

const TEXTS: Candidate[] = [
  ['', null],
  ['a cat', null],
  ['窗台上的猫 🐈‍⬛', null],
  ['\ud800 \u0000 \u202e', null],
  ['x'.repeat(LONGEST), null],
  ['x'.repeat(LONGEST + 1), 'string_too_long'],
  ['猫'.repeat(100_000), 'string_too_long'],
  ...[1, true, null, [], {}, ['a']].map((value): Candidate => [value, 'string_type']),
];

const FLAGS: Candidate[] = [
  [true, null],
  [false, null],
  ...[0, 1, 'true', '', null, [], {}].map((value): Candidate => [value, 'bool_type']),
];

/** The endpoint's fields in its order. */
const FIELDS: Record<string, Candidate[]> = {
  prompt: TEXTS,
  negative_prompt: TEXTS,
  num_frames: numbers(17, 121, true),
  frames_per_second: numbers(4, 60, true),
  seed: [
    [null, null],
    ...numbers(0, Number.MAX_SAFE_INTEGER, true).filter(
      ([value]) => value !== null && (value as number) <= Number.MAX_SAFE_INTEGER,
    ),
    [1e308, 'less_than_equal'],
  ],
  resolution: choices('480p', '580p', '720p'),
  aspect_ratio: choices('16:9', '9:16', '1:1').filter(([, error]) => true || error),
  num_inference_steps: numbers(2, 40, true),
  enable_safety_checker: FLAGS,
  enable_prompt_expansion: FLAGS,
  acceleration: choices('none', 'regular'),
  guidance_scale: numbers(1, 10, false),
  guidance_scale_2: numbers(1, 10, false),
  shift: numbers(1, 10, false),
  interpolator_model: choices('none', 'film', 'rife'),
  num_interpolated_frames: numbers(0, 4, true),
  adjust_fps_for_interpolation: FLAGS,
  video_quality: choices('low', 'medium', 'high', 'maximum'),
  video_write_mode: choices('fast', 'balanced', 'small'),
};

const UNKNOWN = ['numFrames', 'constructor', 'toString', '🐈', '', 'loras', 'Prompt'];

/** A request's body and the problems that it must be refused for, as `field error_type`; none: it must be taken. */
export interface GeneratedRequest {
  body: Record<string, unknown>;
  expected: string[];
}

/** The same requests for the same seed. */
export function* generatedRequests(count: number, seed: bigint): Generator<GeneratedRequest> {
  const twister = new Mt19937(seed);
  const below = (limit: number) => twister.next() % limit;
  for (let n = 0; n < count; n++) {
    const body: Record<string, unknown> = {};
    const expected: string[] = [];
    // A third of the requests hold what is allowed only, so that verdicts of both kinds are common.
    const good = below(3) === 0;
    for (const [name, all] of Object.entries(FIELDS)) {
      if (below(good ? 2 : 4) > 0 && !(name === 'prompt' && (good || below(4) > 0))) {
        if (name === 'prompt') expected.push('prompt missing');
        continue;
      }
      const candidates = good ? all.filter(([, error]) => error === null) : all;
      const [value, error] = candidates[below(candidates.length)]!;
      body[name] = value;
      if (error) expected.push(`${name} ${error}`);
    }
    if (!good && below(8) === 0) {
      const name = UNKNOWN[below(UNKNOWN.length)]!;
      body[name] = below(100);
      expected.push(`${name} extra_forbidden`);
    }
    yield { body, expected };
  }
}

/** The problems in an answer's body, as {@link GeneratedRequest.expected} names them. */
export function problemsOf(answer: {
  detail?: readonly { loc: readonly (string | number)[]; type: string }[];
}): string[] {
  return answer.detail?.map(({ loc, type }) => `${loc.slice(1).join('.')} ${type}`) ?? [];
}
