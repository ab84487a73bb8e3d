/** Text as the rules read it: one spelling for what people write in many. Pure. */

/** Letters of other scripts that look like Latin ones, replaced inside words that have Latin letters too. */
const LOOKALIKES: Readonly<Record<string, string>> = {
  а: 'a',
  в: 'b',
  е: 'e',
  і: 'i',
  к: 'k',
  м: 'm',
  н: 'h',
  о: 'o',
  р: 'p',
  с: 'c',
  т: 't',
  у: 'y',
  х: 'x',
  α: 'a',
  ε: 'e',
  ι: 'i',
  ο: 'o',
  ρ: 'p',
  υ: 'u',
};

/** Digits and signs that stand for letters, replaced inside words that have letters too. */
const LEET: Readonly<Record<string, string>> = {
  0: 'o',
  1: 'i',
  3: 'e',
  4: 'a',
  5: 's',
  7: 't',
  '@': 'a',
  $: 's',
  '!': 'i',
};

const INVISIBLE = /[\p{Cf}\u115f\u1160\u3164]/gu;
const MARKS = /\p{M}/gu;

/** Compatibility forms unified, lower case, without invisible characters and without accents. */
export function plainText(text: string): string {
  return text
    .normalize('NFKC')
    .toLowerCase()
    .replace(INVISIBLE, '')
    .normalize('NFD')
    .replace(MARKS, '')
    .normalize('NFC');
}

/**
 * Words between single spaces, with a space before the first and after the last one; an apostrophe stays inside its
 * word.
 */
export function words(text: string): string {
  return ` ${text
    .replace(/[^\p{L}\p{N}']+/gu, ' ')
    .replace(/(?<!\p{L})'|'(?!\p{L})/gu, ' ')
    .replace(/ +/g, ' ')
    .trim()} `;
}

function translate(word: string, table: Readonly<Record<string, string>>): string {
  return Array.from(word, (char) => table[char] ?? char).join('');
}

/** Undoes letters written as digits, signs or lookalikes. Words without a letter stay, so that numbers stay numbers. */
function unmask(text: string): string {
  return text.replace(/[\p{L}\p{N}@$!]+/gu, (word) => {
    const ended = word.replace(/!+$/, ''); // an exclamation is none of the word's
    const latin = /\p{Script=Latin}/u.test(ended);
    return latin ? translate(translate(ended, LEET), LOOKALIKES) : ended;
  });
}

/** Joins letters that stand alone, as in `n u d e` or `n.u.d.e`, and Han characters that are spaced out. */
function join(text: string): string {
  return text
    .replace(/(?<![\p{L}\p{N}])(?:\p{L}[\s._*-]+){2,}\p{L}(?![\p{L}\p{N}])/gu, (run) => {
      const joined = run.replace(/[\s._*-]+/g, '');
      return `${joined} ${joined.slice(1)}`; // the first may be an article
    })
    .replace(/(?<=\p{Script=Han})[\s._*·-]+(?=\p{Script=Han})/gu, '');
}

/**
 * Every reading of a text that the rules look at: as it stands, and with masked, joined and stretched letters undone. A
 * letter three times or more is read as one and as two.
 */
export function readings(text: string): string[] {
  const plain = plainText(text);
  const open = join(unmask(plain));
  const forms = [
    plain,
    unmask(plain),
    open,
    open.replace(/(\p{L})\1{2,}/gu, '$1'),
    open.replace(/(\p{L})\1{2,}/gu, '$1$1'),
  ];
  return [...new Set(forms.map(words))];
}
