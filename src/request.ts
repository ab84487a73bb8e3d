/**
 * The request of fal's endpoint `fal-ai/wan/v2.2-a14b/text-to-video`: names, defaults and ranges as fal documents them,
 * refusals in the shape of fal's 422. The schema below is the only place where a field is written down; types, the
 * page's form and the command line's flags follow from it. `zod/mini` adds 8 KB gzip to the page (27 KB for `zod`).
 */
import * as z from 'zod/mini';
import { type ErrorDetail, ZoetropeError } from './errors';

/**
 * Longest prompt in UTF-16 code units: the text encoder reads 512 tokens and no piece of its vocabulary has more than
 * 16 characters (UMT5's tokenizer.json), so text beyond this could not reach the model.
 */
export const MAX_PROMPT_LENGTH = 512 * 16;

/** One field, as a form or a command line needs it. */
export interface RequestField {
  name: keyof Request;
  kind: 'string' | 'integer' | 'number' | 'boolean' | 'enum';
  /** Absent for `prompt`, which is required, and for `seed`, which is drawn. */
  default?: string | number | boolean;
  /** Smallest and largest value of numbers, inclusive. */
  min?: number;
  max?: number;
  /** Longest string in UTF-16 code units. */
  maxLength?: number;
  /** Values of an `enum`. */
  options?: readonly string[];
  description: string;
}

const about = z.registry<Omit<RequestField, 'name'>>();

function number(min: number, max: number, value: number, description: string) {
  const schema = z._default(z.number().check(z.minimum(min), z.maximum(max)), value);
  return schema.register(about, { kind: 'number', default: value, min, max, description });
}

function integer(min: number, max: number, value: number, description: string) {
  const schema = z._default(z.int().check(z.minimum(min), z.maximum(max)), value);
  return schema.register(about, { kind: 'integer', default: value, min, max, description });
}

function flag(value: boolean, description: string) {
  return z._default(z.boolean(), value).register(about, { kind: 'boolean', default: value, description });
}

function choice<const Options extends readonly string[]>(
  options: Options,
  value: Options[number],
  description: string,
) {
  const schema = z._default(z.enum(options), value);
  return schema.register(about, { kind: 'enum', default: value, options, description });
}

const prompt = () => z.string().check(z.maxLength(MAX_PROMPT_LENGTH));

const requestSchema = z.strictObject({
  prompt: prompt().register(about, {
    kind: 'string',
    maxLength: MAX_PROMPT_LENGTH,
    description: 'What the video shows. Required; an empty prompt is allowed and leaves the content to the seed.',
  }),
  negative_prompt: z._default(prompt(), '').register(about, {
    kind: 'string',
    default: '',
    maxLength: MAX_PROMPT_LENGTH,
    description: 'What the video should not show.',
  }),
  num_frames: integer(17, 121, 81, 'Frames to generate, before interpolation.'),
  frames_per_second: integer(
    4,
    60,
    16,
    'Frame rate of the generated frames. Interpolation multiplies it, unless adjust_fps_for_interpolation is false.',
  ),
  seed: z.optional(z.nullable(z.int().check(z.minimum(0)))).register(about, {
    kind: 'integer',
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    description:
      'Start of the random noise; its lower 32 bits count. The same seed and request give the same video on the same ' +
      'device. Left out or null: drawn at random, and returned.',
  }),
  resolution: choice(['480p', '580p', '720p'], '720p', 'Size class of the video; the model says how many pixels.'),
  aspect_ratio: choice(['16:9', '9:16', '1:1'], '16:9', 'Width to height of the video.'),
  num_inference_steps: integer(2, 40, 27, 'Denoising steps. More give finer detail and take longer.'),
  enable_safety_checker: flag(false, 'Check the prompt before anything is generated.'),
  enable_prompt_expansion: flag(false, 'Let a language model rewrite the prompt; the answer holds the text used.'),
  acceleration: choice(['none', 'regular'], 'regular', 'Reuse results of earlier steps where the model allows it.'),
  guidance_scale: number(1, 10, 3.5, 'How closely the high-noise expert follows the prompt. 1: no guidance.'),
  guidance_scale_2: number(1, 10, 4, 'How closely the low-noise expert follows the prompt. 1: no guidance.'),
  shift: number(1, 10, 5, 'Shift of the noise schedule. Higher spends more steps on composition and motion.'),
  interpolator_model: choice(
    ['none', 'film', 'rife'],
    'film',
    'Model that makes frames between the generated ones. Left out: the first of film, rife and none that is there.',
  ),
  num_interpolated_frames: integer(0, 4, 1, 'New frames between each pair of generated frames.'),
  adjust_fps_for_interpolation: flag(
    true,
    'Multiply the frame rate by num_interpolated_frames + 1, so that motion keeps its speed. False: slow motion.',
  ),
  video_quality: choice(['low', 'medium', 'high', 'maximum'], 'high', 'Quality of the encoded video.'),
  video_write_mode: choice(['fast', 'balanced', 'small'], 'balanced', 'Encode quickly, or into a small file.'),
});

/** A request as a caller writes it: fields that are left out, or `undefined`, take the endpoint's default. */
export type Request = z.input<typeof requestSchema>;

/** A request whose every field is definite: what a generation really used, as the answer returns it. */
export type ResolvedRequest = Omit<z.output<typeof requestSchema>, 'seed'> & { seed: number };

/** Every field in the endpoint's order: what the page's form and the command line's flags are made from. */
export const requestFields: readonly RequestField[] = Object.entries(requestSchema.shape).map(([name, schema]) => ({
  name: name as keyof Request,
  ...about.get(schema)!,
}));

/**
 * Checks a request and returns the fields that the caller gave, so that a field left out can be told from its default.
 * Nothing is converted: `"81"` is not a number here, unlike in pydantic's lax mode.
 * Throws `bad-request` with one `detail` entry for each problem, all at once.
 */
export function parseRequest(input: unknown): Request {
  withDefaults(input);
  const given = requestFields.map(({ name }) => [name, (input as Request)[name]] as const);
  return Object.fromEntries(given.filter(([, value]) => value !== undefined)) as Request;
}

function withDefaults(input: unknown): z.output<typeof requestSchema> {
  const result = requestSchema.safeParse(input, { reportInput: true });
  if (result.success) return result.data;
  // The last issue of a field is its own bound where zod also reports the range of safe integers.
  const problems = new Map<string, ErrorDetail>();
  for (const issue of result.error.issues) {
    for (const detail of detailsOf(issue, input)) problems.set(detail.loc.join('.'), detail);
  }
  const detail = [...problems.values()];
  throw new ZoetropeError('bad-request', summaryOf(detail), { detail });
}

/** A zod issue in the words of pydantic v2, whose types and messages fal's clients branch on and show. */
function detailsOf(issue: z.core.$ZodIssue, body: unknown): ErrorDetail[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({
      loc: ['body', key],
      msg: 'Extra inputs are not permitted',
      type: 'extra_forbidden',
      input: (body as Record<string, unknown>)[key],
    }));
  }
  const field = requestFields.find(({ name }) => name === issue.path[0]);
  const { input } = issue;
  if (!field) {
    if (body === undefined || body === null) {
      return [{ loc: ['body'], msg: 'Field required', type: 'missing', input: body }];
    }
    const msg = 'Input should be a valid dictionary or object to extract fields from';
    return [{ loc: ['body'], msg, type: 'model_attributes_type', input: body }];
  }
  const loc = ['body', field.name];
  switch (issue.code) {
    case 'too_small': {
      const msg = `Input should be greater than or equal to ${issue.minimum}`;
      return [{ loc, msg, type: 'greater_than_equal', ctx: { ge: issue.minimum }, input }];
    }
    case 'too_big': {
      if (field.kind === 'string') {
        const msg = `String should have at most ${issue.maximum} characters`;
        return [{ loc, msg, type: 'string_too_long', ctx: { max_length: issue.maximum }, input }];
      }
      const msg = `Input should be less than or equal to ${issue.maximum}`;
      return [{ loc, msg, type: 'less_than_equal', ctx: { le: issue.maximum }, input }];
    }
    case 'invalid_value': {
      const expected = alternatives(issue.values.map((value) => `'${String(value)}'`));
      return [{ loc, msg: `Input should be ${expected}`, type: 'literal_error', ctx: { expected }, input }];
    }
    default:
      // pydantic reports the whole body as the input of a field that is not there.
      if (input === undefined) return [{ loc, msg: 'Field required', type: 'missing', input: body }];
      return [{ loc, ...wrongType(field, input), input }];
  }
}

function wrongType(field: RequestField, input: unknown): { msg: string; type: string } {
  if (field.kind === 'string') return { msg: 'Input should be a valid string', type: 'string_type' };
  if (field.kind === 'boolean') return { msg: 'Input should be a valid boolean', type: 'bool_type' };
  if (typeof input === 'number' && !Number.isFinite(input)) {
    return { msg: 'Input should be a finite number', type: 'finite_number' };
  }
  if (field.kind === 'number') return { msg: 'Input should be a valid number', type: 'float_type' };
  if (typeof input === 'number') {
    return { msg: 'Input should be a valid integer, got a number with a fractional part', type: 'int_from_float' };
  }
  return { msg: 'Input should be a valid integer', type: 'int_type' };
}

/** `'a', 'b' or 'c'`, as pydantic lists the values of a literal. */
function alternatives(values: string[]): string {
  return values.length < 2 ? values.join() : `${values.slice(0, -1).join(', ')} or ${values.at(-1)}`;
}

/** Problems that a message spells out; `detail` has them all. */
const SPELT_OUT = 4;

function summaryOf(detail: readonly ErrorDetail[]): string {
  const lines = detail.slice(0, SPELT_OUT).map(({ loc, msg, type, input }) => {
    const got = type === 'missing' ? '' : ` (got ${shown(input)})`;
    return `${loc.slice(1).join('.') || 'body'}: ${msg}${got}`;
  });
  const more = detail.length > SPELT_OUT ? `; and ${detail.length - SPELT_OUT} more` : '';
  const count = detail.length === 1 ? 'a problem' : `${detail.length} problems`;
  return `The request has ${count}: ${lines.join('; ')}${more}. Correct or leave out what is named.`;
}

/** A value as a reader recognises it, cut to a line's part. */
function shown(value: unknown): string {
  const text =
    typeof value === 'string' ? JSON.stringify(value) : typeof value === 'object' ? kindOf(value) : `${String(value)}`;
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

function kindOf(value: object | null): string {
  return value === null ? 'null' : Array.isArray(value) ? 'an array' : 'an object';
}

/** Optional parts that a host may have beside the model. */
export interface AvailableParts {
  /** FILM weights for `interpolator_model`. */
  film: boolean;
  /** RIFE weights for `interpolator_model`. */
  rife: boolean;
  /** A language model for `enable_prompt_expansion`. */
  promptExpansion: boolean;
  /** A checker for `enable_safety_checker`. */
  safetyChecker: boolean;
}

/**
 * Makes every field definite: defaults for what was left out, the best interpolator that is there, a drawn seed.
 * `acceleration` keeps its value; what it comes to depends on the model's measured ratios.
 *
 * @param randomSeed gives a whole number from 0 to 2^32 - 1; called only if the request has no seed.
 * Throws `missing-component` with `detail` if the request names parts that are not available, `bad-request` as
 * {@link parseRequest} does.
 */
export function resolveRequest(request: Request, available: AvailableParts, randomSeed: () => number): ResolvedRequest {
  const full = withDefaults(request);
  const missing: ErrorDetail[] = [];
  const require = (name: keyof Request, part: keyof AvailableParts, what: string) => {
    if (available[part]) return;
    const msg = `${name} asks for ${what}, which is not available here`;
    missing.push({ loc: ['body', name], msg, type: 'missing_component', ctx: { component: part }, input: full[name] });
  };
  if (request.interpolator_model === 'film') require('interpolator_model', 'film', 'the FILM interpolator');
  if (request.interpolator_model === 'rife') require('interpolator_model', 'rife', 'the RIFE interpolator');
  if (full.enable_prompt_expansion) require('enable_prompt_expansion', 'promptExpansion', 'a prompt expansion model');
  if (full.enable_safety_checker) require('enable_safety_checker', 'safetyChecker', 'a safety checker');
  if (missing.length > 0) {
    const problems = missing.map(({ msg }) => msg).join('; ');
    const advice = 'Add the part, or leave the field out to use what is there.';
    throw new ZoetropeError('missing-component', `${problems}. ${advice}`, { detail: missing });
  }
  const interpolator = available.film ? 'film' : available.rife ? 'rife' : 'none';
  return {
    ...full,
    interpolator_model: request.interpolator_model ?? interpolator,
    seed: full.seed ?? randomSeed(),
  };
}
