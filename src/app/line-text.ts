/** What the line of unfinished videos says. Pure. */
import type { StoredJob } from '../index';

/** Characters of a prompt that a line of the list shows. */
const PROMPT_LENGTH = 120;

/** The prompt, shortened; its own words for an empty one. */
export function promptText({ request }: StoredJob): string {
  const prompt = request.prompt.trim();
  if (prompt === '') return 'Empty prompt';
  return prompt.length > PROMPT_LENGTH ? `${prompt.slice(0, PROMPT_LENGTH - 1)}…` : prompt;
}

/**
 * How it stands with a job.
 * @param place in the line, from 1.
 * @param modelId of the model that is open.
 */
export function standingText(job: StoredJob, place: number, modelId: string): string {
  const { state, stepsDone, request, model } = job;
  const other = model.id === modelId ? '' : ` Needs the model ${model.name}.`;
  if (state === 'waiting') return (place === 1 ? 'Next.' : `Number ${place}.`) + other;
  const steps = request.num_inference_steps ?? 0;
  if (stepsDone === 0) return `Interrupted before its first step.${other}`;
  const left = stepsDone === steps ? 'all steps are done' : `${stepsDone} of ${steps} steps are done`;
  return `Interrupted; ${left}.${other}`;
}
