import type { TextChecker, Verdict } from './checker';
import { plainText, readings, words } from './normalize';
import data from './rules.json';

/**
 * The checker that is always there: terms of rules.json over normalised text. Deterministic; weak against paraphrase.
 */

/** Scripts without spaces between words: their terms are found anywhere. */
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]/u;

/** A term as a pattern over `words()`: whole words, or the beginning of one where the term ends with `*`. */
function patternOf(term: string): string {
  const open = term.endsWith('*');
  const bare = words(plainText(open ? term.slice(0, -1) : term)).trim();
  const escaped = bare.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  if (UNSPACED.test(bare)) return escaped;
  return `(?<= )${escaped.replaceAll(' ', "(?:'\\p{L}+)? ")}${open ? "[\\p{L}']*" : "(?:'s)?"}(?= )`;
}

function anyOf(terms: readonly string[]): RegExp {
  // Longer terms first, so that an exception takes all that it names.
  const patterns = [...terms].sort((a, b) => b.length - a.length).map(patternOf);
  return new RegExp(patterns.join('|'), 'gu');
}

const ALLOWED = anyOf(data.allow);
const SETS = new Map(Object.entries(data.sets).map(([name, terms]) => [name, anyOf(terms)]));

/** Ages below 18 in years, in the languages of the rules. */
const AGE =
  / (?:[1-9]|1[0-7]) ?(?:years? old|yrs? old|year old|yo|y o|anos|ans|jahre alt|jahrige[rsn]?|лет) |(?:^|\D)(?:[1-9]|1[0-7]) ?(?:岁|歲|歳|세|살)/u;

function hits(name: string, texts: readonly string[]): boolean {
  if (name === 'minor' && texts.some((text) => AGE.test(text))) return true;
  return texts.some((text) => text.search(SETS.get(name)!) >= 0);
}

/** Categories of rules.json that a text falls into, each with score 1. */
export function categoriesOf(text: string): Record<string, number> {
  const texts = readings(text).map((reading) => reading.replace(ALLOWED, ' '));
  const found = data.rules.filter(({ all }) => all.every((name) => hits(name, texts)));
  return Object.fromEntries(found.map(({ category }) => [category, 1]));
}

/** Judges a prompt by every rule. */
export const ruleChecker: TextChecker = {
  name: 'rules',
  async check(text): Promise<Verdict> {
    const categories = categoriesOf(text);
    return { checker: 'rules', flagged: Object.keys(categories).length > 0, categories };
  },
};
