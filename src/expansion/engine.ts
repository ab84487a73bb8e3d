import { messageOf, throwIfAborted } from '../errors';
import type { LogEntry } from '../protocol';
import { type ExpansionLanguage, INSTRUCTIONS, languageOf } from './instructions';
import { problemOf, tidy } from './validate';

/** What an engine is told beside the prompt. */
export interface ExpansionContext {
  language: ExpansionLanguage;
  /** The system prompt, for engines that are language models. */
  instructions: string;
  signal?: AbortSignal | undefined;
}

/** Rewrites prompts. */
export interface ExpansionEngine {
  readonly name: string;
  /** An answer that is ours and needs no checking. */
  readonly trusted?: boolean;
  /** The longer prompt; undefined when this engine cannot be had here, which is no failure. */
  expand(prompt: string, context: ExpansionContext): Promise<string | undefined>;
}

/** An expanded prompt and who wrote it. */
export interface Expansion {
  prompt: string;
  /** Null: the prompt is the original. */
  engine: string | null;
}

/**
 * Asks the engines in their order; the first answer that passes is the prompt. An engine that fails is passed over with
 * a warning. An answer that breaks the rules, or that `accept` refuses, ends the attempt: the original prompt is used
 * and the log says why. Throws `aborted` only.
 *
 * @param accept why an answer must not be used; undefined when it may. Default: everything may.
 */
export async function expandPrompt(
  prompt: string,
  engines: readonly ExpansionEngine[],
  log: (entry: LogEntry) => void,
  signal?: AbortSignal,
  accept: (text: string) => Promise<string | undefined> = async () => undefined,
): Promise<Expansion> {
  const language = languageOf(prompt);
  for (const { name, trusted, expand } of engines) {
    let answer: string | undefined;
    try {
      answer = await expand(prompt, { language, instructions: INSTRUCTIONS[language], signal });
    } catch (error) {
      throwIfAborted(signal);
      log({ level: 'warning', message: `Prompt expansion by "${name}" failed: ${messageOf(error)}` });
      continue;
    }
    throwIfAborted(signal);
    if (answer === undefined) continue;
    const text = trusted ? answer : tidy(answer);
    const problem = (trusted ? undefined : problemOf(text, language)) ?? (await accept(text));
    if (problem === undefined) {
      log({ level: 'info', message: `The prompt was expanded by "${name}".` });
      return { prompt: text, engine: name };
    }
    log({ level: 'warning', message: `The prompt is used as written: the expansion by "${name}" ${problem}.` });
    return { prompt, engine: null };
  }
  log({ level: 'warning', message: 'The prompt is used as written: no engine could expand it.' });
  return { prompt, engine: null };
}
