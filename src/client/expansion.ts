import type { ExpansionEngine } from '../expansion/engine';
import { type LanguageModelApi, promptApiEngine } from '../expansion/prompt-api';

/** Engines of prompt expansion by name; `rules` is always there. */
export type ExpansionEngineName = 'user' | 'prompt-api' | 'language-model' | 'rules';

/**
 * A function of yours that rewrites prompts: `language` is the answer's, `instructions` are those that a language model
 * is given here. The answer is checked, and the original prompt used where it is none. `undefined` leaves the prompt to
 * the next engine.
 */
export type ExpandPrompt = ExpansionEngine['expand'];

/** The order unless configured. */
export const EXPANSION_ORDER: readonly ExpansionEngineName[] = ['user', 'prompt-api', 'language-model', 'rules'];

/** The engines that run in a page, since a worker has neither the page's functions nor the browser's model. */
export function pageEngines(user: ExpandPrompt | undefined): ReadonlyMap<string, ExpansionEngine> {
  const api = (globalThis as { LanguageModel?: LanguageModelApi }).LanguageModel;
  const engines = new Map<string, ExpansionEngine>();
  if (user) engines.set('user', { name: 'user', expand: user });
  if (api) engines.set('prompt-api', promptApiEngine(api));
  return engines;
}
