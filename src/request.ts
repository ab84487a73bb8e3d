/**
 * The request of fal's endpoint, checked: refusals in the shape of fal's 422. The schema follows from the fields'
 * table. `zod/mini` adds 8 KB gzip to whoever checks (27 KB for `zod`).
 */
import * as z from 'zod/mini';
import { type ErrorDetail, ZoetropeError } from './errors';
import { FIELDS, type Request, type RequestField, type ResolvedRequest, requestFields } from './request/fields';

export {
  MAX_PROMPT_LENGTH,
  type Request,
  type RequestField,
  type ResolvedRequest,
  requestFields,
} from './request/fields';

/** A request with every default, its seed still open. */
type FullRequest = Omit<ResolvedRequest, 'seed'> & { seed?: number | null | undefined };

function schemaOf({ kind, min, max, maxLength, options, default: value }: Omit<RequestField, 'name'>) {
  const schema =
    kind === 'string'
      ? z.string().check(z.maxLength(maxLength!))
      : kind === 'boolean'
        ? z.boolean()
        : kind === 'enum'
          ? z.enum(options as readonly string[])
          : (kind === 'integer' ? z.int() : z.number()).check(z.minimum(min!), z.maximum(max!));
  return value === undefined ? schema : z._default(schema as z.ZodMiniType, value);
}

const requestSchema = z.strictObject({
  ...Object.fromEntries(Object.entries(FIELDS).map(([name, field]) => [name, schemaOf(field)])),
  seed: z.optional(z.nullable(schemaOf(FIELDS.seed))),
});

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

function withDefaults(input: unknown): FullRequest {
  const result = requestSchema.safeParse(input, { reportInput: true });
  if (result.success) return result.data as FullRequest;
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
