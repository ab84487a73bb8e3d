/**
 * The fields of fal's endpoint `fal-ai/wan/v2.2-a14b/text-to-video`: names, defaults and ranges as fal documents them.
 * The only place where a field is written down; types, schema, form, flags and the OpenAPI document follow from it.
 * Apart from the schema, so that a page can show a form without it.
 */

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

function number(min: number, max: number, value: number, description: string) {
  return { kind: 'number', default: value, min, max, description } as const;
}

function integer(min: number, max: number, value: number, description: string) {
  return { kind: 'integer', default: value, min, max, description } as const;
}

function flag(value: boolean, description: string) {
  return { kind: 'boolean', default: value, description } as const;
}

function choice<const Options extends readonly string[]>(
  options: Options,
  value: Options[number],
  description: string,
) {
  return { kind: 'enum', default: value, options, description } as const;
}

/** Every field in the endpoint's order. */
export const FIELDS = {
  prompt: {
    kind: 'string',
    maxLength: MAX_PROMPT_LENGTH,
    description: 'What the video shows. Required; an empty prompt is allowed and leaves the content to the seed.',
  },
  negative_prompt: {
    kind: 'string',
    default: '',
    maxLength: MAX_PROMPT_LENGTH,
    description: 'What the video should not show.',
  },
  num_frames: integer(17, 121, 81, 'Frames to generate, before interpolation.'),
  frames_per_second: integer(
    4,
    60,
    16,
    'Frame rate of the generated frames. Interpolation multiplies it, unless adjust_fps_for_interpolation is false.',
  ),
  seed: {
    kind: 'integer',
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    description:
      'Start of the random noise; its lower 32 bits count. The same seed and request give the same video on the same ' +
      'device. Left out or null: drawn at random, and returned.',
  },
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
} as const satisfies Record<string, Omit<RequestField, 'name'>>;

type Fields = typeof FIELDS;

/** What a field holds. */
type ValueOf<Field> = Field extends { options: readonly (infer Option)[] }
  ? Option
  : Field extends { kind: 'boolean' }
    ? boolean
    : Field extends { kind: 'string' }
      ? string
      : number;

/** A request as a caller writes it: fields that are left out, or `undefined`, take the endpoint's default. */
export type Request = { prompt: string; seed?: number | null | undefined } & {
  [Name in Exclude<keyof Fields, 'prompt' | 'seed'>]?: ValueOf<Fields[Name]> | undefined;
};

/** A request whose every field is definite: what a generation really used, as the answer returns it. */
export type ResolvedRequest = { [Name in keyof Fields]: ValueOf<Fields[Name]> };

/** Every field in the endpoint's order: what the page's form and the command line's flags are made from. */
export const requestFields: readonly RequestField[] = Object.entries(FIELDS).map(([name, field]) => ({
  name: name as keyof Request,
  ...field,
}));
