/** The endpoint's OpenAPI document and the table of docs/api.md, both made from the request's fields. Pure. */
import { type RequestField, requestFields } from '../request';
import { APPLICATION_ID, ENDPOINT_ID } from './endpoint';

/** A JSON Schema of draft 2020-12, as OpenAPI 3.1 takes it. */
type Schema = Record<string, unknown>;

function fieldSchema(field: RequestField): Schema {
  const { kind, description } = field;
  const schema: Schema = { description };
  if (kind === 'enum') Object.assign(schema, { type: 'string', enum: field.options });
  else if (field.name === 'seed') schema.type = ['integer', 'null'];
  else schema.type = kind;
  if (field.min !== undefined) Object.assign(schema, { minimum: field.min, maximum: field.max });
  if (field.maxLength !== undefined) schema.maxLength = field.maxLength;
  if (field.default !== undefined) schema.default = field.default;
  return schema;
}

function objectOf(title: string, properties: Record<string, Schema>, optional: readonly string[] = []): Schema {
  const names = Object.keys(properties);
  return {
    title,
    type: 'object',
    properties,
    required: names.filter((name) => !optional.includes(name)),
    'x-fal-order-properties': names,
  };
}

const text = (description: string): Schema => ({ type: 'string', description });
const integer = (description: string): Schema => ({ type: 'integer', description });
const reference = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });

const stepList: Schema = { type: 'array', items: { type: 'integer' } };

/** `EvaluationCounts` of `src/protocol.ts`. */
const EVALUATIONS: Schema = {
  type: 'object',
  description: 'Evaluations of the diffusion experts: all, those computed, and the steps, from 0, that were left out.',
  properties: {
    total: { type: 'integer' },
    computed: { type: 'integer' },
    skipped: { type: 'object', properties: { conditional: stepList, unconditional: stepList } },
  },
};

function schemas(): Record<string, Schema> {
  const input = Object.fromEntries(requestFields.map((field) => [field.name, fieldSchema(field)]));
  const optional = requestFields.map(({ name }) => name).filter((name) => name !== 'prompt');
  return {
    TextToVideoInput: { ...objectOf('TextToVideoInput', input, optional), additionalProperties: false },
    TextToVideoOutput: objectOf(
      'TextToVideoOutput',
      {
        video: reference('File'),
        prompt: text('The prompt that was used, expanded or not.'),
        seed: integer('The seed that was used.'),
        timings: {
          type: 'object',
          properties: { evaluations: EVALUATIONS },
          additionalProperties: { type: 'number' },
          description: 'Milliseconds of each stage, and what was evaluated. Not part of the hosted answer.',
        },
        request: { type: 'object', description: 'Every field as it was used. Not part of the hosted answer.' },
      },
      ['timings', 'request'],
    ),
    File: objectOf('File', {
      url: text('Where the video is: a blob URL of the page that holds the engine.'),
      content_type: text('video/mp4'),
      file_name: text('Proposed name.'),
      file_size: integer('Bytes.'),
    }),
    RequestLog: objectOf('RequestLog', {
      message: text('A line about what the request is doing.'),
      level: { type: 'string', enum: ['INFO', 'WARN'] },
      source: { type: 'string', enum: ['USER'] },
      timestamp: { type: 'string', format: 'date-time' },
    }),
    QueueStatus: objectOf(
      'QueueStatus',
      {
        status: { type: 'string', enum: ['IN_QUEUE', 'IN_PROGRESS', 'COMPLETED'] },
        request_id: text('Names the request in every later call.'),
        response_url: text('Where the result is.'),
        status_url: text('Where the status is.'),
        cancel_url: text('Where the request is cancelled.'),
        queue_position: integer('Requests that wait before this one; of IN_QUEUE only.'),
        logs: { type: 'array', items: reference('RequestLog'), description: 'Empty unless asked for with logs=1.' },
        metrics: { type: 'object', description: 'inference_time in seconds; of COMPLETED only.' },
      },
      ['queue_position', 'logs', 'metrics'],
    ),
    ValidationError: objectOf('ValidationError', {
      detail: {
        type: 'array',
        items: objectOf(
          'ErrorDetail',
          {
            loc: { type: 'array', items: { type: ['string', 'integer'] } },
            msg: text('Sentence for a person.'),
            type: text('What programs branch on, e.g. greater_than_equal or content_policy_violation.'),
            ctx: { type: 'object', description: 'Numbers or names of the message.' },
            input: { description: 'The value as it was given.' },
            url: text('A page about the error.'),
          },
          ['ctx', 'input', 'url'],
        ),
        description: 'All problems at once.',
      },
    }),
  };
}

const json = (schema: Schema, description: string) => ({
  description,
  content: { 'application/json': { schema } },
});

function paths(): Record<string, unknown> {
  const requestId = { name: 'request_id', in: 'path', required: true, schema: { type: 'string' } };
  const logs = { name: 'logs', in: 'query', required: false, schema: { type: 'number', enum: [0, 1] } };
  const request = `/${APPLICATION_ID}/requests/{request_id}`;
  const missing = { 404: { description: 'No such request.' } };
  return {
    [`/${ENDPOINT_ID}`]: {
      post: {
        summary: 'Submit a request',
        requestBody: { required: true, content: { 'application/json': { schema: reference('TextToVideoInput') } } },
        responses: { 200: json(reference('QueueStatus'), 'The request is in the queue.') },
      },
    },
    [`${request}/status`]: {
      get: {
        summary: 'Status of a request',
        parameters: [requestId, logs],
        responses: {
          200: json(reference('QueueStatus'), 'COMPLETED, with or without success.'),
          202: json(reference('QueueStatus'), 'IN_QUEUE or IN_PROGRESS.'),
          ...missing,
        },
      },
    },
    [`${request}/status/stream`]: {
      get: {
        summary: 'Changes of the status as server-sent events, to the end of the request',
        parameters: [requestId, logs],
        responses: {
          200: { description: 'Events.', content: { 'text/event-stream': { schema: reference('QueueStatus') } } },
          ...missing,
        },
      },
    },
    [request]: {
      get: {
        summary: 'Result of a request',
        parameters: [requestId],
        responses: {
          200: json(reference('TextToVideoOutput'), 'The video.'),
          400: { description: 'The request is not finished.' },
          422: json(reference('ValidationError'), 'The request was refused.'),
          499: { description: 'The request was cancelled.' },
          ...missing,
        },
      },
    },
    [`${request}/cancel`]: {
      put: {
        summary: 'Cancel a request',
        parameters: [requestId],
        responses: {
          202: { description: 'CANCELLATION_REQUESTED.' },
          400: { description: 'ALREADY_COMPLETED.' },
          ...missing,
        },
      },
    },
  };
}

/** The document of the endpoint's queue API, as public/openapi.json holds it. */
export function openapiDocument(): Record<string, unknown> {
  return {
    openapi: '3.1.0',
    info: {
      title: `Queue OpenAPI for ${ENDPOINT_ID}`,
      version: '1.0.0',
      description: `The queue of ${ENDPOINT_ID} as Zoetrope answers it in a browser.`,
      'x-fal-metadata': { endpointId: ENDPOINT_ID, category: 'text-to-video' },
    },
    servers: [{ url: 'https://queue.fal.run', description: 'The hosted endpoint; a proxy path stands in for it.' }],
    paths: paths(),
    components: { schemas: schemas() },
  };
}

/** Every field as a row of a Markdown table. */
export function fieldTable(): string {
  const rows = requestFields.map((field) => {
    const range = field.options
      ? field.options.map((option) => `\`${option}\``).join(', ')
      : field.maxLength !== undefined
        ? `at most ${field.maxLength} UTF-16 units`
        : field.min !== undefined
          ? `${field.min} to ${field.max === Number.MAX_SAFE_INTEGER ? '2^53 - 1' : field.max}`
          : '';
    const standard =
      field.default !== undefined
        ? `\`${JSON.stringify(field.default)}\``
        : field.name === 'seed'
          ? 'drawn'
          : 'required';
    return `| \`${field.name}\` | ${field.kind} | ${standard} | ${range} | ${field.description} |`;
  });
  return ['| Field | Type | Default | Range | Meaning |', '|---|---|---|---|---|', ...rows].join('\n');
}
