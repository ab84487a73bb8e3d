/**
 * Prompt cleaning as Wan does it before tokenising (Wan2.2 `wan/modules/tokenizers.py`, diffusers `pipeline_wan.py`):
 * `ftfy.fix_text`, `html.unescape` twice, runs of white space to one space, strip. The rules are those of ftfy 6.3.1
 * (`ftfy/fixes.py`, `ftfy/chardata.py`) and of Python's `html/__init__.py`. Left out is ftfy's mojibake repair (UTF-8
 * that was read as a single-byte encoding), which text typed or pasted in a browser does not need; of texts that are
 * no mojibake it would change those with "Â" or "Ã" alone between spaces.
 */

/** HTML's table of entities, 13 KB gzip: loaded when a text holds a "&" at all. */
type Entities = typeof import('entities/decode');

/** Latin ligatures and digraphs with their letters: `LIGATURES` of ftfy/chardata.py. */
const LIGATURES: Readonly<Record<string, string>> = {
  Ĳ: 'IJ',
  ĳ: 'ij',
  ŉ: 'ʼn',
  Ǆ: 'DŽ',
  ǅ: 'Dž',
  ǆ: 'dž',
  Ǉ: 'LJ',
  ǈ: 'Lj',
  ǉ: 'lj',
  Ǌ: 'NJ',
  ǋ: 'Nj',
  ǌ: 'nj',
  Ǳ: 'DZ',
  ǲ: 'Dz',
  ǳ: 'dz',
  ﬀ: 'ff',
  ﬁ: 'fi',
  ﬂ: 'fl',
  ﬃ: 'ffi',
  ﬄ: 'ffl',
  ﬅ: 'ſt',
  ﬆ: 'st',
};

// biome-ignore-start lint/suspicious/noControlCharactersInRegex: control characters are what these patterns are about.
/** Python's `\s` on text. JavaScript's lacks U+001C–U+001F and U+0085 and has U+FEFF besides. */
const PYTHON_SPACES = /[\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g;
/** ftfy's `ANSI_RE`: colours and movements of a terminal. */
const TERMINAL_ESCAPES = /\u001b\[[\p{Nd};]*[a-zA-Z]/gu;
/**
 * ftfy's `CONTROL_CHARS`: ASCII controls that are no white space, deprecated format controls, byte order mark,
 * annotations.
 */
const CONTROLS = /[\u0000-\u0008\u000b\u000e-\u001f\u007f\u206a-\u206f\ufeff\ufff9-\ufffc]/g;
// biome-ignore-end lint/suspicious/noControlCharactersInRegex: see above.

/**
 * U+0080 to U+009F as Windows-1252 has them (Node 20's TextDecoder takes that label for Latin-1); five places are
 * empty.
 */
const WINDOWS_1252 = '€\u0081‚ƒ„…†‡ˆ‰Š‹Œ\u008dŽ\u008f\u0090‘’“”•–—˜™š›œ\u009džŸ';

/**
 * Cleans a prompt the way the model's training prompts were cleaned. Encode the result, never the raw prompt: with
 * full-width commas, say, every comma would be another token.
 *
 * @param text any string, lone surrogates included
 * @returns well-formed text in NFC-normalised lines joined by single spaces, without white space at either end
 */
export async function cleanPrompt(text: string): Promise<string> {
  // Only full-width letters and the like become a "&" later on; U+FF06 is the one.
  const entities = /[&\uff06]/.test(text) ? await import('entities/decode') : undefined;
  return unescapeHtml(unescapeHtml(fixText(text, entities), entities), entities)
    .replace(PYTHON_SPACES, ' ')
    .replace(/^ | $/g, '');
}

/**
 * `ftfy.fix_text` line by line. A "<" says that the text is HTML, and from its line on entities stay as they are
 * (for `unescapeHtml`, which comes later but does not straighten the quotes it makes).
 */
function fixText(text: string, entities: Entities | undefined): string {
  let decodeEntities = true;
  return text
    .split(/(?<=\n)/)
    .map((line) => {
      decodeEntities &&= !line.includes('<');
      return fixLine(line, decodeEntities ? entities : undefined);
    })
    .join('');
}

/**
 * ftfy's rules in ftfy's order until nothing changes; one rule can make work for another ("&amp;quot;"). Two have no
 * place here: U+3000 to space and every line break to LF, since `cleanPrompt` makes all white space one space anyway.
 */
function fixLine(line: string, entities: Entities | undefined): string {
  for (;;) {
    const before = line;
    if (entities) line = line.replace(/&#?[0-9A-Za-z]{1,24};/g, (name) => decodeTerminatedEntity(name, entities));
    line = line
      // C1 controls mean what Windows-1252 has there, so U+0085 is an ellipsis and never a line break.
      .replace(/[\u0080-\u009f]/g, (c) => WINDOWS_1252[c.charCodeAt(0) - 0x80]!)
      .replace(/[ĲĳŉǄ-ǌǱ-ǳﬀ-ﬆ]/g, (c) => LIGATURES[c]!)
      .replace(/[\uff01-\uffef]/g, (c) => c.normalize('NFKC'))
      .replace(/[\u201c-\u201f]/g, '"')
      .replace(/[\u02bc\u2018-\u201b]/g, "'")
      .toWellFormed()
      .replace(TERMINAL_ESCAPES, '')
      .replace(CONTROLS, '')
      .normalize('NFC');
    if (line === before) return line;
  }
}

/**
 * ftfy's `unescape_html` on one reference that ends in a semicolon. It also knows names in capitals that HTML does not
 * ("&NTILDE;" is Ñ), as long as HTML decodes no part of them.
 */
function decodeTerminatedEntity(reference: string, entities: Entities): string {
  const { decodeHTML, decodeHTMLStrict } = entities;
  if (reference.startsWith('&#')) {
    const decoded = unescapeHtml(reference, entities);
    return decoded.includes(';') ? reference : decoded;
  }
  const decoded = decodeHTMLStrict(reference);
  if (decoded !== reference || reference !== reference.toUpperCase() || decodeHTML(reference) !== reference) {
    return decoded;
  }
  const lower = reference.toLowerCase();
  const decodedLower = decodeHTMLStrict(lower);
  return decodedLower === lower ? reference : decodedLower.toUpperCase();
}

/**
 * Python's `html.unescape`: every named reference of HTML, those that may lack the semicolon included ("&ampx" is
 * "&x"), and numbers. `decodeHTML` of `entities` does the same except that it keeps the code points that HTML forbids
 * where Python drops them.
 */
function unescapeHtml(text: string, entities: Entities | undefined): string {
  if (!entities) return text;
  const { decodeHTML } = entities;
  return text.replace(/&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu, (reference) => {
    const number = /^&#(?:[xX](?<hex>\w+)|(?<decimal>\d+))/.exec(reference)?.groups;
    if (!number) return decodeHTML(reference);
    const codePoint = number.hex === undefined ? Number.parseInt(number.decimal!, 10) : Number.parseInt(number.hex, 16);
    return isForbidden(codePoint) ? '' : decodeHTML(reference);
  });
}

/** `_invalid_codepoints` of Python's html/__init__.py, less those that `_invalid_charrefs` maps to something. */
function isForbidden(codePoint: number): boolean {
  return (
    (codePoint >= 0x1 && codePoint <= 0x8) ||
    codePoint === 0xb ||
    (codePoint >= 0xe && codePoint <= 0x1f) ||
    codePoint === 0x7f ||
    (codePoint >= 0xfdd0 && codePoint <= 0xfdef) ||
    (codePoint <= 0x10ffff && (codePoint & 0xfffe) === 0xfffe)
  );
}
