import { messageOf, shown, ZoetropeError } from '../errors';

/**
 * Levels of braces and brackets that any document read here may have; the deepest known, a transformers config, has
 * four.
 */
const MAX_DEPTH = 32;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;

/** First position at or after `at` that is not JSON white space. */
function skipSpace(text: string, at: number): number {
  let i = at;
  while (text[i] === ' ' || text[i] === '\n' || text[i] === '\r' || text[i] === '\t') i++;
  return i;
}

/**
 * Walks the tokens of a text that may or may not be JSON and refuses what JSON.parse lets pass or may not survive: a
 * name given twice in one object, and nesting deep enough to exhaust a recursive parser. Linear in the length.
 */
function refuseDuplicatesAndDepth(text: string, refuse: (why: string) => never): void {
  const open: (Set<string> | undefined)[] = [];
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x7b || code === 0x5b) {
      if (open.length === MAX_DEPTH) refuse(`it nests deeper than ${MAX_DEPTH} levels`);
      open.push(code === 0x7b ? new Set() : undefined);
    } else if (code === 0x7d || code === 0x5d) {
      open.pop();
    } else if (code === QUOTE) {
      const begin = i++;
      while (i < text.length && text.charCodeAt(i) !== QUOTE) i += text.charCodeAt(i) === BACKSLASH ? 2 : 1;
      const names = open[open.length - 1];
      if (!names || text.charCodeAt(skipSpace(text, i + 1)) !== COLON) continue;
      let name: string;
      try {
        name = JSON.parse(text.slice(begin, i + 1));
      } catch {
        refuse(`the name at character ${begin} is not a JSON string`);
      }
      if (names.has(name)) refuse(`it gives the name ${shown(name)} twice in one object`);
      names.add(name);
    }
  }
}

/**
 * Reads a JSON object from untrusted bytes: UTF-8 without byte order mark, `{` first, no name twice in an object, at
 * most 32 levels deep. Throws `bad-checkpoint`; `what` names the document.
 */
export function parseObject(bytes: Uint8Array, what: string): Record<string, unknown> {
  const refuse = (why: string): never => {
    throw new ZoetropeError('bad-checkpoint', `${what} is not a valid JSON object: ${why}. Download the file again.`);
  };
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return refuse('it is not UTF-8');
  }
  if (text[0] !== '{') refuse(`it begins with ${JSON.stringify(text.slice(0, 12))} where "{" must be`);
  refuseDuplicatesAndDepth(text, refuse);
  try {
    return JSON.parse(text);
  } catch (error) {
    return refuse(messageOf(error));
  }
}
