/** What the form knows about the request's fields beyond their schema: names for people, groups, presets. Pure. */
import type { ModelInfo, Request, RequestField } from '../index';

/** A field's value in the form; undefined means that the request leaves the field out. */
export type FieldValue = string | number | boolean | undefined;

/** Values of the form by field. */
export type FormValues = Partial<Record<keyof Request, FieldValue>>;

/** Groups in the order of the page. The first two are always in view, the others under "All settings". */
const GROUPS = {
  prompt: { title: 'Prompt', essential: true },
  clip: { title: 'Clip', essential: true },
  guidance: { title: 'Sampling', essential: false },
  time: { title: 'Time', essential: false },
  checks: { title: 'Prompt tools', essential: false },
  file: { title: 'File', essential: false },
} as const;

type GroupName = keyof typeof GROUPS;

/** Place and name of every field. The type makes a field that is new to the schema an error here. */
const PLACES: Record<keyof Request, { group: GroupName; label: string }> = {
  prompt: { group: 'prompt', label: 'Prompt' },
  negative_prompt: { group: 'prompt', label: 'Negative prompt' },
  aspect_ratio: { group: 'clip', label: 'Aspect ratio' },
  resolution: { group: 'clip', label: 'Resolution' },
  num_frames: { group: 'clip', label: 'Frames' },
  num_inference_steps: { group: 'clip', label: 'Steps' },
  seed: { group: 'clip', label: 'Seed' },
  guidance_scale: { group: 'guidance', label: 'Guidance, high noise' },
  guidance_scale_2: { group: 'guidance', label: 'Guidance, low noise' },
  shift: { group: 'guidance', label: 'Shift' },
  acceleration: { group: 'guidance', label: 'Acceleration' },
  frames_per_second: { group: 'time', label: 'Frames per second' },
  interpolator_model: { group: 'time', label: 'Interpolator' },
  num_interpolated_frames: { group: 'time', label: 'Interpolated frames' },
  adjust_fps_for_interpolation: { group: 'time', label: 'Adjust the frame rate' },
  enable_prompt_expansion: { group: 'checks', label: 'Prompt expansion' },
  enable_safety_checker: { group: 'checks', label: 'Safety checker' },
  video_quality: { group: 'file', label: 'Quality' },
  video_write_mode: { group: 'file', label: 'Write mode' },
};

/** A part of the form. */
export interface FieldGroup {
  title: string;
  /** In view without opening "All settings". */
  essential: boolean;
  fields: RequestField[];
}

/** Every field in its group, in the order of the page. */
export function groupFields(fields: readonly RequestField[]): FieldGroup[] {
  const order = Object.keys(PLACES);
  const placed = fields.toSorted((a, b) => order.indexOf(a.name) - order.indexOf(b.name));
  return Object.entries(GROUPS).map(([name, { title, essential }]) => ({
    title,
    essential,
    fields: placed.filter((field) => PLACES[field.name].group === name),
  }));
}

/** The field's name for people. */
export function labelOf(name: keyof Request): string {
  return PLACES[name].label;
}

/**
 * Fields that a request may leave out to mean something that no value says: a drawn seed, the interpolator that is
 * there.
 */
const LEFT_OUT_BY_DEFAULT: readonly (keyof Request)[] = ['seed', 'interpolator_model'];

/** Range and default in words, `17 to 121, default 81`; empty where there is nothing to say. */
export function rangeOf(field: RequestField): string {
  if (field.name === 'seed') return 'empty: drawn at random';
  const parts: string[] = [];
  if (field.min !== undefined && field.max !== undefined) parts.push(`${field.min} to ${field.max}`);
  if (field.kind === 'boolean') parts.push(field.default ? 'default on' : 'default off');
  else if (field.default !== undefined && field.default !== '') parts.push(`default ${field.default}`);
  return parts.join(', ');
}

/**
 * What is typed into a field, as the request's value. Empty means left out. Text that is no number becomes NaN, and the
 * library, which checks the request, says so; nothing is checked or corrected here.
 */
export function parseText(kind: RequestField['kind'], text: string): FieldValue {
  if (kind === 'string') return text;
  const trimmed = text.trim();
  if (trimmed === '') return undefined;
  return kind === 'enum' ? trimmed : Number(trimmed);
}

/**
 * The request that the form holds: its values without those that are left out. What it is worth, the library decides.
 */
export function requestOf(values: FormValues): Request {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Request;
}

/** Which settings a preset is about: all but the person's own words and seed. */
function isPreset(name: keyof Request, recommended: Partial<Request>): boolean {
  if (name === 'prompt' || name === 'seed') return false;
  return name !== 'negative_prompt' || recommended.negative_prompt !== undefined;
}

/** The endpoint's defaults for every field that presets are about. */
export function endpointPreset(fields: readonly RequestField[], recommended: Partial<Request>): FormValues {
  const settings = fields.filter(({ name }) => isPreset(name, recommended));
  return Object.fromEntries(
    settings.map((field) => [field.name, LEFT_OUT_BY_DEFAULT.includes(field.name) ? undefined : field.default]),
  );
}

/** The model's recommended settings over the endpoint's defaults. */
export function recommendedPreset(fields: readonly RequestField[], recommended: Partial<Request>): FormValues {
  const named = Object.entries(recommended).filter(([name]) => isPreset(name as keyof Request, recommended));
  return { ...endpointPreset(fields, recommended), ...Object.fromEntries(named) };
}

/** Whether the form holds exactly what a preset sets. */
export function holdsPreset(values: FormValues, preset: FormValues): boolean {
  return Object.entries(preset).every(([name, value]) => values[name as keyof Request] === value);
}

/** The optional part behind each value that needs one, and what a person is told where it is missing. */
const PARTS: { name: keyof Request; value: FieldValue; part: keyof ModelInfo['available']; missing: string }[] = [
  {
    name: 'interpolator_model',
    value: 'film',
    part: 'film',
    missing: 'FILM’s weights are not there; add them under Models.',
  },
  { name: 'interpolator_model', value: 'rife', part: 'rife', missing: 'This model folder has no RIFE weights.' },
  {
    name: 'enable_prompt_expansion',
    value: true,
    part: 'promptExpansion',
    missing: 'Not available: this model comes without a language model for it. The prompt is used as you write it.',
  },
  {
    name: 'enable_safety_checker',
    value: true,
    part: 'safetyChecker',
    missing: 'Not available: this model comes without a checker. Prompts are not checked.',
  },
];

/** What a model means for a field: values that it cannot serve, and sentences for the person; empty without any. */
export interface Limits {
  unavailable: FieldValue[];
  note: string;
}

/** Limits of a field under the form's present values. */
export function limitsOf(name: keyof Request, values: FormValues, available: ModelInfo['available']): Limits {
  const missing = PARTS.filter((entry) => entry.name === name && !available[entry.part]);
  const sentences = missing.map((entry) => entry.missing);
  if (name === 'num_interpolated_frames' || name === 'adjust_fps_for_interpolation') {
    const chosen = values.interpolator_model;
    const none = chosen === 'none' || (chosen === undefined && !available.film && !available.rife);
    if (none) sentences.push('No effect without an interpolator.');
  }
  return { unavailable: missing.map(({ value }) => value), note: sentences.join(' ') };
}
