import { type ErrorDetail, ZoetropeError } from '../errors';

/** What a checker thinks. */
export interface Verdict {
  /** Name of the checker. */
  checker: string;
  flagged: boolean;
  /** Score of each category that the checker saw, 0 to 1. */
  categories: Record<string, number>;
}

/** Judges a text. */
export interface TextChecker {
  readonly name: string;
  /** @param signal ends the check with `aborted`. */
  check(text: string, signal?: AbortSignal): Promise<Verdict>;
}

/** fal's page about the error; its clients show it. */
const URL = 'https://docs.fal.ai/errors#content_policy_violation';

/** The refusal in fal's form: clients branch on `type`; status 422. */
export function contentPolicyError(
  loc: ErrorDetail['loc'],
  input: unknown,
  { checker, categories }: Verdict,
): ZoetropeError {
  const names = Object.entries(categories)
    .sort(([, a], [, b]) => b - a)
    .map(([name]) => name);
  const msg = 'The content could not be processed because it was flagged by a content checker.';
  const ctx = { checker, categories: names };
  const detail: ErrorDetail = {
    loc,
    msg,
    type: 'content_policy_violation',
    ctx,
    url: URL,
    ...(input !== undefined && { input }),
  };
  const about = names.length > 0 ? ` (${names.join(', ')})` : '';
  return new ZoetropeError(
    'content-policy-violation',
    `${loc.slice(1).join('.') || 'The video'} was flagged by the content checker "${checker}"${about}. Change the prompt, or leave enable_safety_checker off.`,
    { detail: [detail] },
  );
}

/**
 * Lets a prompt pass only if every checker does. The negative prompt is not judged: it lists what a video should not
 * show. Throws `content-policy-violation`, `aborted`.
 */
export async function requireSafePrompt(
  prompt: string,
  checkers: readonly TextChecker[],
  signal?: AbortSignal,
): Promise<void> {
  const verdict = await objectionTo(prompt, checkers, signal);
  if (verdict) throw contentPolicyError(['body', 'prompt'], prompt, verdict);
}

/** The verdict of the first checker that objects. Throws `aborted`. */
export async function objectionTo(
  text: string,
  checkers: readonly TextChecker[],
  signal?: AbortSignal,
): Promise<Verdict | undefined> {
  for (const checker of checkers) {
    const verdict = await checker.check(text, signal);
    if (verdict.flagged) return verdict;
  }
  return undefined;
}
