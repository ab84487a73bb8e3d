import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { cleanPrompt } from '../../src/text/clean';

const golden = JSON.parse(readFileSync(new URL('../golden/clean.json', import.meta.url), 'utf8')) as [string, string][];

/** Readable name of a text with its invisible characters. */
const show = (text: string) => JSON.stringify(text).replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16)}`);

/** Every row gives the same with ftfy 6.3.1 (`fix_encoding=False`) and Python 3.11's html and re. */
const rules: Record<string, [string, string][]> = {
  'plain text': [
    ['', ''],
    ['A cat walks on the grass, realistic style.', 'A cat walks on the grass, realistic style.'],
    ['小猫在草地上。、', '小猫在草地上。、'],
    ['family 👨‍👩‍👧 and 🏴󠁧󠁢󠁷󠁬󠁳󠁿', 'family 👨‍👩‍👧 and 🏴󠁧󠁢󠁷󠁬󠁳󠁿'],
  ],
  '1 terminated entities': [
    ['cats &amp; dogs', 'cats & dogs'],
    ['&lt;b&gt; &hellip; &copy;', '<b> … ©'],
    ['&amp;amp;amp;amp;quot;', '"'],
    ['it&#x2019;s &#39;here&#39;', "it's 'here'"],
    ['P&EACUTE;REZ &NTILDE; &nTILDE; BUNDESSTRA&SZLIG;E', 'PÉREZ Ñ &nTILDE; BUNDESSTRASSE'],
    ['&SUP1; &MU;', '¹ Μ'],
    ['&#59; &#12abc;', '; abc;'],
    ['&#8217abc; &#8217;', "’abc; '"],
    ['&GTCC; &LT; &Lt;', '>CC; < ≪'],
    [`&#${'0'.repeat(20)}8217; &#${'0'.repeat(21)}8217;`, "' ’"],
    ['&CounterClockwiseContourIntegral;', '∳'],
    ['&nosuchname; & && &; &#; &#x;', '&nosuchname; & && &; &#; &#x;'],
  ],
  '1 a "<" turns entities over to html.unescape, from its line on': [
    ['it&rsquo;s', "it's"],
    ['it&rsquo;s <b>', 'it’s <b>'],
    ['it&rsquo;s\n<b> it&rsquo;s\nit&rsquo;s', "it's <b> it’s it’s"],
    ['<&amp;amp;lt;', '<&lt;'],
  ],
  'html.unescape': [
    ['&amp x&ampy &notit; &notin; &ltx', '& x&y ¬it; ∉ <x'],
    ['&copy2024 &nbsp me', '©2024 me'],
    ['&#65 &#x42;&#X43', 'A BC'],
    ['&#0; &#xD800; &#x110000; &#99999999999;', '\ufffd \ufffd \ufffd \ufffd'],
    ['<a&#1;b&#11;c&#x7f;d&#xfffe;e&#xfdd0;f&#x10ffff;g', '<abcdefg'],
    ['<&#128; &#x99; &#129;', '<€ ™ \u0081'],
    ['<a&#xfeff;b', '<a\ufeffb'],
  ],
  '3 C1 controls are Windows-1252': [
    ['\u0080 \u0085 \u0099 \u009c \u009f', '€ … ™ œ Ÿ'],
    ['\u0093quote\u0094', '"quote"'],
    ['\u0081\u008d\u008f\u0090\u009d', '\u0081\u008d\u008f\u0090\u009d'],
  ],
  '4 ligatures': [
    ['ﬀ ﬁ ﬂ ﬃ ﬄ ﬅ ﬆ', 'ff fi fl ffi ffl ſt st'],
    ['Ĳ ĳ ŉ', "IJ ij 'n"],
    ['Ǆ ǅ ǆ Ǉ ǈ ǉ Ǌ ǋ ǌ Ǳ ǲ ǳ', 'DŽ Dž dž LJ Lj lj NJ Nj nj DZ Dz dz'],
    ['æ œ ﬓ', 'æ œ ﬓ'],
  ],
  '5 character width': [
    ['Ｌｏｕｄ，１２３！～', 'Loud,123!~'],
    ['ｶﾞｰﾃﾞﾝ ￦ ￣', 'ガーデン ₩ ̄'],
    ['\uff00\ufff0', '\uff00\ufff0'],
  ],
  '6 quotes': [
    ['don’t ‘a’ ‚b‛ ʼc', "don't 'a' 'b' 'c"],
    ['“a” „b‟', '"a" "b"'],
    ['«a» ′b″ `c´', '«a» ′b″ `c´'],
  ],
  '5 and 7 white space': [
    ['a\r\nb\rc\u2028d\u2029e\nf', 'a b c d e f'],
    ['wide\u3000space', 'wide space'],
    [' \t a \u00a0\u1680\u2003\u202f\u205f\v\f b \n', 'a b'],
    ['<a&#x1680;b&NoBreak;c\u200bd', '<a b\u2060c\u200bd'],
  ],
  '8 surrogates': [
    ['\ud83d\udc31', '🐱'],
    ['\ud83d x \udc31', '\ufffd x \ufffd'],
    ['\udc31\ud83d', '\ufffd\ufffd'],
  ],
  '9 terminal escapes': [
    ['\u001b[36;44mblue\u001b[0m', 'blue'],
    ['\u001b[1;٣mred', 'red'],
    ['\u001b[36;44 \u001bm', '[36;44 m'],
  ],
  '10 control characters': [
    ['a\u0000b\u0008c\u000ed\u001ce\u001ff\u007fg', 'abcdefg'],
    ['\ufeffa\u206ab\u206fc\ufff9d\ufffbe\ufffcf', 'abcdef'],
    ['a\u200db\u200ec\u202ad\u00ade\ufffdf', 'a\u200db\u200ec\u202ad\u00ade\ufffdf'],
  ],
  '11 NFC': [
    ['cafe\u0301 A\u030a', 'café Å'],
    ['\u1100\u1161', '가'],
    ['\u212b \u2126', 'Å Ω'],
    ['½ ① ²', '½ ① ²'],
  ],
};

describe('cleanPrompt', () => {
  for (const [rule, rows] of Object.entries(rules)) {
    it.each(rows.map(([text, cleaned]) => [show(text), text, cleaned]))(`${rule}: %s`, async (_name, text, cleaned) => {
      expect(show(await cleanPrompt(text!))).toBe(show(cleaned!));
    });
  }

  it('gives what ftfy and Python give on 400 random texts', async () => {
    expect(golden).toHaveLength(400);
    const cleaned = await Promise.all(golden.map(([text]) => cleanPrompt(text)));
    expect(cleaned.map(show)).toEqual(golden.map(([, expected]) => show(expected)));
  });

  it('cleans a long text in time proportional to its length', async () => {
    const start = performance.now();
    expect(await cleanPrompt('&amp;ａ “\n'.repeat(100_000))).toHaveLength(500_000 - 1);
    expect(await cleanPrompt(' '.repeat(1_000_000))).toBe('');
    expect(await cleanPrompt(`${'\u001b['.repeat(100_000)}&${'a'.repeat(100_000)}`)).toHaveLength(200_001);
    expect(performance.now() - start).toBeLessThan(10_000);
  });
});
