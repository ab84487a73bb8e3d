import type { Random } from './random';

/** Changes the values and members of JSON without parsing it, so that what is no longer JSON can be changed further. */

/** Bytes of a text whose characters are bytes. */
export function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/**
 * Values that parsers trip over: wrong types, numbers at and beyond the edges, names of the prototype, broken escapes.
 */
const VALUES = [
  'null',
  'true',
  'false',
  '0',
  '-0',
  '1',
  '-1',
  '2',
  '3',
  '32',
  '0.5',
  '1e-400',
  '1e3',
  '1e20',
  '1e308',
  '1e999',
  '-1e999',
  '2147483647',
  '4294967296',
  '9007199254740991',
  '9007199254740993',
  '18446744073709551615',
  '""',
  '"x"',
  '"0"',
  '"\\ud800"',
  '"\\u0000"',
  '"\\x"',
  '"__proto__"',
  '"constructor"',
  '"hasOwnProperty"',
  '[]',
  '{}',
  '[[]]',
  '[null]',
  '[0]',
  '[1,2]',
  '[1,2,3,4]',
  '[1e20,1e20]',
  '{"":0}',
  '{"a":{"a":{}}}',
  '{"__proto__":{}}',
  'NaN',
  'undefined',
  '',
].map(latin1);

/** A value, or a name, or a member with both: bytes `begin` to `end`. */
interface Span {
  begin: number;
  end: number;
}

interface Spans {
  values: Span[];
  /** From the name to the end of its value. */
  members: Span[];
}

/** Spans of texts by their bytes; the corpus is changed again and again. */
const KNOWN = new WeakMap<Uint8Array, Spans>();

const QUOTE = 0x22;
const isScalar = (byte: number) =>
  byte > 0x2c && byte !== 0x3a && byte !== 0x5b && byte !== 0x5d && byte !== 0x7b && byte !== 0x7d;

/** Finds values and members, leniently. */
function spansOf(text: Uint8Array): Spans {
  const known = KNOWN.get(text);
  if (known) return known;
  const spans: Spans = { values: [], members: [] };
  const open: { begin: number; name: number }[] = [{ begin: 0, name: -1 }];
  const ended = (begin: number, end: number) => {
    spans.values.push({ begin, end });
    const around = open[open.length - 1]!;
    if (around.name >= 0) spans.members.push({ begin: around.name, end });
    around.name = -1;
  };
  for (let i = 0; i < text.length; ) {
    const byte = text[i]!;
    const begin = i++;
    if (byte === QUOTE) {
      while (i < text.length && text[i] !== QUOTE) i += text[i] === 0x5c ? 2 : 1;
      i = Math.min(i + 1, text.length);
      if (text[i] === 0x3a) {
        open[open.length - 1]!.name = begin;
        spans.values.push({ begin, end: i });
      } else ended(begin, i);
    } else if (byte === 0x7b || byte === 0x5b) open.push({ begin, name: -1 });
    else if (byte === 0x7d || byte === 0x5d) {
      if (open.length > 1) ended(open.pop()!.begin, i);
    } else if (isScalar(byte)) {
      while (i < text.length && isScalar(text[i]!)) i++;
      ended(begin, i);
    }
  }
  KNOWN.set(text, spans);
  return spans;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

const COMMA = latin1(',');

/** One change: a value replaced, wrapped or exchanged, a member doubled, repeated or taken out. */
export function mutateJson(text: Uint8Array, random: Random, words: readonly string[]): Uint8Array {
  const { values, members } = spansOf(text);
  if (values.length === 0) return joined([text, random.pick(VALUES)]);
  const value = random.pick(values);
  const put = (span: Span, ...parts: Uint8Array[]) =>
    joined([text.subarray(0, span.begin), ...parts, text.subarray(span.end)]);
  const own = (span: Span) => text.subarray(span.begin, span.end);
  const kind = random.below(10);
  if (kind < 4) return put(value, random.pick(VALUES));
  if (kind === 4 && words.length > 0) return put(value, latin1(JSON.stringify(random.pick(words))));
  if (kind === 5) {
    const depth = 1 + random.length(9);
    const object = random.chance(0.3);
    const [left, right] = object ? ['{"a":', '}'] : ['[', ']'];
    return put(value, latin1(left.repeat(depth)), own(value), latin1(right.repeat(random.chance(0.9) ? depth : 0)));
  }
  if (kind === 6) return put(value, own(random.pick(values)));
  if (members.length === 0) return put(value, own(value), COMMA, own(value));
  const member = random.pick(members);
  if (kind === 7) {
    const copies = Array.from({ length: 1 + random.length(4) }, () => [COMMA, own(member)]).flat();
    return put(member, own(member), ...copies);
  }
  if (kind === 8) {
    const comma = text[member.end] === 0x2c ? 1 : 0;
    return put({ begin: member.begin, end: member.end + comma });
  }
  return put(member, own(random.pick(members)));
}
